"""Reads the bodies of requests: JSON objects, posts and vectors; whatever is wrong with one is a sentence."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request

from pipeline.server.errors import Refused
from pipeline.server.versions import Limits


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; Refused, 400, if it is none."""
    return to_object(await request.body())


def to_object(data: bytes) -> dict[str, Any]:
    """The JSON object that these bytes are. Raises Refused, 400."""
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
        raise Refused(400, f"the body has the unknown field {unknown[0]!r}: it may have {', '.join(names)}")


def posts(values: Any, where: str, limits: Limits) -> list[bytes]:
    """The texts of a list, as UTF-8; bytes come as {"b64": ...}. Raises Refused, 400 or 413."""
    if not isinstance(values, list):
        raise Refused(400, f"{where} is {_kind(values)}: send a list of texts")
    refuse_too_many(len(values), where, limits)
    return [_post(value, f"{where}[{number}]", limits) for number, value in enumerate(values)]


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
    refuse_too_many(len(rows) if rows.ndim else 0, where, limits)
    if rows.shape != (len(rows), size):
        raise Refused(400, f"{where} has the shape {list(rows.shape)}: the model reads vectors of {size:,} numbers")
    if not np.isfinite(rows).all():
        raise Refused(400, f"{where} has a number that is not finite")
    return list(rows.astype(np.float32))


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
