"""Triton's clients for HTTP and gRPC, call by call."""

import functools

import numpy as np
import tritonclient.grpc
import tritonclient.http
from calls import GRPC, HTTP, MODEL, TEXTS, VERSION, call, plain, tell
from google.protobuf import json_format

POSTS = np.array(TEXTS, dtype=object)


def outcome(result):
    """The outputs of an answer, and its id."""
    response = result.get_response()
    told = response if isinstance(response, dict) else json_format.MessageToDict(response)
    names = [output["name"] for output in told["outputs"]]
    return {name: plain(result.as_numpy(name)) for name in names} | {"id": told.get("id")}


def infer(client, shape=(2,), outputs=None, binary=True, model=MODEL, **options):
    module = tritonclient.http if isinstance(client, tritonclient.http.InferenceServerClient) else tritonclient.grpc
    tensor = module.InferInput("post", shape, "BYTES")
    values = np.resize(POSTS, shape)
    tensor.set_data_from_numpy(values, **({} if module is tritonclient.grpc else {"binary_data": binary}))
    return client.infer(model, [tensor], outputs=outputs, **options)


def both(name, client):
    """What both transports have."""
    ask = functools.partial(infer, client)
    call(f"{name} is_server_live", client.is_server_live)
    call(f"{name} is_server_ready", client.is_server_ready)
    call(f"{name} is_model_ready", lambda: client.is_model_ready(MODEL))
    call(f"{name} is_model_ready version", lambda: client.is_model_ready(MODEL, VERSION))
    call(f"{name} infer", lambda: outcome(ask()))
    call(f"{name} infer column", lambda: outcome(ask([2, 1])))
    call(f"{name} infer request_id", lambda: outcome(ask(request_id="42")))
    call(f"{name} infer model_version", lambda: outcome(ask(model_version=VERSION)))
    call(f"{name} infer sequence", lambda: outcome(ask(sequence_id=5, sequence_start=True, sequence_end=True)))
    call(f"{name} infer priority", lambda: outcome(ask(priority=1, timeout=1_000_000)))
    call(f"{name} infer other version", lambda: outcome(ask(model_version="7")))
    call(f"{name} infer other model", lambda: outcome(ask(model="other")))
    call(f"{name} infer two columns", lambda: outcome(ask([2, 2])))
    call(f"{name} infer no posts", lambda: outcome(ask([0])))


def over_http(client):
    ask = functools.partial(infer, client)

    def wanted(binary, name="tag", **options):
        return [tritonclient.http.InferRequestedOutput(name, binary_data=binary, **options)]

    call("http is_model_ready other", lambda: client.is_model_ready("other"))
    call("http get_server_metadata", lambda: client.get_server_metadata()["extensions"])
    call("http get_model_metadata", lambda: client.get_model_metadata(MODEL)["outputs"])
    call("http get_model_config", lambda: client.get_model_config(MODEL))
    for posts in (True, False):
        for outputs in (True, False):
            form = f"http infer {'binary' if posts else 'JSON'} to {'binary' if outputs else 'JSON'}"
            call(form, lambda: outcome(ask(binary=posts, outputs=wanted(outputs))))  # noqa: B023
    call("http infer JSON column", lambda: outcome(ask([2, 1], binary=False)))
    for algorithm in ("gzip", "deflate"):
        for binary in (True, False):
            form = f"http infer {algorithm} of {'binary' if binary else 'JSON'}"
            call(form, lambda: outcome(ask(binary=binary, request_compression_algorithm=algorithm)))  # noqa: B023
        call(f"http infer {algorithm} back", lambda: outcome(ask(response_compression_algorithm=algorithm)))  # noqa: B023
    by_name = wanted(False, "probabilities", class_count=2)
    call("http infer class_count", lambda: outcome(ask(outputs=by_name)))
    call("http infer class_count binary", lambda: outcome(ask(outputs=wanted(True, "probabilities", class_count=2))))
    call("http infer other output", lambda: outcome(ask(outputs=wanted(True, "other"))))
    tensor = tritonclient.http.InferInput("post", [2], "BYTES")
    tensor.set_data_from_numpy(POSTS)
    call("http async_infer", lambda: outcome(client.async_infer(MODEL, [tensor]).get_result()))


def over_grpc(client):
    ask = functools.partial(infer, client)
    call("grpc is_model_ready other", lambda: client.is_model_ready("other"))
    call("grpc get_server_metadata", lambda: list(client.get_server_metadata().extensions))
    call("grpc get_model_metadata", lambda: [output.name for output in client.get_model_metadata(MODEL).outputs])
    call("grpc get_model_config", lambda: client.get_model_config(MODEL))
    call("grpc infer compressed", lambda: outcome(ask(compression_algorithm="gzip")))
    call("grpc infer an output", lambda: outcome(ask(outputs=[tritonclient.grpc.InferRequestedOutput("tag")])))
    by_name = [tritonclient.grpc.InferRequestedOutput("probabilities", class_count=2)]
    call("grpc infer class_count", lambda: outcome(ask(outputs=by_name)))
    call("grpc infer other output", lambda: outcome(ask(outputs=[tritonclient.grpc.InferRequestedOutput("other")])))


http = tritonclient.http.InferenceServerClient(HTTP)
grpc = tritonclient.grpc.InferenceServerClient(GRPC)
both("http", http)
over_http(http)
both("grpc", grpc)
over_grpc(grpc)
tell()
