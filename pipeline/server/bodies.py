"""Reads the bodies of requests: JSON objects, posts and vectors; whatever is wrong with one is a sentence."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request

from pipeline.server.errors import Refused
from pipeline.server.versions import Limits

SHOWN = 100
"""Characters of a client's value that a sentence shows."""

VALUES, PARTS = 2**20, 100_000
"""How many values the JSON of a body may hold, and how many texts, lists and objects: a million numbers are 32 MiB."""


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; Refused, 400, if it is not one, or 413 if it has too many values."""
    return to_object(await request.body())


def to_object(data: bytes) -> dict[str, Any]:
    """The JSON object that these bytes are; raises Refused as json_object does."""
    _refuse_many_values(data)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, f"the body is {_kind(body)}: send a JSON object")
    return body


def only(body: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise Refused, 400, if the body has another field than these."""
    if unknown := sorted(body.keys() - set(names)):
        raise Refused(400, f"the body has the unknown field {short(unknown[0])}: it may have {', '.join(names)}")


def signature_of(asked: Any, *answered: str) -> str:
    """The signature that a request asks for, one of those `answered`, or the first of them; else Refused, 400."""
    name = asked or answered[0]
    if name not in answered:
        raise Refused(400, f"the signature {short(name)} is not answered: ask {' or '.join(answered)}")
    return str(name)


def short(value: Any) -> str:
    """How a sentence shows a value that a client sent, however long it is."""
    shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def posts(values: Any, where: str, limits: Limits) -> list[bytes]:
    """The texts of a list, as UTF-8; bytes come as {"b64": ...}. Raises Refused, 400 or 413.

    The list is emptied, so that its memory is free while the request waits for its turn; `vectors` does so, too.
    """
    if not isinstance(values, list):
        raise Refused(400, f"{where} is {_kind(values)}: send a list of texts")
    refuse_too_many(len(values), where, limits)
    texts = bounded((_post(value, f"{where}[{number}]", limits) for number, value in enumerate(values)), where, limits)
    values.clear()
    return texts


def bounded(posts: Iterable[bytes], where: str, limits: Limits) -> list[bytes]:
    """The posts, unless they are longer than a body may be, as a text that is common to many is; else Refused, 413."""
    texts = list[bytes]()
    size = 0
    for post in posts:
        size += len(post)
        if size > limits.body_bytes:
            raise Refused(413, f"{where} has more than {limits.body_bytes:,} bytes of text: send less")
        texts.append(post)
    return texts


def refuse_too_many(count: int, where: str, limits: Limits) -> None:
    """Raise Refused where a request has no post, 400, or too many, 413."""
    if not count:
        raise Refused(400, f"{where} is empty: send at least one post")
    if count > limits.posts:
        raise Refused(413, f"{where} has {count:,} entries: send at most {limits.posts:,} in a request")


def refuse_too_long(post: bytes, where: str, limits: Limits) -> bytes:
    """The post, unless it is too long; else Refused, 413."""
    if len(post) > limits.post_bytes:
        raise Refused(413, f"{where} has {len(post):,} bytes: a post may have at most {limits.post_bytes:,}")
    return post


def vectors(values: Any, where: str, size: int, limits: Limits) -> list[np.ndarray]:
    """The rows of a list of lists of `size` numbers, float32. Raises Refused, 400 or 413."""
    if not isinstance(values, list):
        raise Refused(400, f"{where} is {_kind(values)}: send a list of vectors")
    refuse_too_many(len(values), where, limits)
    # NumPy would read texts and null as numbers, too.
    are_numbers = all(isinstance(row, list) for row in values) and (
        set(map(type, chain.from_iterable(values))) <= {int, float}
    )
    if not are_numbers or len({len(row) for row in values}) > 1:
        raise Refused(400, f"{where} must be vectors of numbers, all of the same length")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        rows = np.array(values, dtype=np.float32)
    values.clear()
    return checked_vectors(rows, where, size, limits)


def checked_vectors(rows: np.ndarray, where: str, size: int, limits: Limits) -> list[np.ndarray]:
    """The rows of an array of vectors of `size` numbers, as float32. Raises Refused, 400 or 413."""
    if rows.dtype.kind not in "fiu":
        raise Refused(400, f"{where} has the type {rows.dtype}: vectors are numbers")
    refuse_other_shape(rows.shape, where, size, limits)
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        raise Refused(400, f"{where} has a number that is not finite, or too large for float32")
    return list(rows)


def refuse_other_shape(shape: Sequence[int], where: str, size: int, limits: Limits) -> None:
    """Raise Refused, 400 or 413, unless it is the shape of vectors of `size` numbers."""
    refuse_too_many(shape[0] if shape else 0, where, limits)
    if list(shape) != [shape[0], size]:
        raise Refused(400, f"{where} has the shape {list(shape)}: the model reads vectors of {size:,} numbers")


def column(rows: list[Any], name: str, where: str) -> list[Any]:
    """The values of rows that are either the value itself, or an object that has it under `name`; empties the rows."""
    values = []
    for number, row in enumerate(rows):
        if isinstance(row, dict) and set(row) != {"b64"}:
            if set(row) != {name}:
                raise Refused(400, f"{where}[{number}] must be a value, or an object with the field {name!r} only")
            row = row[name]
        values.append(row)
    rows.clear()
    return values


def _post(value: Any, where: str, limits: Limits) -> bytes:
    if isinstance(value, str):
        return refuse_too_long(value.encode(), where, limits)
    if isinstance(value, dict) and isinstance(value.get("b64"), str):
        try:
            return refuse_too_long(base64.b64decode(value["b64"], validate=True), where, limits)
        except ValueError:  # also where it is not ASCII
            raise Refused(400, f"{where} has a b64 that is not base64") from None
    raise Refused(400, f"{where} is {_kind(value)}: a post is a text")


def _kind(value: Any) -> str:
    """What a JSON value is, for a sentence."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _refuse_many_values(body: bytes) -> None:
    """Raise Refused, 413, for JSON that would take far more memory than its bytes; signs inside texts do not count."""
    if len(body) <= PARTS or _fits(body):
        return
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # now each quotation mark begins or ends a text
    if bare.count(b'"') // 2 > PARTS or not _fits(b"".join(bare.split(b'"')[::2])):
        most = f"{VALUES:,} values, or {PARTS:,} texts, lists and objects"
        raise Refused(413, f"the body has more than {most}: send less at a time")


def _fits(json: bytes) -> bool:
    parts = json.count(b"[") + json.count(b"{") + json.count(b'"') // 2
    return parts <= PARTS and json.count(b",") < VALUES
