"""TensorFlow Serving's gRPC services, on Google's own stubs: Predict, Classify, GetModelMetadata and GetModelStatus."""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
from pipeline.server import bodies, open_inference_grpc
from pipeline.server.errors import Refused
from pipeline.server.guard import admits
from pipeline.server.listen import Listen
from pipeline.server.metrics import Metrics
from pipeline.server.recording import Recorder
from pipeline.server.versions import Answer, Versions, refuse_other_model

log = logging.getLogger(__name__)

API, METADATA = "grpc", "signature_def"

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}

Method = Callable[["Service", Any, Any], Awaitable[Any]]


@contextlib.asynccontextmanager
async def serving_on(
    listen: Listen, versions: Versions, metrics: Metrics, recorder: Recorder | None = None
) -> AsyncIterator[None]:
    """Answer gRPC while the block runs. Raises BadInput where the port is taken."""
    limit = ("grpc.max_receive_message_length", versions.limits.body_bytes)
    server = grpc.aio.server(options=[limit, ("grpc.so_reuseport", 0)])
    service = Service(versions, metrics, listen.token, recorder)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    server.add_generic_rpc_handlers([open_inference_grpc.handler(service, _answered)])
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


def _answered(method: Method) -> Method:
    """Ask for the token, turn errors into statuses without a traceback, and count the request."""

    async def answer(service: "Service", request: Any, context: Any) -> Any:
        started, status = time.perf_counter(), grpc.StatusCode.OK
        try:
            service.refuse_stranger(context)
            return await method(service, request, context)
        except Refused as error:
            status = CODES[error.status]
            await context.abort(status, str(error))
        except Exception as error:
            log.exception("a request failed")
            status = grpc.StatusCode.INTERNAL
            await context.abort(status, f"the server failed ({type(error).__name__}): its log says more")
        finally:
            service.metrics.request(API, status.name, time.perf_counter() - started)

    return answer


class Service(
    prediction_service_pb2_grpc.PredictionServiceServicer,  # type: ignore[misc]
    model_service_pb2_grpc.ModelServiceServicer,  # type: ignore[misc]
):
    """The methods of both services; those that are not here answer UNIMPLEMENTED, as Google's stubs do."""

    def __init__(
        self, versions: Versions, metrics: Metrics, token: str | None, recorder: Recorder | None = None
    ) -> None:
        self.versions, self.metrics, self.token, self.recorder = versions, metrics, token, recorder

    def refuse_stranger(self, context: Any) -> None:
        """Raise Refused unless the call's metadata has the token."""
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if self.token is not None and not admits(given, self.token):
            raise Refused(401, "send the server's token as metadata: `authorization: Bearer TOKEN`")

    @_answered
    async def Predict(self, request: Any, context: Any) -> Any:
        """Answer the signature serving_default or vectors."""
        self._named(request.model_spec)
        name = request.model_spec.signature_name or serving.SERVING
        if name == serving.SERVING:
            outputs, version = await self._from_posts(request, context)
        elif name == serving.VECTORS:
            outputs, version = await self._from_vectors(request)
        else:
            raise Refused(400, f"the signature {name!r} is not answered: ask {serving.SERVING} or {serving.VECTORS}")
        if unknown := sorted(set(request.output_filter) - set(outputs)):
            raise Refused(400, f"there is no output {unknown[0]!r}: the outputs are {', '.join(outputs)}")
        response = PredictResponse()
        self._fill(response.model_spec, version, name)
        for output in request.output_filter or outputs:
            response.outputs[output].CopyFrom(tensors.to_proto(outputs[output]))
        return response

    @_answered
    async def Classify(self, request: Any, context: Any) -> Any:
        """Answer tf.Examples with each tag and its score."""
        self._named(request.model_spec)
        try:
            texts = tensors.texts_of(request.input, "post")
        except ValueError as error:
            raise Refused(400, str(error)) from None
        answer = await self._tag(texts, "input", context)
        response = ClassificationResponse()
        self._fill(response.model_spec, answer.version, request.model_spec.signature_name or serving.CLASSIFY)
        for row in answer.probabilities.tolist():
            classes = response.result.classifications.add().classes
            for label, score in zip(answer.labels, row, strict=True):
                classes.add(label=label, score=score)
        return response

    @_answered
    async def GetModelMetadata(self, request: Any, context: Any) -> Any:
        """Tell the signatures."""
        if list(request.metadata_field) != [METADATA]:
            raise Refused(400, f"metadata_field must be [{METADATA!r}]")
        loaded = self._named(request.model_spec)
        response, signatures = GetModelMetadataResponse(), SignatureDefMap()
        self._fill(response.model_spec, loaded.version, "")
        for name, signature in loaded.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata[METADATA].Pack(signatures)
        return response

    @_answered
    async def GetModelStatus(self, request: Any, context: Any) -> Any:
        """Tell which versions were loaded here, and what became of each."""
        refuse_other_model(request.model_spec.name)
        version, label = _wanted(request.model_spec)
        states = self.versions.states
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
        bodies.refuse_too_many(len(texts), where, limits)
        answer = await self.versions.tag([bodies.refuse_too_long(text, where, limits) for text in texts])
        if self.recorder and (told := self.recorder.record(texts, answer)):
            context.set_trailing_metadata([(name.lower(), value) for name, value in told.items()])
        return answer

    async def _from_posts(self, request: Any, context: Any) -> tuple[dict[str, Any], int]:
        values = _input(request, "post").reshape(-1)
        if values.dtype != object:
            raise Refused(400, f"the input post has the type {values.dtype}: posts are DT_STRING")
        answer = await self._tag(values.tolist(), "post", context)
        return answer.outputs(), answer.version

    async def _from_vectors(self, request: Any) -> tuple[dict[str, Any], int]:
        size = self.versions.vector_size
        rows = bodies.checked_vectors(_input(request, serving.FEATURE), serving.FEATURE, size, self.versions.limits)
        answer = await self.versions.from_vectors(rows)
        return {OUTPUT: answer.probabilities}, answer.version


def _wanted(spec: Any) -> tuple[str | None, str | None]:
    """The version and the label that a ModelSpec names."""
    kind = spec.WhichOneof("version_choice")
    return (
        str(spec.version.value) if kind == "version" else None,
        spec.version_label if kind == "version_label" else None,
    )


def _input(request: Any, name: str) -> Any:
    """The only input of a request, as an array."""
    if set(request.inputs) != {name}:
        raise Refused(400, f"the inputs are {sorted(request.inputs)}: send {name!r} only")
    try:
        return tensors.to_array(request.inputs[name])
    except ValueError as error:
        raise Refused(400, f"the input {name} cannot be read: {error}") from None
