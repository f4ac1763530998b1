"""Reads the bodies of requests: JSON objects, posts and vectors; whatever is wrong with one is a sentence."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request

from pipeline.model import serving
from pipeline.server.errors import Refused
from pipeline.server.versions import Limits


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; Refused, 400, if it is none."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, f"the body is {_kind(body)}: send a JSON object")
    return body


def only(body: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise Refused, 400, if the body has another field than these."""
    if unknown := sorted(body.keys() - set(names)):
        raise Refused(400, f"the body has the unknown field {unknown[0]!r}: it may have {', '.join(names)}")


def refuse_other_signature(name: Any) -> None:
    """Raise Refused, 400, where a request to classify names a signature that does not."""
    if name not in (None, "", serving.CLASSIFY):
        raise Refused(400, f"the signature {name!r} does not classify: ask {serving.CLASSIFY}, or name none")


def posts(values: Any, where: str, limits: Limits) -> list[bytes]:
    """The texts of a list, as UTF-8; bytes come as {"b64": ...}. Raises Refused, 400 or 413."""
    if not isinstance(values, list):
        raise Refused(400, f"{where} is {_kind(values)}: send a list of texts")
    refuse_too_many(len(values), where, limits)
    return bounded((_post(value, f"{where}[{number}]", limits) for number, value in enumerate(values)), where, limits)


def bounded(texts: Iterable[bytes], where: str, limits: Limits) -> list[bytes]:
    """The texts, unless they are longer than a body may be, as a text that is common to many is; else Refused, 413."""
    found = list[bytes]()
    size = 0
    for text in texts:
        size += len(text)
        if size > limits.body_bytes:
            raise Refused(413, f"{where} has more than {limits.body_bytes:,} bytes of text: send less")
        found.append(text)
    return found


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
    try:
        rows = np.array(values, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise Refused(400, f"{where} must be vectors of numbers, all of the same length") from None
    return checked_vectors(rows, where, size, limits)


def checked_vectors(rows: np.ndarray, where: str, size: int, limits: Limits) -> list[np.ndarray]:
    """The rows of an array of vectors of `size` numbers, as float32. Raises Refused, 400 or 413."""
    if rows.dtype.kind not in "fiu":
        raise Refused(400, f"{where} has the type {rows.dtype}: vectors are numbers")
    refuse_other_shape(rows.shape, where, size, limits)
    with np.errstate(over="ignore"):
        vectors = rows.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise Refused(400, f"{where} has a number that is not finite, or not as float32")
    return list(vectors)


def refuse_other_shape(shape: Sequence[int], where: str, size: int, limits: Limits) -> None:
    """Raise Refused, 400 or 413, unless it is the shape of vectors of `size` numbers."""
    refuse_too_many(shape[0] if shape else 0, where, limits)
    if list(shape) != [shape[0], size]:
        raise Refused(400, f"{where} has the shape {list(shape)}: the model reads vectors of {size:,} numbers")


def column(rows: list[Any], name: str, where: str) -> list[Any]:
    """The values of rows that are either the value itself, or an object that has it under `name`."""
    found = []
    for number, row in enumerate(rows):
        if isinstance(row, dict) and set(row) != {"b64"}:
            if set(row) != {name}:
                raise Refused(400, f"{where}[{number}] must be a value, or an object with the field {name!r} only")
            row = row[name]
        found.append(row)
    return found


def _post(value: Any, where: str, limits: Limits) -> bytes:
    if isinstance(value, str):
        return refuse_too_long(value.encode(), where, limits)
    if isinstance(value, dict) and isinstance(value.get("b64"), str):
        try:
            return refuse_too_long(base64.b64decode(value["b64"], validate=True), where, limits)
        except binascii.Error:
            raise Refused(400, f"{where} has a b64 that is not base64") from None
    raise Refused(400, f"{where} is {_kind(value)}: a post is a text")


def _kind(value: Any) -> str:
    """What a JSON value is, for a sentence."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
