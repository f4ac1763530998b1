"""What each route and each method answers while no version does: 404 without a live one, else 503 and the reason."""

import asyncio
import json
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from pipeline.registry.registry import LOG, Registry
from pipeline.server import app
from pipeline.server.app import Server
from pipeline.server.listen import Listen
from pipeline.server.recording import Recorder
from pipeline.store import signatures
from pipeline.store.objects import Store
from tests.conftest import CREATED, free_port, small_version
from tests.server.test_forger import new_key, trust

__all__ = ["trust"]

MODEL = "stackoverflow_tagger"
NO_VERSION = "no version is live yet: `tagger run` publishes one"


# States of a store, of which each gives what a server that starts on it says


def no_store(folder: Path) -> str:
    return NO_VERSION


def no_version(folder: Path) -> str:
    Store(str(folder / "store")).write("runs/a/run.json", {})
    return NO_VERSION


def published(folder: Path) -> Store:
    store = Store(str(folder / "store"))
    small_version(store, 1, folder, created=CREATED)
    return store


def log_of(store: Store) -> Path:
    [entry] = Path(store.url, LOG).glob("*.json")
    return entry


def unreadable(folder: Path) -> str:
    store = published(folder)
    Path(store.url, f"{LOG}.json").unlink()
    log_of(store).write_text("{")
    return "the registry cannot be read: "


def forged(folder: Path) -> str:
    """An entry that no trusted key signed."""
    published(folder)
    return "the registry cannot be read: "


def unreachable(folder: Path) -> str:
    """As a mounted disk that does not answer: each look at the folder fails."""
    (folder / "store").mkdir()
    (folder / "store/registry").symlink_to("registry")
    return "the registry cannot be read: "


def damaged(folder: Path) -> str:
    store = published(folder)
    for file in Path(store.url).rglob("saved_model.pb"):
        file.write_text("changed")
    return "saved_model.pb"


def withdrawn(folder: Path) -> str:
    """Garbage collection has removed the files of the only version."""
    store = published(folder)
    Registry(store).note_collected("runs/run1", "to make room")
    shutil.rmtree(folder / "store/runs")
    shutil.rmtree(folder / "store/models")
    return "garbage collection removed its files"


STATES = {no_store: 404, no_version: 404} | dict.fromkeys([unreadable, forged, unreachable, damaged, withdrawn], 503)

# What does not need a version

ALIVE = ["/healthz", "/metrics", "/v2", "/v2/health/live"]
NOT_READY = ["/readyz", "/aip/health"]
"""Which platforms expect to be 503 until the server is ready."""

SHOWS_STATES = {f"/v1/models/{MODEL}"}
"""What tells of a version also why it does not answer, so that it is no error there."""

POSTS = {"instances": ["a java list"]}
BODIES = {
    f"/v1/models/{MODEL}:predict": POSTS,
    f"/v1/models/{MODEL}:classify": {"examples": [{"post": "a java list"}]},
    f"/v2/models/{MODEL}/infer": {
        "inputs": [{"name": "post", "datatype": "BYTES", "shape": [1], "data": ["a java list"]}]
    },
    "/aip/predict": POSTS,
}
ELSEWHERE = {"/v1/feedback"}
"""Whether it finds the post is decided before the version is asked."""


@dataclass(frozen=True)
class Answers:
    """What a server on a store said, by route or method."""

    http: dict[str, httpx.Response]
    grpc: dict[str, tuple[str, str]]


async def ask(server: Server, begun: Callable[[], Awaitable[None]] | None = None) -> Answers:
    """Ask every route, with each way to name a version, and every method, once the server runs and `begun` is over."""
    answers, said = dict[str, httpx.Response](), dict[str, tuple[str, str]]()
    router = server._router()
    transport = httpx.ASGITransport(server.app)
    async with server._lifespan(router), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        if begun:
            await begun()
        for route in router.routes:
            names = {"name": MODEL, "version": "1", "label": "live"}
            path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: names[match[1]], route.path)  # noqa: B023
            plain = path.replace("/versions/1", "").replace("/labels/live", "")
            if "GET" in route.methods:
                answers[path] = await client.get(path)
            elif plain not in ELSEWHERE:
                answers[path] = await client.post(path, json=BODIES[plain])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.listen.grpc_port}") as channel:
            for path, request in requests().items():
                try:
                    await channel.unary_unary(path)(request.SerializeToString(), timeout=60)
                    said[path] = ("OK", "")
                except grpc.aio.AioRpcError as error:
                    said[path] = (error.code().name, error.details())
    return Answers(answers, said)


def requests() -> dict[str, object]:
    predict, classify = PredictRequest(), ClassificationRequest()
    predict.inputs["post"].dtype = 7
    predict.inputs["post"].string_val.append(b"a java list")
    example = classify.input.example_list.examples.add()
    example.features.feature["post"].bytes_list.value.append(b"a java list")
    metadata, status = GetModelMetadataRequest(metadata_field=["signature_def"]), GetModelStatusRequest()
    for request in (predict, classify, metadata, status):
        request.model_spec.name = MODEL
    return {
        "/tensorflow.serving.PredictionService/Predict": predict,
        "/tensorflow.serving.PredictionService/Classify": classify,
        "/tensorflow.serving.PredictionService/GetModelMetadata": metadata,
        "/tensorflow.serving.ModelService/GetModelStatus": status,
    }


def served(folder: Path) -> Server:
    store = Store(str(folder / "store"))
    listen = Listen(
        port=free_port(),
        grpc_port=free_port(),
        access_log=None,
        health_route="/aip/health",
        predict_route="/aip/predict",
    )
    # What is recorded is signed where keys are trusted, and the forged store comes without a key to sign with.
    recorder = None if signatures.keys().trusted else Recorder(store, 1.0, keep_text=False)
    return Server(Registry(store), listen, recorder=recorder)


@pytest.mark.parametrize(("state", "status"), STATES.items(), ids=lambda value: getattr(value, "__name__", value))
def test_every_route_and_method_says_why_no_version_answers(tmp_path, trust, state, status):
    reason = state(tmp_path)
    if state is forged:
        trust(None, new_key(tmp_path, "ours")[1])
    answers = asyncio.run(ask(served(tmp_path)))
    loaded = state in (damaged, withdrawn)
    for path, answer in answers.http.items():
        plain = path.replace("/versions/1", "").replace("/labels/live", "")
        if plain in ALIVE or (loaded and plain in SHOWS_STATES and "live" not in path):
            assert answer.status_code == 200, path
            continue
        said = answer.text if path == "/" else answer.json()["error"]
        expected = 503 if path in NOT_READY else status
        assert (answer.status_code, reason.replace("`", "") in said.replace("`", "")) == (expected, True), (path, said)
        assert status == 404 or "tagger run" not in said, path
    for path, (code, sentence) in answers.grpc.items():
        if loaded and path.endswith("GetModelStatus"):
            assert code == "OK"
            continue
        assert code == ("NOT_FOUND" if status == 404 else "UNAVAILABLE"), path
        assert reason in sentence, path
        assert status == 404 or "tagger run" not in sentence, path


def damaged_later(store: Store) -> None:
    for entry in Path(store.url, LOG).glob("*.json"):
        entry.write_text("{")
    Path(store.url, f"{LOG}.json").unlink()


def gone_later(store: Store) -> None:
    shutil.rmtree(store.url)


def away_later(store: Store) -> None:
    shutil.rmtree(Path(store.url, "registry"))
    Path(store.url, "registry").symlink_to("registry")


@pytest.mark.parametrize("happens", [damaged_later, gone_later, away_later], ids=lambda each: each.__name__)
def test_a_version_that_is_loaded_answers_whatever_becomes_of_the_store(two_versions, monkeypatch, happens):
    server = Server(Registry(two_versions), Listen(port=free_port(), grpc_port=free_port(), access_log=None))
    monkeypatch.setattr(app, "LOOK_SECONDS", 0.01)

    async def run() -> Answers:
        before = server.versions.look
        looks = list[None]()

        async def look() -> None:
            looks.append(None)
            await before()

        monkeypatch.setattr(server.versions, "look", look)
        await look()
        happens(two_versions)
        seen = len(looks)

        async def three_looks() -> None:
            while len(looks) < seen + 3:
                await asyncio.sleep(0.01)

        async with asyncio.timeout(60):
            return await ask(server, three_looks)

    answers = asyncio.run(run())
    number = str(server.versions.live.version)
    assert {path: code for path, (code, _) in answers.grpc.items() if code != "OK"} == {}
    refused = {path: answer.status_code for path, answer in answers.http.items() if answer.status_code != 200}
    assert set(refused) == {path for path in answers.http if "/versions/1" in path and number != "1"}
    assert json.loads(answers.http["/v2/health/ready"].text) == {"ready": True}


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where the heads of logs are remembered
