"""MLServer's types and codecs over HTTP and gRPC, and its command `mlserver infer`, call by call."""

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pandas as pd
from calls import GRPC, HTTP, MODEL, TEXTS, call, plain, tell
from mlserver.codecs import Base64Codec, NumpyCodec, PandasCodec, StringCodec, StringRequestCodec
from mlserver.grpc import converters, dataplane_pb2
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import (
    Datatype,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    Parameters,
    RequestOutput,
)

URL = f"http://{HTTP}/v2"
POST = StringCodec.encode_input("post", TEXTS)


def asked(url, body=None):
    try:
        return urllib.request.urlopen(url, body).read()  # noqa: S310 - the server under test
    except urllib.error.HTTPError as error:
        raise ValueError(json.load(error)["error"]) from None


def outcome(answer):
    outputs = {output.name: output for output in answer.outputs}
    texts = {
        name: StringCodec.decode_output(each)
        for name, each in outputs.items()
        if each.datatype in ("BYTES", Datatype.BYTES)
    }
    numbers = {name: plain(NumpyCodec.decode_output(each)) for name, each in outputs.items() if name not in texts}
    return {name: texts.get(name, numbers.get(name)) for name in outputs} | {"id": answer.id}


def infer(request, **how):
    body = request.model_dump_json(**how).encode()
    answer = asked(f"{URL}/models/{MODEL}/infer", body)
    return outcome(InferenceResponse.model_validate_json(answer))


def request_of(tensor, **fields):
    return InferenceRequest(id="42", inputs=[tensor], **fields)


def batch(*options):
    """What `mlserver infer` writes for a file of requests."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "in"), Path(folder, "out")
        file.write_text(request_of(POST).model_dump_json(exclude_none=True) + "\n")
        mlserver = Path(sys.executable).with_name("mlserver")
        command = [mlserver, "infer", "-u", HTTP, "-m", MODEL, "-i", file, "-o", out, "--retries", "1", *options]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if not out.exists() or not (written := out.read_text()):
            raise ValueError(done.stderr[-2000:])
        answer = json.loads(written)
        if "outputs" not in answer:
            raise ValueError(str(answer["error"]))
        return outcome(InferenceResponse.model_validate(answer))


call("server metadata", lambda: MetadataServerResponse.model_validate_json(asked(URL)).extensions)
metadata = MetadataModelResponse.model_validate_json(asked(f"{URL}/models/{MODEL}"))
call("model metadata", lambda: [output.model_dump(mode="json", exclude_none=True) for output in metadata.outputs])
call("infer StringCodec", lambda: infer(request_of(POST)))
call("infer without nulls", lambda: infer(request_of(POST), exclude_none=True))
texts = StringCodec.encode_input("post", TEXTS, use_bytes=False)
call("infer texts", lambda: infer(request_of(texts)))
call("infer Base64Codec", lambda: infer(request_of(Base64Codec.encode_input("post", [t.encode() for t in TEXTS]))))
frame = PandasCodec.encode_request(pd.DataFrame({"post": TEXTS}, dtype=object))
call("infer PandasCodec", lambda: infer(frame))
call("infer an output", lambda: infer(request_of(POST, outputs=[RequestOutput(name="tag")])))
named = RequestOutput(name="probabilities", parameters=Parameters(classification=2))
call("infer by name", lambda: infer(request_of(POST, outputs=[named])))
call("infer with headers", lambda: infer(request_of(POST, parameters=Parameters(headers={"a": "b"}))))
call("infer StringRequestCodec", lambda: infer(StringRequestCodec.encode_request(TEXTS)))
call("mlserver infer", lambda: batch("--binary-data"))

with grpc.insecure_channel(GRPC) as channel:
    stub = GRPCInferenceServiceStub(channel)

    def over_grpc(request, **how):
        message = converters.ModelInferRequestConverter.from_types(request, MODEL, None, **how)
        return outcome(converters.ModelInferResponseConverter.to_types(stub.ModelInfer(message)))

    call("grpc ServerLive", lambda: stub.ServerLive(dataplane_pb2.ServerLiveRequest()).live)
    call("grpc ServerReady", lambda: stub.ServerReady(dataplane_pb2.ServerReadyRequest()).ready)
    ready = dataplane_pb2.ModelReadyRequest(name=MODEL)
    call("grpc ModelReady", lambda: stub.ModelReady(ready).ready)
    about = dataplane_pb2.ModelMetadataRequest(name=MODEL)
    convert = converters.ModelMetadataResponseConverter.to_types
    call("grpc ModelMetadata", lambda: [output.name for output in convert(stub.ModelMetadata(about)).outputs])
    call("grpc ModelInfer", lambda: over_grpc(request_of(POST)))
    call("grpc ModelInfer raw", lambda: over_grpc(request_of(POST), use_raw=True))
tell()
