"""KServe's clients for HTTP, by both of its protocols, and gRPC, call by call."""

import asyncio
from functools import partial

import numpy as np
from calls import GRPC, HTTP, MODEL, TEXTS, call, plain, tell
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL = f"http://{HTTP}"


def outcome(answer):
    return {output.name: plain(output.as_numpy()) for output in answer.outputs} | {"id": answer.id}


def columns(answer):
    rows = answer["predictions"]
    return {name: [row[name] for row in rows] for name in rows[0]}


def listed(shape, nested=False, **fields):
    """A request whose posts are a list, flat or nested."""
    data = [[text] for text in TEXTS] if nested else TEXTS
    return InferRequest(MODEL, [InferInput("post", shape, "BYTES", data)], request_id="42", **fields)


def arrays(shape, binary, **fields):
    """A request whose posts are an array."""
    tensor = InferInput("post", shape, "BYTES")
    tensor.set_data_from_numpy(np.array(TEXTS, dtype=object).reshape(shape), binary_data=binary)
    return InferRequest(MODEL, [tensor], request_id="42", **fields)


REQUESTS = {
    "list": listed([2]),
    "array": arrays([2], False),
    "array column": arrays([2, 1], False),
    "binary": arrays([2], True),
    "binary column": arrays([2, 1], True),
    "an output": listed([2], request_outputs=[RequestedOutput("tag")]),
    "an output as binary": listed([2], request_outputs=[RequestedOutput("tag", {"binary_data": True})]),
    "by name": listed([2], request_outputs=[RequestedOutput("probabilities", {"classification": 2})]),
    "parameters": listed([2], parameters={"binary_data_output": True}),
    "other shape": listed([3]),
    "other output": listed([2], request_outputs=[RequestedOutput("other")]),
}


async def main():
    async def ask(name, asked, made=lambda answer: answer):
        try:
            answer = made(await asked())
        except Exception as error:
            answer = error
        call(name, partial(_result, answer))

    v1 = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    await ask("v1 infer", lambda: v1.infer(URL, {"instances": TEXTS}, MODEL), columns)
    await ask("v1 is_model_ready other", lambda: v1.is_model_ready(URL, "other"))

    v2 = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    await ask("v2 is_server_live", lambda: v2.is_server_live(URL))
    await ask("v2 is_server_ready", lambda: v2.is_server_ready(URL))
    await ask("v2 is_model_ready", lambda: v2.is_model_ready(URL, MODEL))
    await ask("v2 is_model_ready other", lambda: v2.is_model_ready(URL, "other"))
    requests = REQUESTS | {"nested": listed([2, 1], nested=True)}
    for name, request in requests.items():
        await ask(f"v2 infer {name}", lambda request=request: v2.infer(URL, request, MODEL), outcome)

    async with InferenceGRPCClient(GRPC, retries=0) as grpc:
        await ask("grpc is_server_live", grpc.is_server_live)
        await ask("grpc is_server_ready", grpc.is_server_ready)
        await ask("grpc is_model_ready", lambda: grpc.is_model_ready(MODEL))
        await ask("grpc is_model_ready other", lambda: grpc.is_model_ready("other"))
        for name, request in REQUESTS.items():
            await ask(f"grpc infer {name}", lambda request=request: grpc.infer(request), outcome)


def _result(answer):
    if isinstance(answer, Exception):
        raise answer
    return answer


asyncio.run(main())
tell()
