"""The Open Inference Protocol over gRPC, on the port of TensorFlow Serving's services.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md
"""

from functools import partial
from typing import Any

import grpc
import numpy as np

from pipeline.registry.card import MODEL
from pipeline.server import inference_tensors as tensors
from pipeline.server.errors import Refused
from pipeline.server.loaded import Loaded
from pipeline.server.open_inference_proto import MESSAGE, METHODS, SERVICE
from pipeline.server.versions import Limits, Versions, refuse_other_model


def handler(service: Any) -> grpc.GenericRpcHandler:
    """What answers the calls of this service, with the versions and the recorder of `service`."""
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            partial(globals()[name], service),
            request_deserializer=MESSAGE[f"{name}Request"].FromString,
            response_serializer=MESSAGE[f"{name}Response"].SerializeToString,
        )
        for name in METHODS
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


async def ServerLive(service: Any, request: Any, context: Any) -> Any:
    """Whether the server runs."""
    return MESSAGE["ServerLiveResponse"](live=True)


async def ServerReady(service: Any, request: Any, context: Any) -> Any:
    """Whether a version answers, and all that the server does beside its requests goes on."""
    versions = service.versions
    is_ready = versions.live is not None and versions.background.dead() is None
    return MESSAGE["ServerReadyResponse"](ready=is_ready)


async def ModelReady(service: Any, request: Any, context: Any) -> Any:
    """Whether the version answers."""
    service.versions.background.refuse_dead()
    _named(service.versions, request.name, request.version)
    return MESSAGE["ModelReadyResponse"](ready=True)


async def ServerMetadata(service: Any, request: Any, context: Any) -> Any:
    """What this server is."""
    return MESSAGE["ServerMetadataResponse"](**tensors.SERVER)


async def ModelMetadata(service: Any, request: Any, context: Any) -> Any:
    """The model's input and outputs."""
    loaded = _named(service.versions, request.name, request.version)
    outputs = [
        {"name": name, "datatype": tensors.TYPES[name], "shape": shape}
        for name, shape in tensors.shapes(loaded.model).items()
    ]
    return MESSAGE["ModelMetadataResponse"](
        name=MODEL,
        versions=[str(loaded.version)],
        platform=tensors.PLATFORM,
        inputs=[{"name": tensors.POST, "datatype": tensors.BYTES, "shape": [-1]}],
        outputs=outputs,
    )


async def ModelInfer(service: Any, request: Any, context: Any) -> Any:
    """Tag the posts of the input `post`; the outputs come in the form in which the posts came."""
    _named(service.versions, request.model_name, request.model_version)
    wanted = tensors.refuse_repeated([_wanted(output) for output in request.outputs])
    posts = _posts(request, service.versions.limits)

    answer = await service.versions.tag(posts)
    told = {"model_name": MODEL, "model_version": str(answer.version), "id": request.id}
    response = MESSAGE["ModelInferResponse"](**told)
    for tensor in tensors.outputs(wanted, answer):
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype)
        output.shape.extend(tensor.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(tensor.to_bytes())
        elif isinstance(tensor.values, np.ndarray):
            output.contents.fp32_contents.extend(tensor.values.tolist())
        else:
            output.contents.bytes_contents.extend(text.encode() for text in tensor.values)
    if service.recorder and (recorded := service.recorder.record(posts, answer)):
        context.set_trailing_metadata([(name.lower(), value) for name, value in recorded.items()])
    return response


def _named(versions: Versions, name: str, version: str) -> Loaded:
    refuse_other_model(name)
    return versions.named(version or None)


def _wanted(output: Any) -> tensors.Wanted:
    parameters = {each.key: each.value.int64_param for each in output.parameters}
    classes = tensors.classes(parameters.get("classification", 0), output.name)
    return tensors.Wanted(output.name, classes)


def _posts(request: Any, limits: Limits) -> list[bytes]:
    """The posts of the only input, from the raw contents or from its own."""
    if len(request.inputs) != 1:
        count = len(request.inputs)
        raise Refused(400, f"the request has {count:,} inputs: send {tensors.POST!r} only")
    [tensor] = request.inputs
    count = tensors.post_count(tensor.name, tensor.datatype, tensor.shape, limits)
    raw, own = request.raw_input_contents, tensor.contents.bytes_contents
    if not raw:
        tensors.refuse_other_count(tensor.shape, len(own))
        return tensors.checked(own, limits)
    if len(raw) != 1 or own:
        raise Refused(400, "raw_input_contents must have one entry, and the input then no contents")
    return tensors.from_bytes(raw[0], count, limits)
