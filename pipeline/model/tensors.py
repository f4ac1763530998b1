"""Converts between arrays and the protocol buffers of TensorFlow's services: TensorProto, tf.Example, SignatureDef."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

FIELDS = {
    tf.string: "string_val",
    tf.float16: "half_val",
    tf.float32: "float_val",
    tf.float64: "double_val",
    **dict.fromkeys([tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16], "int_val"),
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
}
"""The types of tensors that are read, with the field of TensorProto that has a value for each entry."""

BY_NUMBER = {dtype.as_datatype_enum: dtype for dtype in FIELDS}

MAX_RANK = 2


def shape_of(tensor: Any) -> list[int]:
    """The shape of a TensorProto. Raises ValueError unless as many values were sent as it says.

    TensorFlow repeats the last value until the shape is filled, so that 48 bytes may ask for any amount of memory.
    """
    dtype = BY_NUMBER.get(tensor.dtype)
    if dtype is None:
        raise ValueError(f"its type is {type_of(tensor)}: send {', '.join(dtype.name for dtype in FIELDS)}")
    sizes = tensor.tensor_shape.dim
    if tensor.tensor_shape.unknown_rank or len(sizes) > MAX_RANK:
        raise ValueError(f"its shape has {len(sizes):,} sizes, or is unknown: send one with at most {MAX_RANK}")
    shape = [each.size for each in sizes]
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}: sizes are 0 or more")
    content = tensor.tensor_content
    if content and dtype == tf.string:
        raise ValueError("its texts are in tensor_content: send them in string_val")
    sent, wanted = len(getattr(tensor, FIELDS[dtype])), math.prod(shape)
    if content:
        sent, wanted = len(content), wanted * dtype.size
    if sent != wanted:
        what = "bytes" if content else "values"
        raise ValueError(f"its shape is {shape}, which needs {wanted:,} {what}, but {sent:,} were sent")
    return shape


def to_array(tensor: Any) -> np.ndarray:
    """The values of a TensorProto whose shape was checked; strings come as objects of bytes."""
    return np.asarray(tf.make_ndarray(tensor))


def type_of(tensor: Any) -> str:
    """The name of a TensorProto's type, such as DT_FLOAT."""
    types = tensor.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number
    return types[tensor.dtype].name if tensor.dtype in types else f"number {tensor.dtype}"


def to_proto(values: Any) -> Any:
    """A TensorProto of these values."""
    return tf.make_tensor_proto(values)


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
