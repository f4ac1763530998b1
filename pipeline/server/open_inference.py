"""The Open Inference Protocol, version 2 over HTTP, that KServe, Triton and MLServer speak.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.registry.card import MODEL
from pipeline.server import bodies
from pipeline.server.errors import Refused
from pipeline.server.http import Json, route
from pipeline.server.recording import Recorder
from pipeline.server.versions import Answer, Versions, refuse_other_model

BASE = "/v2/models/{name}"
TYPES = {"tag": "BYTES", "tags": "BYTES", "probability": "FP32", "probabilities": "FP32"}
"""The outputs; `tags` only of a version that gives a post several."""

FIELDS = ("id", "parameters", "inputs", "outputs")


class Api:
    """The routes of the protocol."""

    def __init__(self, versions: Versions, release: str, recorder: Recorder | None = None) -> None:
        self.versions, self.release, self.recorder = versions, release, recorder

    def routes(self) -> list[Route]:
        """Each path of a model with and without a version."""
        found = [
            route("/v2", self.server),
            route("/v2/health/live", self.alive),
            route("/v2/health/ready", self.ready),
        ]
        for which in ("", "/versions/{version}"):
            found += [
                route(f"{BASE}{which}", self.metadata),
                route(f"{BASE}{which}/ready", self.ready),
                route(f"{BASE}{which}/infer", self.infer, "POST"),
            ]
        return found

    async def server(self, request: Request) -> Response:
        """What this server is."""
        return Json({"name": "stackoverflow-tagger", "version": self.release, "extensions": []})

    async def alive(self, request: Request) -> Response:
        """Whether the server runs."""
        return Json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether the server, or the version of the path, answers."""
        self.versions.background.refuse_dead()
        if "name" in request.path_params:
            return Json({"name": MODEL, "ready": bool(self._version(request))})
        self.versions.named()
        return Json({"ready": True})

    async def metadata(self, request: Request) -> Response:
        """The model's input and outputs."""
        version, loaded = self._version(request), self.versions.named()
        shapes = {name: [-1] for name in TYPES if name != "tags" or loaded.limits is not None}
        shapes["probabilities"] = [-1, len(loaded.labels)]
        return Json(
            {
                "name": MODEL,
                "versions": [str(version)],
                "platform": "tensorflow_savedmodel",
                "inputs": [{"name": "post", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": name, "datatype": TYPES[name], "shape": shape} for name, shape in shapes.items()],
            }
        )

    async def infer(self, request: Request) -> Response:
        """Tag the posts of the input `post`."""
        body = await bodies.json_object(request)
        self._version(request)
        bodies.only(body, FIELDS)
        asked, values = _asked(body.get("outputs")), _posts(body.get("inputs"))
        posts = bodies.posts(values, "inputs[0].data", self.versions.limits)
        answer = await self.versions.tag(posts)
        outputs = [_tensor(name, answer) for name in _wanted(asked, answer)]
        headers = self.recorder.record(posts, answer) if self.recorder else None
        named = {"id": body["id"]} if isinstance(body.get("id"), str) else {}
        told = {"model_name": MODEL, "model_version": str(answer.version)}
        return Json(told | named | {"outputs": outputs}, headers=headers)

    def _version(self, request: Request) -> int:
        refuse_other_model(request.path_params["name"])
        return self.versions.named(request.path_params.get("version")).version


def _posts(inputs: Any) -> list[Any]:
    """The values of the only input."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(400, "send \"inputs\", a list with one object, the input 'post'")
    [tensor] = inputs
    bodies.only(tensor, ("name", "shape", "datatype", "parameters", "data"))
    if (tensor.get("name"), tensor.get("datatype")) != ("post", "BYTES"):
        raise Refused(400, "the input must have the name 'post' and the datatype 'BYTES'")
    data, shape = tensor.get("data"), tensor.get("shape")
    if not isinstance(data, list):
        raise Refused(400, "inputs[0].data must be a list of texts")
    if shape not in ([len(data)], [len(data), 1]):
        raise Refused(400, f"inputs[0].shape is {shape}, but inputs[0].data has {len(data):,} entries")
    return data


def _asked(asked: Any) -> list[str]:
    """The names of the outputs that the request asks for."""
    if asked is None:
        return []
    if not isinstance(asked, list):
        raise Refused(400, "outputs must be a list of objects with the field 'name'")
    names = list[str]()
    for each in asked:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            raise Refused(400, f"there is no output {name!r}: its name must be a text")
        names.append(name)
    return names


def _wanted(asked: list[str], answer: Answer) -> list[str]:
    """The outputs that were asked for; all if none was named."""
    there = list(answer.outputs())
    for name in asked:
        if name not in there:
            raise Refused(400, f"there is no output {name!r}: the outputs are {', '.join(there)}")
    return asked or there


def _tensor(name: str, answer: Answer) -> dict[str, Any]:
    values = answer.outputs()[name]
    shape = list(answer.probabilities.shape) if name == "probabilities" else [len(answer)]
    data = values.reshape(-1) if name == "probabilities" else values
    return {"name": name, "shape": shape, "datatype": TYPES[name], "data": data}
