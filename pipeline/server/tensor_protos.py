"""Converts between arrays and the messages of TensorFlow's services: TensorProto, tf.Example, Input."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.server.tf_serving_proto import ENUMS, MESSAGE


@dataclass(frozen=True)
class Kind:
    """A type of tensors that is read: its name, NumPy's, and the field of TensorProto with a value for each entry."""

    name: str
    numpy: type
    field: str


_KINDS = [
    Kind("string", object, "string_val"),
    Kind("float16", np.float16, "half_val"),
    Kind("float32", np.float32, "float_val"),
    Kind("float64", np.float64, "double_val"),
    *(Kind(each.__name__, each, "int_val") for each in (np.int8, np.int16, np.int32, np.uint8, np.uint16)),
    Kind("int64", np.int64, "int64_val"),
    Kind("uint32", np.uint32, "uint32_val"),
    Kind("uint64", np.uint64, "uint64_val"),
]
_OTHER_NAMES = {"float16": "half", "float32": "float", "float64": "double"}

KINDS = {ENUMS["DataType"][f"DT_{_OTHER_NAMES.get(kind.name, kind.name).upper()}"]: kind for kind in _KINDS}
"""The types of tensors that are read, by their numbers."""

_NAMES = {number: name for name, number in ENUMS["DataType"].items()}

STRING, FLOAT = ENUMS["DataType"]["DT_STRING"], ENUMS["DataType"]["DT_FLOAT"]

MAX_RANK = 2


def shape_of(tensor: Any) -> list[int]:
    """The shape of a TensorProto. Raises ValueError unless as many values were sent as it says.

    TensorFlow repeats the last value until the shape is filled, so that 48 bytes may ask for any amount of memory.
    """
    kind = KINDS.get(tensor.dtype)
    if kind is None:
        raise ValueError(f"its type is {type_of(tensor)}: send {', '.join(each.name for each in _KINDS)}")
    sizes = tensor.tensor_shape.dim
    if tensor.tensor_shape.unknown_rank or len(sizes) > MAX_RANK:
        raise ValueError(f"its shape has {len(sizes):,} sizes, or is unknown: send one with at most {MAX_RANK}")
    shape = [each.size for each in sizes]
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}: sizes are 0 or more")
    content = tensor.tensor_content
    if content and tensor.dtype == STRING:
        raise ValueError("its texts are in tensor_content: send them in string_val")
    sent, wanted = len(getattr(tensor, kind.field)), math.prod(shape)
    if content:
        sent, wanted = len(content), wanted * np.dtype(kind.numpy).itemsize
    if sent != wanted:
        what = "bytes" if content else "values"
        raise ValueError(f"its shape is {shape}, which needs {wanted:,} {what}, but {sent:,} were sent")
    return shape


def to_array(tensor: Any) -> np.ndarray:
    """The values of a TensorProto whose shape was checked; strings come as objects of bytes."""
    kind = KINDS[tensor.dtype]
    if tensor.tensor_content:
        little_endian: np.dtype = np.dtype(kind.numpy).newbyteorder("<")
        values: np.ndarray = np.frombuffer(tensor.tensor_content, little_endian).astype(kind.numpy)
    elif tensor.dtype == STRING:
        values = np.array(list(tensor.string_val), object)
    else:
        values = _of_field(getattr(tensor, kind.field), kind)
    return values.reshape([size.size for size in tensor.tensor_shape.dim])


def _of_field(sent: Any, kind: Kind) -> np.ndarray:
    """The values of a repeated field, which has its small types as int32, and float16 as its bits."""
    if kind.field == "half_val":
        return np.array(sent, np.int64).astype(np.uint16).view(np.float16)
    if kind.field == "int_val":
        return np.array(sent, np.int64).astype(kind.numpy)
    return np.array(sent, kind.numpy)


def type_of(tensor: Any) -> str:
    """The name of a TensorProto's type, such as DT_FLOAT."""
    return _NAMES.get(tensor.dtype, f"number {tensor.dtype}")


def to_proto(values: list[str] | np.ndarray) -> Any:
    """A TensorProto of texts, or of float32 numbers."""
    tensor = MESSAGE["TensorProto"]()
    for size in np.shape(values):
        tensor.tensor_shape.dim.add(size=size)
    if isinstance(values, np.ndarray):
        tensor.dtype, tensor.tensor_content = FLOAT, values.astype("<f4").tobytes()
    else:
        tensor.dtype = STRING
        tensor.string_val.extend(text.encode() for text in values)
    return tensor


def examples_of(request_input: Any) -> Sequence[Any]:
    """The tf.Examples of an Input."""
    kind = request_input.WhichOneof("kind")
    return getattr(request_input, kind).examples if kind else ()


def texts_of(request_input: Any, feature: str) -> list[bytes]:
    """The text of a feature in each tf.Example of an Input, or else in its context. Raises ValueError without one."""
    common = _text_of(request_input.example_list_with_context.context, feature)
    texts = list[bytes]()
    for number, example in enumerate(examples_of(request_input)):
        text = _text_of(example, feature)
        if text is None:
            text = common
        if text is None:
            raise ValueError(f"example {number} has no feature {feature!r} of one text")
        texts.append(text)
    return texts


def _text_of(example: Any, feature: str) -> bytes | None:
    features = example.features.feature
    if feature not in features or len(features[feature].bytes_list.value) != 1:
        return None
    text: bytes = features[feature].bytes_list.value[0]
    return text
