"""The messages of TensorFlow Serving's gRPC services, and what of a SavedModel tells its signatures.

They are those of https://github.com/tensorflow/serving/tree/2.15.1/tensorflow_serving/apis, whose own package brings
all of TensorFlow. Messages of other packages are in this one, too, because the names are not on the wire.
"""

from pathlib import Path
from typing import Any

from pipeline.server.proto_table import messages

PACKAGE = "tensorflow.serving"
PREDICTION_SERVICE = f"{PACKAGE}.PredictionService"
MODEL_SERVICE = f"{PACKAGE}.ModelService"

_TYPES = """INVALID FLOAT DOUBLE INT32 UINT8 INT16 INT8 STRING COMPLEX64 INT64 BOOL QINT8 QUINT8 QINT32 BFLOAT16 QINT16
QUINT16 UINT16 COMPLEX128 HALF RESOURCE VARIANT UINT32 UINT64 FLOAT8_E5M2 FLOAT8_E4M3FN"""
_NUMBERS = {f"DT_{name}": number for number, name in enumerate(_TYPES.split())} | {"DT_INT4": 29, "DT_UINT4": 30}

ENUMS = {
    "DataType": _NUMBERS | {f"{name}_REF": 100 + number for name, number in _NUMBERS.items() if number},
    "State": {"UNKNOWN": 0, "START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50},
    "Code": {"OK": 0, "DATA_LOSS": 15},
}

MESSAGES = """
ModelSpec:               string name = 1, oneof version_choice Int64Value version = 2,
                         oneof version_choice string version_label = 4, string signature_name = 3
Int64Value:              int64 value = 1
PredictRequest:          ModelSpec model_spec = 1, map<string, TensorProto> inputs = 2,
                         repeated string output_filter = 3
PredictResponse:         map<string, TensorProto> outputs = 1, ModelSpec model_spec = 2

TensorProto:             DataType dtype = 1, TensorShapeProto tensor_shape = 2, bytes tensor_content = 4,
                         repeated int32 half_val = 13, repeated float float_val = 5, repeated double double_val = 6,
                         repeated int32 int_val = 7, repeated bytes string_val = 8, repeated int64 int64_val = 10,
                         repeated uint32 uint32_val = 16, repeated uint64 uint64_val = 17
TensorShapeProto:        repeated Dim dim = 2, bool unknown_rank = 3
Dim:                     int64 size = 1, string name = 2

ClassificationRequest:   ModelSpec model_spec = 1, Input input = 2
Input:                   oneof kind ExampleList example_list = 1,
                         oneof kind ExampleListWithContext example_list_with_context = 2
ExampleList:             repeated Example examples = 1
ExampleListWithContext:  repeated Example examples = 1, Example context = 2
Example:                 Features features = 1
Features:                map<string, Feature> feature = 1
Feature:                 oneof kind BytesList bytes_list = 1
BytesList:               repeated bytes value = 1
ClassificationResponse:  ClassificationResult result = 1, ModelSpec model_spec = 2
ClassificationResult:    repeated Classifications classifications = 1
Classifications:         repeated Class classes = 1
Class:                   string label = 1, float score = 2

GetModelMetadataRequest:  ModelSpec model_spec = 1, repeated string metadata_field = 2
GetModelMetadataResponse: ModelSpec model_spec = 1, map<string, Any> metadata = 2
Any:                     string type_url = 1, bytes value = 2
SignatureDefMap:         map<string, SignatureDef> signature_def = 1
SignatureDef:            map<string, TensorInfo> inputs = 1, map<string, TensorInfo> outputs = 2,
                         string method_name = 3, map<string, TensorProto> defaults = 4
TensorInfo:              oneof encoding string name = 1, DataType dtype = 2, TensorShapeProto tensor_shape = 3

GetModelStatusRequest:   ModelSpec model_spec = 1
GetModelStatusResponse:  repeated ModelVersionStatus model_version_status = 1
ModelVersionStatus:      int64 version = 1, State state = 2, StatusProto status = 3
StatusProto:             Code error_code = 1, string error_message = 2

SavedModel:              repeated MetaGraphDef meta_graphs = 2
MetaGraphDef:            map<string, SignatureDef> signature_def = 5
"""

MESSAGE = messages(PACKAGE, MESSAGES, ENUMS)


def signatures_of(saved_model: Path) -> dict[str, Any]:
    """The signatures of a file saved_model.pb by name, as SignatureDef messages; ValueError if it is something else."""
    read = MESSAGE["SavedModel"].FromString(saved_model.read_bytes())
    if len(read.meta_graphs) != 1:
        raise ValueError(f"{saved_model.name} has {len(read.meta_graphs)} graphs, not one")
    copies = {name: MESSAGE["SignatureDef"]() for name in read.meta_graphs[0].signature_def}
    for name, copy in copies.items():
        copy.CopyFrom(read.meta_graphs[0].signature_def[name])  # else the whole graph would stay in memory
    return copies
