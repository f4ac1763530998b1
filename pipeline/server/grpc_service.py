"""TensorFlow Serving's gRPC services: the methods Predict, Classify, GetModelMetadata and GetModelStatus."""

import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

from pipeline.data.signatures import CLASSIFY, FEATURE, OUTPUT, SERVING, VECTORS
from pipeline.errors import BadInput
from pipeline.published.answers import Answers
from pipeline.registry.card import MODEL
from pipeline.server import bodies, grpc_guard, open_inference_grpc
from pipeline.server import tensor_protos as tensors
from pipeline.server.errors import Refused
from pipeline.server.listen import Listen
from pipeline.server.metrics import Metrics
from pipeline.server.recording import Recorder
from pipeline.server.tf_serving_proto import ENUMS, MESSAGE, MODEL_SERVICE, PACKAGE, PREDICTION_SERVICE
from pipeline.server.versions import Versions, refuse_other_model

METADATA = "signature_def"

SHOWN_INPUTS = 5
"""Inputs that a sentence names."""


@contextlib.asynccontextmanager
async def serving_on(
    listen: Listen, versions: Versions, metrics: Metrics, recorder: Recorder | None = None
) -> AsyncIterator[None]:
    """Answer gRPC while the block runs. Raises BadInput where the port is taken."""
    server = grpc.aio.server(
        interceptors=[grpc_guard.Guard(metrics, listen.token)],
        options=grpc_guard.options(versions.limits.body_bytes),
        maximum_concurrent_rpcs=grpc_guard.CALLS,
    )
    service = Service(versions, recorder)
    server.add_generic_rpc_handlers([*handlers(service), open_inference_grpc.handler(service)])
    try:
        server.add_insecure_port(f"{listen.host}:{listen.grpc_port}")
    except RuntimeError:
        raise BadInput(
            f"cannot listen on port {listen.grpc_port} of {listen.host} for gRPC: choose another with --grpc-port, "
            "or none with 0"
        ) from None
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace=10)


def handlers(service: "Service") -> list[grpc.GenericRpcHandler]:
    """What answers the calls of both services; their other methods are not answered."""
    prediction = {
        "Predict": (service.Predict, "PredictRequest", "PredictResponse"),
        "Classify": (service.Classify, "ClassificationRequest", "ClassificationResponse"),
        "GetModelMetadata": (service.GetModelMetadata, "GetModelMetadataRequest", "GetModelMetadataResponse"),
    }
    model = {"GetModelStatus": (service.GetModelStatus, "GetModelStatusRequest", "GetModelStatusResponse")}
    return [
        grpc.method_handlers_generic_handler(
            name,
            {
                method: grpc.unary_unary_rpc_method_handler(
                    answer, MESSAGE[request].FromString, MESSAGE[response].SerializeToString
                )
                for method, (answer, request, response) in methods.items()
            },
        )
        for name, methods in ((PREDICTION_SERVICE, prediction), (MODEL_SERVICE, model))
    ]


class Service:
    """The methods of both services."""

    def __init__(self, versions: Versions, recorder: Recorder | None = None) -> None:
        self.versions, self.recorder = versions, recorder

    async def Predict(self, request: Any, context: Any) -> Any:
        """Answer the signature serving_default or vectors."""
        self._named(request.model_spec)
        name = bodies.signature_of(request.model_spec.signature_name, SERVING, VECTORS)
        if name == VECTORS:
            outputs, version = await self._from_vectors(request)
        else:
            outputs, version = await self._from_posts(request, context)
        response = MESSAGE["PredictResponse"]()
        self._fill(response.model_spec, version, name)
        for output in _wanted_outputs(request.output_filter, list(outputs)):
            response.outputs[output].CopyFrom(tensors.to_proto(outputs[output]))
        return response

    async def Classify(self, request: Any, context: Any) -> Any:
        """Answer tf.Examples with each tag and its score."""
        self._named(request.model_spec)
        bodies.signature_of(request.model_spec.signature_name, CLASSIFY)
        bodies.refuse_too_many(len(tensors.examples_of(request.input)), "input", self.versions.limits)
        try:
            texts = tensors.texts_of(request.input, "post")
        except ValueError as error:
            raise Refused(400, str(error)) from None
        answer = await self._tag(texts, "input", context)
        response = MESSAGE["ClassificationResponse"]()
        self._fill(response.model_spec, answer.version, CLASSIFY)
        for row in answer.probabilities.tolist():
            classes = response.result.classifications.add().classes
            for label, score in zip(answer.labels, row, strict=True):
                classes.add(label=label, score=score)
        return response

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:
        """Tell the signatures."""
        if set(request.metadata_field) != {METADATA}:
            raise Refused(400, f"metadata_field must be [{METADATA!r}]")
        loaded = self._named(request.model_spec)
        response, signatures = MESSAGE["GetModelMetadataResponse"](), MESSAGE["SignatureDefMap"]()
        self._fill(response.model_spec, loaded.version, "")
        for name, signature in loaded.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        packed = response.metadata[METADATA]
        packed.type_url = f"type.googleapis.com/{PACKAGE}.SignatureDefMap"
        packed.value = signatures.SerializeToString()
        return response

    async def GetModelStatus(self, request: Any, context: Any) -> Any:
        """Tell which versions were loaded here, and what became of each."""
        refuse_other_model(request.model_spec.name)
        version, label = _wanted(request.model_spec)
        states = self.versions.known()
        if label is not None:
            version = str(self.versions.named(label=label).version)
        response = MESSAGE["GetModelStatusResponse"]()
        for number, state in sorted(states.items(), reverse=True):
            if version in (None, str(number)):
                there = response.model_version_status.add(version=number)
                there.state = ENUMS["State"][state.state]
                there.status.error_message = state.error
                there.status.error_code = ENUMS["Code"]["DATA_LOSS" if state.error else "OK"]
        if not response.model_version_status:
            raise Refused(404, f"version {version} was not loaded here")
        return response

    def _named(self, spec: Any) -> Any:
        refuse_other_model(spec.name)
        return self.versions.named(*_wanted(spec))

    def _fill(self, spec: Any, version: int, signature: str) -> None:
        spec.name, spec.signature_name = MODEL, signature
        spec.version.value = version

    async def _tag(self, texts: list[bytes], where: str, context: Any) -> Answers:
        limits = self.versions.limits
        posts = bodies.bounded((bodies.refuse_too_long(text, where, limits) for text in texts), where, limits)
        answer = await self.versions.tag(posts)
        if self.recorder and (told := self.recorder.record(texts, answer)):
            context.set_trailing_metadata([(name.lower(), value) for name, value in told.items()])
        return answer

    async def _from_posts(self, request: Any, context: Any) -> tuple[dict[str, Any], int]:
        tensor, shape = _input(request, "post")
        if tensor.dtype != tensors.STRING:
            raise Refused(400, f"the input post has the type {tensors.type_of(tensor)}: posts are DT_STRING")
        bodies.refuse_too_many(math.prod(shape), "post", self.versions.limits)
        answer = await self._tag(tensors.to_array(tensor).reshape(-1).tolist(), "post", context)
        return answer.outputs(), answer.version

    async def _from_vectors(self, request: Any) -> tuple[dict[str, Any], int]:
        size, limits = self.versions.vector_size, self.versions.limits
        tensor, shape = _input(request, FEATURE)
        bodies.refuse_other_shape(shape, FEATURE, size, limits)
        rows = bodies.checked_vectors(tensors.to_array(tensor), FEATURE, size, limits)
        answer = await self.versions.from_vectors(rows)
        return {OUTPUT: answer.probabilities}, answer.version


def _wanted_outputs(asked: Iterable[str], there: list[str]) -> list[str]:
    """The outputs that were asked for, each once however often it was named; all if none was."""
    names = list(dict.fromkeys(asked))
    for name in names:
        if name not in there:
            raise Refused(400, f"there is no output {name!r}: the outputs are {', '.join(there)}")
    return names or there


def _wanted(spec: Any) -> tuple[str | None, str | None]:
    """The version and the label that a ModelSpec names."""
    kind = spec.WhichOneof("version_choice")
    return (
        str(spec.version.value) if kind == "version" else None,
        spec.version_label if kind == "version_label" else None,
    )


def _input(request: Any, name: str) -> tuple[Any, list[int]]:
    """The only input of a request, and its shape, which was checked against what was sent."""
    if len(request.inputs) != 1 or name not in request.inputs:
        some = sorted(itertools.islice(request.inputs, SHOWN_INPUTS))
        raise Refused(400, f"the inputs are {some}: send {name!r} only")
    tensor = request.inputs[name]
    try:
        return tensor, tensors.shape_of(tensor)
    except ValueError as error:
        raise Refused(400, f"the input {name} cannot be read: {error}") from None
