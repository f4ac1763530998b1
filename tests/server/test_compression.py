"""Bodies that a client compressed: read as they were before, and none takes more memory than the limit allows."""

import asyncio
import gzip
import tracemalloc
import zlib

import pytest

from pipeline.server.compression import decompressed
from pipeline.server.errors import Refused

LIMIT = 2**20
BODY = b'{"instances": ["how do i center a div with css"]}'


def received(*chunks: bytes, encoding: str = "gzip", limit: int = LIMIT) -> bytes:
    """What the application receives of a body that comes in these chunks."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks[:-1]]
    messages.append({"type": "http.request", "body": chunks[-1]})
    coming = iter(messages)

    async def receive():
        return next(coming)

    async def all_of_it() -> bytes:
        message = await decompressed(receive, encoding, limit)()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        return body

    return asyncio.run(all_of_it())


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", " gzip "])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_is_read_in_whatever_chunks_it_comes(encoding, size):
    packed = gzip.compress(BODY)
    chunks = [packed[at : at + size] for at in range(0, len(packed), size)]
    assert received(*chunks, encoding=encoding) == BODY
    assert received(*chunks, b"", encoding=encoding) == BODY


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", " IDENTITY "])
def test_a_body_that_is_not_compressed_is_passed_on(encoding):
    assert received(BODY, encoding=encoding) == BODY


def test_nothing_is_decompressed_before_all_of_it_is_there():
    """A client that sends most of a body and waits would else hold a thousand times what it sent."""
    packed = gzip.compress(bytes(LIMIT))
    coming = iter([{"type": "http.request", "body": packed[:-1], "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(coming)

    tracemalloc.start()
    try:
        assert asyncio.run(decompressed(receive, "gzip", LIMIT)()) == {"type": "http.disconnect"}
        assert tracemalloc.get_traced_memory()[1] < LIMIT / 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_a_body_may_be_as_long_as_the_limit_and_no_longer(size):
    assert len(received(gzip.compress(b"a" * size))) == size
    with pytest.raises(Refused, match="more than 1,048,576 bytes once decompressed") as refused:
        received(gzip.compress(b"a" * (LIMIT + 1)))
    assert refused.value.status == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("chunk", [100, 10**9])
def test_a_bomb_is_refused_before_its_memory_is_taken(encoding, chunk):
    bomb = (gzip if encoding == "gzip" else zlib).compress(bytes(300 * LIMIT))
    chunks = [bomb[at : at + chunk] for at in range(0, len(bomb), chunk)]
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as refused:
            received(*chunks, encoding=encoding)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    finally:
        tracemalloc.stop()
    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("encoding", "body", "status", "sentence"),
    [
        ("gzip", BODY, 400, "is not gzip"),
        ("gzip", zlib.compress(BODY), 400, "is not gzip"),
        ("deflate", gzip.compress(BODY), 400, "is not deflate"),
        ("gzip", gzip.compress(BODY)[:-1], 400, "ends too early"),
        ("gzip", b"", 400, "ends too early"),
        ("gzip", gzip.compress(BODY)[:-8] + bytes(8), 400, "is not gzip"),
        ("gzip", gzip.compress(BODY) + b"x", 400, "goes on behind its end"),
        ("gzip", gzip.compress(BODY) * 2, 400, "goes on behind its end"),
        ("br", BODY, 415, "'br' is not read: send the body as it is, or as gzip"),
        ("gzip, gzip", BODY, 415, "'gzip, gzip' is not read"),
        ("\xe9" * 1000, BODY, 415, "is not read"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(encoding, body, status, sentence):
    with pytest.raises(Refused) as refused:
        received(body, encoding=encoding)
    assert (refused.value.status, sentence in str(refused.value)) == (status, True)
    assert len(str(refused.value)) < 200
