"""The messages of Open Inference over gRPC.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
A map is written here as what it is on the wire, repeated entries of a key and a value.
"""

from pipeline.server.proto_table import messages

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


MESSAGE = messages(PACKAGE, MESSAGES)
