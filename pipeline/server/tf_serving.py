"""TensorFlow Serving's REST API (https://www.tensorflow.org/tfx/serving/api_rest), and Vertex AI's prediction route.

Compatible with its requests, answers and errors, for the model's signatures `serving_default` and `vectors`.
"""

from typing import Any

from google.protobuf.json_format import MessageToDict
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.data.signatures import CLASSIFY, FEATURE, OUTPUT, SERVING, VECTORS
from pipeline.registry.card import MODEL
from pipeline.server import bodies
from pipeline.server.errors import Refused
from pipeline.server.http import Json, route
from pipeline.server.loaded import Loaded
from pipeline.server.recording import Recorder
from pipeline.server.versions import State, Versions, refuse_other_model

BASE = "/v1/models/{name:named}"
PREDICT_FIELDS = ("signature_name", "instances", "inputs", "parameters")
"""`parameters` are not used: Vertex AI sends them, where AIP_PREDICT_ROUTE names this path."""


class _Named(StringConvertor):
    """A part of a path, up to the verb behind it: a path with a verb is another path than one without."""

    regex = "[^/:]+"


register_url_convertor("named", _Named())


class Api:
    """The routes of the API."""

    def __init__(self, versions: Versions, recorder: Recorder | None = None) -> None:
        self.versions, self.recorder = versions, recorder

    def routes(self) -> list[Route]:
        """Each path with and without a version or a label."""
        routes = list[Route]()
        for which in ("", "/versions/{version:named}", "/labels/{label:named}"):
            routes += [
                route(f"{BASE}{which}:predict", self.predict, "POST"),
                route(f"{BASE}{which}:classify", self.classify, "POST"),
                route(f"{BASE}{which}/metadata", self.metadata),
                route(f"{BASE}{which}", self.status),
            ]
        return routes

    async def status(self, request: Request) -> Response:
        """Which versions were loaded here, and what became of each."""
        refuse_other_model(request.path_params["name"])
        states = self.versions.known()
        if version := request.path_params.get("version"):
            states = {number: state for number, state in states.items() if str(number) == version}
            if not states:
                raise Refused(404, f"version {version} was not loaded here: /v1/models/{MODEL} lists those that were")
        elif label := request.path_params.get("label"):
            number = self.versions.named(label=label).version
            states = {number: states[number]}
        return Json({"model_version_status": [_status(*each) for each in sorted(states.items(), reverse=True)]})

    async def metadata(self, request: Request) -> Response:
        """The model's signatures, and the tags in the order of the probabilities."""
        loaded = self._loaded(request)
        signatures = {name: _to_dict(signature) for name, signature in sorted(loaded.signatures.items())}
        spec = {"name": MODEL, "signature_name": "", "version": str(loaded.version)}
        metadata = {"signature_def": {"signature_def": signatures}, "tag_names": loaded.model.labels}
        return Json({"model_spec": spec, "metadata": metadata})

    async def predict(self, request: Request) -> Response:
        """Answer instances (row format) or inputs (column format)."""
        body = await bodies.json_object(request)
        self._loaded(request)
        bodies.only(body, PREDICT_FIELDS)
        if ("instances" in body) == ("inputs" in body):
            raise Refused(400, 'send either "instances", a list, or "inputs"')
        if bodies.signature_of(body.get("signature_name"), SERVING, VECTORS) == VECTORS:
            return await self._from_vectors(body)
        return await self._from_posts(body)

    async def vertex(self, request: Request) -> Response:
        """Answer Vertex AI's prediction request, whose instances are posts and whose parameters are not used.

        https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements#request_requirements
        """
        body = await bodies.json_object(request)
        bodies.only(body, ("instances", "parameters"))
        return await self._from_posts({"instances": body.get("instances")})

    async def classify(self, request: Request) -> Response:
        """Answer tf.Examples, written as objects, with each tag and its score."""
        body = await bodies.json_object(request)
        self._loaded(request)
        bodies.only(body, ("signature_name", "context", "examples"))
        bodies.signature_of(body.get("signature_name"), CLASSIFY)
        context, examples = body.get("context", {}), body.get("examples")
        if not isinstance(context, dict) or not isinstance(examples, list):
            raise Refused(400, 'send "examples", a list of objects with the field "post"')
        if context.keys() - {"post"}:  # it is copied for each example
            raise Refused(400, "context may have the field 'post' only")
        bodies.refuse_too_many(len(examples), "examples", self.versions.limits)
        features = [context | each if isinstance(each, dict) else each for each in examples]
        texts = [_single(text) for text in bodies.column(features, "post", "examples")]
        posts = bodies.posts(texts, "examples", self.versions.limits)
        answer = await self.versions.tag(posts)
        headers = self.recorder.record(posts, answer) if self.recorder else None
        rows = answer.probabilities
        results = [[list(each) for each in zip(answer.labels, row, strict=True)] for row in rows]
        return Json({"results": results}, headers=headers)

    def _loaded(self, request: Request) -> Loaded:
        refuse_other_model(request.path_params["name"])
        return self.versions.named(request.path_params.get("version"), request.path_params.get("label"))

    async def _from_posts(self, body: dict[str, Any]) -> Response:
        where, values = _values(body, "post")
        posts = bodies.posts(values, where, self.versions.limits)
        answer = await self.versions.tag(posts)
        headers = self.recorder.record(posts, answer) if self.recorder else None
        return _predicted(where, answer.outputs(), headers)

    async def _from_vectors(self, body: dict[str, Any]) -> Response:
        where, values = _values(body, FEATURE)
        rows = bodies.vectors(values, where, self.versions.vector_size, self.versions.limits)
        answer = await self.versions.from_vectors(rows)
        return _predicted(where, {OUTPUT: answer.probabilities})


def _predicted(where: str, columns: dict[str, Any], headers: dict[str, str] | None = None) -> Json:
    """The answer in the request's format; where the signature has one output, its name is left out."""
    if len(columns) == 1:
        [single] = columns.values()
        return Json({"outputs" if where == "inputs" else "predictions": single})
    if where == "inputs":
        return Json({"outputs": columns}, headers=headers)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Json({"predictions": rows}, headers=headers)


def _values(body: dict[str, Any], name: str) -> tuple[str, Any]:
    """Which format the request has, and the values of its input `name`."""
    if "instances" in body:
        if not isinstance(body["instances"], list):
            raise Refused(400, "instances must be a list")
        return "instances", bodies.column(body["instances"], name, "instances")
    inputs = body["inputs"]
    if isinstance(inputs, dict):
        if set(inputs) != {name}:
            raise Refused(400, f"inputs must be a list, or an object with the field {name!r} only")
        inputs = inputs[name]
    return "inputs", inputs


def _single(value: Any) -> Any:
    """A feature of a tf.Example is a list, which JSON may write as its only value."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _status(version: int, state: State) -> dict[str, Any]:
    code = "DATA_LOSS" if state.error else "OK"
    return {
        "version": str(version),
        "state": state.state,
        "status": {"error_code": code, "error_message": state.error},
    }


def _to_dict(signature: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(
        signature, preserving_proto_field_name=True, including_default_value_fields=True
    )
    return found
