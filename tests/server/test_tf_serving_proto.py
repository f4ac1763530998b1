"""The messages of TensorFlow Serving's services, against Google's own."""

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    status_pb2,
)

from pipeline.server.tf_serving_proto import ENUMS, MESSAGE, PACKAGE

MODULES = [
    example_pb2,
    feature_pb2,
    tensor_pb2,
    tensor_shape_pb2,
    meta_graph_pb2,
    saved_model_pb2,
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    status_pb2,
]
GOOGLES = {name: kind for module in MODULES for name, kind in vars(module).items() if name[0].isupper()} | {
    "Any": Any,
    "Int64Value": Int64Value,
    "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
}


def described(field) -> tuple:
    """All that decides what a field is on the wire, and how it is read."""
    entry = field.message_type
    is_map = bool(entry and entry.GetOptions().map_entry)
    return (
        field.number,
        field.label,
        field.type,
        is_map and [described(each) for each in entry.fields],
        field.containing_oneof.name if field.containing_oneof else None,
        (field.message_type.name if field.message_type and not is_map else None),
        (field.enum_type.name if field.enum_type else None),
    )


@pytest.mark.parametrize("name", sorted(MESSAGE))
def test_each_field_is_that_of_googles_message(name):
    theirs = GOOGLES[name].DESCRIPTOR.fields_by_name
    ours = MESSAGE[name].DESCRIPTOR.fields_by_name
    assert {each: described(field) for each, field in ours.items()} == {each: described(theirs[each]) for each in ours}


def test_the_numbers_are_googles():
    assert ENUMS["DataType"] == dict(types_pb2.DataType.items())
    assert ENUMS["State"] == dict(get_model_status_pb2.ModelVersionStatus.State.items())


def test_the_map_of_signatures_has_googles_name_in_an_any():
    assert MESSAGE["SignatureDefMap"].DESCRIPTOR.full_name == f"{PACKAGE}.SignatureDefMap"
    assert get_model_metadata_pb2.SignatureDefMap.DESCRIPTOR.full_name == f"{PACKAGE}.SignatureDefMap"
