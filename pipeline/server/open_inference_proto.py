"""The messages of Open Inference over gRPC, built from a table at the start: no generated code.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
A field that is not listed here is skipped, as protocol buffers skip fields that they do not know;
a map is what it is on the wire, repeated entries of a key and a value.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
)

MESSAGES = """
ServerLiveRequest:
ServerLiveResponse:     bool live = 1
ServerReadyRequest:
ServerReadyResponse:    bool ready = 1
ModelReadyRequest:      string name = 1, string version = 2
ModelReadyResponse:     bool ready = 1
ServerMetadataRequest:
ServerMetadataResponse: string name = 1, string version = 2, repeated string extensions = 3
ModelMetadataRequest:   string name = 1, string version = 2
ModelMetadataResponse:  string name = 1, repeated string versions = 2, string platform = 3,
                        repeated TensorMetadata inputs = 4, repeated TensorMetadata outputs = 5
TensorMetadata:         string name = 1, string datatype = 2, repeated int64 shape = 3

ModelInferRequest:      string model_name = 1, string model_version = 2, string id = 3,
                        repeated Input inputs = 5, repeated Output outputs = 6,
                        repeated bytes raw_input_contents = 7
Input:                  string name = 1, string datatype = 2, repeated int64 shape = 3,
                        Contents contents = 5
Output:                 string name = 1, repeated Parameter parameters = 2
ModelInferResponse:     string model_name = 1, string model_version = 2, string id = 3,
                        repeated Answered outputs = 5, repeated bytes raw_output_contents = 6
Answered:               string name = 1, string datatype = 2, repeated int64 shape = 3,
                        Contents contents = 5
Contents:               repeated float fp32_contents = 6, repeated bytes bytes_contents = 8
Parameter:              string key = 1, Value value = 2
Value:                  int64 int64_param = 2
"""


def _made() -> dict[str, Any]:
    """The message classes by name, in a pool apart from that of a client's generated code."""
    of = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", syntax="proto3")
    file.package = PACKAGE
    rows = [row.partition(":") for row in MESSAGES.replace(",\n", ",").split("\n") if row]
    for name, _, fields in rows:
        message = file.message_type.add(name=name)
        for field in filter(None, map(str.strip, fields.split(","))):
            *repeated, kind, field_name, _, number = field.split()
            added = message.field.add(name=field_name, number=int(number))
            added.label = of.LABEL_REPEATED if repeated else of.LABEL_OPTIONAL
            if kind[0].isupper():
                added.type, added.type_name = of.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                added.type = of.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = {name: pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name, _, _ in rows}
    return {name: message_factory.GetMessageClass(message) for name, message in made.items()}


MESSAGE = _made()
