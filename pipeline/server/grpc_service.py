"""TensorFlow Serving's gRPC services, on Google's own stubs: Predict, Classify, GetModelMetadata and GetModelStatus."""

import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationResponse
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse, ModelVersionStatus
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from pipeline.errors import BadInput
from pipeline.model import serving, tensors
from pipeline.model.network import OUTPUT
from pipeline.registry.card import MODEL
from pipeline.server import bodies, grpc_guard, open_inference_grpc
from pipeline.server.errors import Refused
from pipeline.server.listen import Listen
from pipeline.server.metrics import Metrics
from pipeline.server.recording import Recorder
from pipeline.server.versions import Answer, Versions, refuse_other_model

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
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    server.add_generic_rpc_handlers([open_inference_grpc.handler(service)])
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


class Service(
    prediction_service_pb2_grpc.PredictionServiceServicer,  # type: ignore[misc]
    model_service_pb2_grpc.ModelServiceServicer,  # type: ignore[misc]
):
    """The methods of both services; those that are not here raise NotImplementedError, as Google's stubs do."""

    def __init__(self, versions: Versions, recorder: Recorder | None = None) -> None:
        self.versions, self.recorder = versions, recorder

    async def Predict(self, request: Any, context: Any) -> Any:
        """Answer the signature serving_default or vectors."""
        self._named(request.model_spec)
        name = bodies.signature_of(request.model_spec.signature_name, serving.SERVING, serving.VECTORS)
        if name == serving.VECTORS:
            outputs, version = await self._from_vectors(request)
        else:
            outputs, version = await self._from_posts(request, context)
        response = PredictResponse()
        self._fill(response.model_spec, version, name)
        for output in _wanted_outputs(request.output_filter, list(outputs)):
            response.outputs[output].CopyFrom(tensors.to_proto(outputs[output]))
        return response

    async def Classify(self, request: Any, context: Any) -> Any:
        """Answer tf.Examples with each tag and its score."""
        self._named(request.model_spec)
        bodies.signature_of(request.model_spec.signature_name, serving.CLASSIFY)
        bodies.refuse_too_many(len(tensors.examples_of(request.input)), "input", self.versions.limits)
        try:
            texts = tensors.texts_of(request.input, "post")
        except ValueError as error:
            raise Refused(400, str(error)) from None
        answer = await self._tag(texts, "input", context)
        response = ClassificationResponse()
        self._fill(response.model_spec, answer.version, serving.CLASSIFY)
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
        response, signatures = GetModelMetadataResponse(), SignatureDefMap()
        self._fill(response.model_spec, loaded.version, "")
        for name, signature in loaded.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata[METADATA].Pack(signatures)
        return response

    async def GetModelStatus(self, request: Any, context: Any) -> Any:
        """Tell which versions were loaded here, and what became of each."""
        refuse_other_model(request.model_spec.name)
        version, label = _wanted(request.model_spec)
        states = self.versions.known()
        if label is not None:
            version = str(self.versions.named(label=label).version)
        response = GetModelStatusResponse()
        for number, state in sorted(states.items(), reverse=True):
            if version in (None, str(number)):
                there = response.model_version_status.add(version=number)
                there.state = ModelVersionStatus.State.Value(state.state)
                there.status.error_message = state.error
                there.status.error_code = grpc.StatusCode.DATA_LOSS.value[0] if state.error else 0
        if not response.model_version_status:
            raise Refused(404, f"version {version} was not loaded here")
        return response

    def _named(self, spec: Any) -> Any:
        refuse_other_model(spec.name)
        return self.versions.named(*_wanted(spec))

    def _fill(self, spec: Any, version: int, signature: str) -> None:
        spec.name, spec.signature_name = MODEL, signature
        spec.version.value = version

    async def _tag(self, texts: list[bytes], where: str, context: Any) -> Answer:
        limits = self.versions.limits
        posts = bodies.bounded((bodies.refuse_too_long(text, where, limits) for text in texts), where, limits)
        answer = await self.versions.tag(posts)
        if self.recorder and (told := self.recorder.record(texts, answer)):
            context.set_trailing_metadata([(name.lower(), value) for name, value in told.items()])
        return answer

    async def _from_posts(self, request: Any, context: Any) -> tuple[dict[str, Any], int]:
        tensor, shape = _input(request, "post")
        if tensors.type_of(tensor) != "DT_STRING":
            raise Refused(400, f"the input post has the type {tensors.type_of(tensor)}: posts are DT_STRING")
        bodies.refuse_too_many(math.prod(shape), "post", self.versions.limits)
        answer = await self._tag(tensors.to_array(tensor).reshape(-1).tolist(), "post", context)
        return answer.outputs(), answer.version

    async def _from_vectors(self, request: Any) -> tuple[dict[str, Any], int]:
        size, limits = self.versions.vector_size, self.versions.limits
        tensor, shape = _input(request, serving.FEATURE)
        bodies.refuse_other_shape(shape, serving.FEATURE, size, limits)
        rows = bodies.checked_vectors(tensors.to_array(tensor), serving.FEATURE, size, limits)
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
