"""Undoes the compression of a request's body, whose size is limited before the memory is taken."""

import zlib
from typing import Any

from starlette.types import Receive

from pipeline.server.errors import Refused

WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's argument for each coding; HTTP's `deflate` is zlib's format."""

ACCEPTED = "gzip, deflate"


def decompressed(receive: Receive, encoding: str, limit: int) -> Receive:
    """Receive the body as it was before the client compressed it by `encoding`.

    It is decompressed when all of it is there, so that a client who sends it slowly holds no more
    than what it sent. Raises Refused: 415 for another coding; on receiving, 400 where the body is
    not of that coding, and 413 where it has more than `limit` bytes, of which one is made at most.
    """
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return receive
    if coding not in WINDOWS:
        cure = "send the body as it is, or as gzip"
        raise Refused(415, f"the Content-Encoding {encoding[:80]!r} is not read: {cure}")

    async def receiving() -> Any:
        packed, more = list[bytes](), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return message
            packed.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = _unpacked(b"".join(packed), coding, limit)
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def _unpacked(packed: bytes, coding: str, limit: int) -> bytes:
    unpacking = zlib.decompressobj(WINDOWS[coding])
    try:
        body = unpacking.decompress(packed, limit + 1)
    except zlib.error:
        raise Refused(400, f"the body is not {coding}, as its Content-Encoding says") from None
    if len(body) > limit:
        raise Refused(413, f"the body has more than {limit:,} bytes once decompressed: send less")
    if unpacking.unused_data or not unpacking.eof:
        fault = "goes on behind its end" if unpacking.unused_data else "ends too early"
        raise Refused(400, f"the body is {coding} that {fault}: send it whole, compressed once")
    return body
