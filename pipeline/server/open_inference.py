"""The Open Inference Protocol, version 2 over HTTP, that KServe, Triton and MLServer speak.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.registry.card import MODEL
from pipeline.server import bodies
from pipeline.server import inference_tensors as tensors
from pipeline.server.errors import Refused
from pipeline.server.http import Json, route
from pipeline.server.inference_tensors import Tensor
from pipeline.server.recording import Recorder
from pipeline.server.versions import Limits, Versions, refuse_other_model

BASE = "/v2/models/{name}"
JSON_LENGTH = "Inference-Header-Content-Length"
"""The header that says how many bytes of a body are JSON, where binary tensors are behind it."""

FIELDS = ("id", "model_name", "model_version", "parameters", "inputs", "outputs")
"""What clients send; which model and version is meant, the path says."""


class Api:
    """The routes of the protocol."""

    def __init__(self, versions: Versions, recorder: Recorder | None = None) -> None:
        self.versions, self.recorder = versions, recorder

    def routes(self) -> list[Route]:
        """Each path of a model with and without a version."""
        routes = [
            route("/v2", self.server),
            route("/v2/health/live", self.alive),
            route("/v2/health/ready", self.ready),
        ]
        for which in ("", "/versions/{version}"):
            routes += [
                route(f"{BASE}{which}", self.metadata),
                route(f"{BASE}{which}/ready", self.ready),
                route(f"{BASE}{which}/infer", self.infer, "POST"),
            ]
        return routes

    async def server(self, request: Request) -> Response:
        """What this server is."""
        return Json(tensors.SERVER)

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
        """The model's input and outputs, and the tags in the order of the probabilities."""
        version, loaded = self._version(request), self.versions.named()
        names = {tensors.BY_NAME: {"parameters": {"tag_names": loaded.model.labels}}}
        outputs = [
            {"name": name, "datatype": tensors.TYPES[name], "shape": shape} | names.get(name, {})
            for name, shape in tensors.shapes(loaded.model).items()
        ]
        return Json(
            {
                "name": MODEL,
                "versions": [str(version)],
                "platform": tensors.PLATFORM,
                "inputs": [{"name": tensors.POST, "datatype": tensors.BYTES, "shape": [-1]}],
                "outputs": outputs,
            }
        )

    async def infer(self, request: Request) -> Response:
        """Tag the posts of the input `post`."""
        body, binary = _parts(request, await request.body())
        self._version(request)
        bodies.only(body, FIELDS)
        all_binary = _flag(_parameters(body, "the body"), "binary_data_output")
        wanted = _wanted(body.get("outputs"), all_binary)
        posts = _posts(body.get("inputs"), binary, self.versions.limits)

        answer = await self.versions.tag(posts)
        outputs = tensors.outputs(wanted, answer, binary=all_binary)
        headers = self.recorder.record(posts, answer) if self.recorder else {}
        named = {"id": body["id"]} if isinstance(body.get("id"), str) else {}
        told = {"model_name": MODEL, "model_version": str(answer.version)} | named
        return _answer(told, outputs, headers)

    def _version(self, request: Request) -> int:
        refuse_other_model(request.path_params["name"])
        return self.versions.named(request.path_params.get("version")).version


def _parts(request: Request, body: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON object of a body, and the binary data behind it."""
    said = request.headers.get(JSON_LENGTH)
    if said is None:
        return bodies.to_object(body), b""
    if not (said.isascii() and said.isdigit() and len(said) < 12 and int(said) <= len(body)):
        cure = f"send how many of the body's {len(body):,} bytes are JSON"
        raise Refused(400, f"{JSON_LENGTH} is {said[:80]!r}: {cure}")
    length = int(said)
    return bodies.to_object(body[:length]), body[length:]


def _parameters(part: dict[str, Any], where: str) -> dict[str, Any]:
    """The parameters of a request, an input or an output, of which most are of no use here."""
    parameters = part.get("parameters")
    if not isinstance(parameters, dict | None):
        raise Refused(400, f"the parameters of {where} are not an object")
    return parameters or {}


def _flag(parameters: dict[str, Any], name: str, *, otherwise: bool = False) -> bool:
    flag = parameters.get(name, otherwise)
    if not isinstance(flag, bool):
        raise Refused(400, f"the parameter {name} is neither true nor false")
    return flag


def _posts(inputs: Any, binary: bytes, limits: Limits) -> list[bytes]:
    """The posts of the only input."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(400, "send \"inputs\", a list with one object, the input 'post'")
    [tensor] = inputs
    bodies.only(tensor, ("name", "shape", "datatype", "parameters", "data"))
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(shape, list):
        raise Refused(400, "inputs[0].shape must be a list of numbers")
    count = tensors.post_count(tensor.get("name"), tensor.get("datatype"), shape, limits)

    parameters = _parameters(tensor, "inputs[0]")
    size = parameters.get("binary_data_size")
    if size is not None or binary:
        if data is not None or type(size) is not int or size != len(binary):
            said = f"{len(binary):,} bytes behind its JSON, of which {JSON_LENGTH} tells the length"
            cure = "inputs[0] must have them as its binary_data_size, and no data"
            raise Refused(400, f"the body has {said}: {cure}")
        return tensors.from_bytes(binary, count, limits)

    if not isinstance(data, list):
        raise Refused(400, "inputs[0].data must be a list of texts")
    tensors.refuse_other_count(shape, len(data))
    if len(shape) == 2 and all(isinstance(row, list) and len(row) == 1 for row in data):
        data = [row[0] for row in data]
    if parameters.get("content_type") == "base64":  # as MLServer's codec of this name writes bytes
        data = [{"b64": text} for text in data]
    return bodies.posts(data, "inputs[0].data", limits)


def _wanted(asked: Any, binary: bool) -> list[tensors.Wanted]:
    """The outputs that the request asks for; those that do not say so themselves are `binary`."""
    if not isinstance(asked, list | None):
        raise Refused(400, "outputs must be a list of objects with the field 'name'")
    wanted = list[tensors.Wanted]()
    for each in asked or ():
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            raise Refused(400, f"there is no output {bodies.short(name)}: its name must be a text")
        parameters = _parameters(each, f"the output {bodies.short(name)}")
        classes = tensors.classes(parameters.get("classification", 0), name)
        is_binary = _flag(parameters, "binary_data", otherwise=binary)
        wanted.append(tensors.Wanted(name, classes, is_binary))
    return tensors.refuse_repeated(wanted)


def _answer(told: dict[str, Any], outputs: list[Tensor], headers: dict[str, str]) -> Response:
    """The answer: JSON, and behind it the outputs that are wanted as binary."""
    described = list[dict[str, Any]]()
    behind = list[bytes]()
    for tensor in outputs:
        output = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        if tensor.binary:
            behind.append(tensor.to_bytes())
            described.append(output | {"parameters": {"binary_data_size": len(behind[-1])}})
        else:
            described.append(output | {"data": tensor.values})

    json = Json(told | {"outputs": described}, headers=headers)
    if not behind:
        return json
    headers = headers | {JSON_LENGTH: str(len(json.body))}
    body = b"".join([json.body, *behind])
    return Response(body, headers=headers, media_type="application/octet-stream")
