"""Converts between arrays and the protocol buffers of TensorFlow's services: TensorProto, tf.Example, SignatureDef."""

from typing import Any

import numpy as np
import tensorflow as tf


def to_array(tensor: Any) -> np.ndarray:
    """The values of a TensorProto; strings come as objects of bytes. Raises ValueError where it contradicts itself."""
    try:
        return np.asarray(tf.make_ndarray(tensor))
    except (TypeError, KeyError) as error:
        raise ValueError(str(error)) from error


def to_proto(values: Any) -> Any:
    """A TensorProto of these values."""
    return tf.make_tensor_proto(values)


def texts_of(examples: Any, feature: str) -> list[bytes]:
    """The text of a feature in each tf.Example of an Input, with its context. Raises ValueError where one has none."""
    kind = examples.WhichOneof("kind")
    if kind is None:
        return []
    context = examples.example_list_with_context.context if kind == "example_list_with_context" else tf.train.Example()
    found = []
    for number, example in enumerate(getattr(examples, kind).examples):
        for source in (example, context):
            values = source.features.feature[feature].bytes_list.value if feature in source.features.feature else []
            if len(values) == 1:
                found.append(values[0])
                break
        else:
            raise ValueError(f"example {number} has no feature {feature!r} of one text")
    return found
