"""Open Inference's tensors, over HTTP and gRPC: the posts of a request, the outputs of an answer.

In binary form an element of BYTES is its length, a little-endian uint32, and its bytes; FP32 is
little-endian float32:
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from pipeline.published.answers import Answers
from pipeline.published.model import PublishedModel
from pipeline.server import bodies
from pipeline.server.errors import Refused
from pipeline.server.versions import Limits

NAME = "stackoverflow-tagger"
SERVER = {
    "name": NAME,
    "version": version(NAME),
    "extensions": ["binary_tensor_data", "classification"],
}
"""What the server says of itself; the extensions by Triton's names."""

PLATFORM = "tensorflow_savedmodel"
POST, BYTES, FP32 = "post", "BYTES", "FP32"
TYPES = {"tag": BYTES, "tags": BYTES, "probability": FP32, "probabilities": FP32}
"""The outputs; `tags` only of a version that gives a post several."""

BY_NAME = "probabilities"
"""The output that the classification extension gives with the tags' names."""

MOST_CLASSES = 100
"""How many tags the classification extension gives a post at most."""

LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Wanted:
    """An output that a request asks for.

    `classes` is how many of its classes it asks for by name, 0 for its values.
    """

    name: str
    classes: int = 0
    binary: bool = False


@dataclass(frozen=True)
class Tensor:
    """An output; `values` are texts or float32, flat."""

    name: str
    shape: list[int]
    values: Any
    binary: bool

    @property
    def datatype(self) -> str:
        """The datatype in the protocol's words."""
        return FP32 if isinstance(self.values, np.ndarray) else BYTES

    def to_bytes(self) -> bytes:
        """The values in binary form."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype("<f4").tobytes()
        encoded = [text.encode() for text in self.values]
        return b"".join(part for text in encoded for part in (LENGTH.pack(len(text)), text))


def shapes(model: PublishedModel) -> dict[str, list[int]]:
    """The outputs of a version, each with its shape, whose first length is the number of posts."""
    names = [name for name in TYPES if name != "tags" or model.limits is not None]
    return {name: [-1, len(model.labels)] if name == "probabilities" else [-1] for name in names}


def post_count(name: str, datatype: str, shape: Any, limits: Limits) -> int:
    """How many posts the input of a request has by its shape. Raises Refused, 400 or 413."""
    if (name, datatype) != (POST, BYTES):
        raise Refused(400, f"the input must have the name {POST!r} and the datatype {BYTES!r}")
    lengths = list(shape[:3])
    are_lengths = all(type(length) is int and length >= 0 for length in lengths)
    if not lengths or not are_lengths or lengths[1:] not in ([], [1]):
        said = str(lengths)[:80]
        raise Refused(400, f"inputs[0].shape is {said}: send [n], or [n, 1], for n posts")
    bodies.refuse_too_many(lengths[0], "inputs[0]", limits)
    return int(lengths[0])


def refuse_other_count(shape: list[int], entries: int) -> None:
    """Raise Refused, 400, where the data has not as many entries as the shape says."""
    if shape[0] != entries:
        fault = f"inputs[0].data has {entries:,} entries"
        raise Refused(400, f"inputs[0].shape is {list(shape)}, but {fault}")


def checked(texts: Iterable[bytes], limits: Limits) -> list[bytes]:
    """The posts. Raises Refused, 413, where one is too long."""
    numbered = ((f"inputs[0].data[{number}]", text) for number, text in enumerate(texts))
    return [bodies.refuse_too_long(text, where, limits) for where, text in numbered]


def from_bytes(data: bytes, count: int, limits: Limits) -> list[bytes]:
    """The posts in binary form, `count` of them. Raises Refused, 400 or 413."""
    texts, at = list[bytes](), 0
    while len(texts) < count and at + LENGTH.size <= len(data):
        begin = at + LENGTH.size
        at = begin + LENGTH.unpack_from(data, at)[0]
        texts.append(data[begin:at])
    if len(texts) != count or at != len(data):
        said = f"{count:,} texts, as the shape says, each behind its length of 4 bytes"
        raise Refused(400, f"the binary data of inputs[0] is not {said}")
    return checked(texts, limits)


def refuse_repeated(wanted: list[Wanted]) -> list[Wanted]:
    """The outputs. Raises Refused, 400, where one is named twice: each would be a copy."""
    names = set[str]()
    for each in wanted:
        if each.name in names:
            raise Refused(400, f"outputs has {each.name[:80]!r} twice: name each output once")
        names.add(each.name)
    return wanted


def classes(count: Any, name: str) -> int:
    """How many classes an output gives, by its parameter `classification`. Raises Refused, 400."""
    if type(count) is not int or not 0 <= count <= MOST_CLASSES:
        cure = f"send a number up to {MOST_CLASSES}"
        raise Refused(400, f"the parameter classification is {str(count)[:80]}: {cure}")
    if count and name != BY_NAME:
        cure = f"ask {BY_NAME!r} for its classification"
        raise Refused(400, f"the output {name[:80]!r} has no classes: {cure}")
    return count


def outputs(wanted: list[Wanted], answer: Answers, *, binary: bool = False) -> list[Tensor]:
    """The outputs that are wanted; all, `binary` or not, if none is named.

    Raises Refused, 400, where the version has no such output.
    """
    there = answer.outputs()
    for each in wanted:
        if each.name not in there:
            name = each.name[:80]
            raise Refused(400, f"there is no output {name!r}: the outputs are {', '.join(there)}")
    wanted = wanted or [Wanted(name, binary=binary) for name in there]
    return [_best(each, answer) if each.classes else _tensor(each, answer) for each in wanted]


def _best(wanted: Wanted, answer: Answers) -> Tensor:
    """The most probable tags of each post, the best first, in the words of Triton's extension."""
    best = np.argsort(-answer.probabilities, axis=1, kind="stable")[:, : wanted.classes]
    rows = zip(answer.probabilities, best.tolist(), strict=True)
    named = [f"{row[at]:f}:{at}:{answer.labels[at]}" for row, order in rows for at in order]
    return Tensor(wanted.name, list(best.shape), named, wanted.binary)


def _tensor(wanted: Wanted, answer: Answers) -> Tensor:
    values = answer.outputs()[wanted.name]
    if isinstance(values, np.ndarray):
        return Tensor(wanted.name, list(values.shape), values.reshape(-1), wanted.binary)
    return Tensor(wanted.name, [len(values)], values, wanted.binary)
