"""A server that follows the registry: promotions during load, damaged versions, and a store without a model."""

import json
import re
import shutil
import signal
import threading
from pathlib import Path

import grpc
import httpx
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest

from pipeline.data.weights import FILE as WEIGHTS
from pipeline.model import serving as saved_model
from pipeline.registry import model_cache
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.registry.series import Series
from pipeline.report import models
from pipeline.run.runner import run_stage
from pipeline.server.open_inference_proto import METHODS, SERVICE
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import free_port
from tests.server.conftest import MODEL, Serving, serving, wait_for

PREDICT = f"{MODEL}:predict"
CLIENTS = 8


class Load:
    """Clients that ask one post after the other until the block ends, and what they were answered."""

    def __init__(self, url: str) -> None:
        self.url, self.ending = url, threading.Event()
        self.statuses: list[int] = []
        self.threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            while not self.ending.is_set():
                self.statuses.append(client.post(PREDICT, json={"instances": ["a java list"]}).status_code)

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join()


def test_promotions_and_rollbacks_are_served_within_seconds_and_no_request_is_lost(two_versions, tmp_path):
    registry = Registry(two_versions)
    newest, first = [card.version for card in registry.cards()]
    with serving(two_versions, tmp_path) as server:
        assert server.answers(newest)
        with Load(str(server.client.base_url)) as load:
            for version in (first, newest) * 3:
                registry.promote(version, "to see it served")
                wait_for(f"version {version} answers", lambda version=version: server.answers(version))
                assert server.client.get(f"{MODEL}/labels/live/metadata").json()["model_spec"]["version"] == str(
                    version
                )
        assert server.states()[first]["state"] == "END"
        refused = server.client.post(f"{MODEL}/versions/{first}:predict", json={"instances": ["a"]})
        assert refused.status_code == 404
    assert len(load.statuses) > 100
    assert set(load.statuses) == {200}


def damage(store: Store, card: Card) -> None:
    """Change a byte of the weights everywhere."""
    for folder in (card.path, f"models/stackoverflow_tagger/{card.version}"):
        file = Path(store.url, folder, WEIGHTS)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def test_a_damaged_version_is_not_taken_up_and_the_one_before_it_stays(two_versions, tmp_path):
    registry = Registry(two_versions)
    newest, first = registry.cards()
    with serving(two_versions, tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache")) as server:
        assert server.answers(newest.version)
        registry.promote(first.version, "whole in the registry's eyes")
        wait_for("the first version answers", lambda: server.answers(first.version))
        shutil.rmtree(tmp_path / "cache")
        server.process.send_signal(signal.SIGSTOP)  # so that it cannot be faster than the damage
        registry.promote(newest.version, "damaged right after it")
        damage(two_versions, newest)
        server.process.send_signal(signal.SIGCONT)
        refused = lambda: server.states()[newest.version]["status"]["error_message"]  # noqa: E731
        wait_for("the damaged version is refused", refused)
        assert WEIGHTS in refused()
        assert server.states()[newest.version]["state"] == "END"
        assert server.states()[newest.version]["status"]["error_code"] == "DATA_LOSS"
        assert server.answers(first.version)
        assert server.client.post(PREDICT, json={"instances": ["a"]}).is_success
        assert f"is not served: version {first.version} stays" in server.errors.read_text()


def test_a_server_waits_for_the_first_version(two_versions, tmp_path):
    store = Store(str(tmp_path / "new"))
    shutil.copytree(Path(two_versions.url, "runs"), Path(store.url, "runs"))
    with serving(store, tmp_path) as server:
        assert server.client.get("/readyz").status_code == 503
        assert server.client.post(PREDICT, json={"instances": ["a"]}).status_code == 404
        assert "No version answers" in server.client.get("/").text
        run_stage("export", Run(store, "finished"))
        wait_for("the first version answers", lambda: server.client.get("/readyz").is_success)
        assert server.client.post(PREDICT, json={"instances": ["a"]}).is_success


def test_each_client_must_send_the_token_where_there_is_one(finished_run, tmp_path):
    token = tmp_path / "token"
    token.write_text("correct horse battery\n")
    with serving(finished_run.store, tmp_path, "--token-file", str(token)) as server:
        paths = ["/", MODEL, f"{MODEL}/metadata", "/v2", "/v2/models/stackoverflow_tagger", "/metrics", "/nowhere"]
        given = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic !"}, {"Authorization": "correct"}]
        for headers in given:
            answers = {path: server.client.get(path, headers=headers).status_code for path in paths}
            assert answers == dict.fromkeys(paths, 401)
            assert server.client.post(PREDICT, json={"instances": ["a"]}, headers=headers).status_code == 401
        assert server.client.get("/readyz").is_success
        bearer = {"Authorization": "Bearer correct horse battery"}
        assert server.client.post(PREDICT, json={"instances": ["a"]}, headers=bearer).is_success
        assert server.client.get("/", auth=("anybody", "correct horse battery")).is_success
        with grpc.insecure_channel(server.grpc) as channel:
            request = GetModelStatusRequest()
            request.model_spec.name = "stackoverflow_tagger"
            ask = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
            for metadata in ((), (("authorization", "Bearer wrong"),)):
                with pytest.raises(grpc.RpcError, match="send the server's token as metadata") as refused:
                    ask(request, metadata=metadata)
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert ask(request, metadata=(("authorization", "Bearer correct horse battery"),)).model_version_status
        with grpc.insecure_channel(server.grpc) as channel:
            for method in METHODS:
                with pytest.raises(grpc.RpcError, match="send the server's token as metadata"):
                    channel.unary_unary(f"/{SERVICE}/{method}")(b"")
        assert "correct horse" not in server.output.read_text() + server.errors.read_text()


def test_a_shadow_version_is_asked_the_same_posts_and_answers_nobody(two_versions, tmp_path):
    newest, first = [card.version for card in Registry(two_versions).cards()]
    texts = [f"a java list {number} in python with css" for number in range(60)]
    with serving(two_versions, tmp_path, "--shadow", str(first)) as server:

        def counted() -> dict[str, float]:
            found = re.findall(r'^tagger_shadow_posts_total\{result="(\w+)"\} (\S+)', metrics(server), re.MULTILINE)
            return {result: float(count) for result, count in found}

        answered = server.client.post(PREDICT, json={"instances": texts}).json()["predictions"]
        wait_for("the shadow version was asked", lambda: counted().get("same", 0) + counted().get("other", 0) == 60)
        with model_cache.opened(Registry(two_versions), first) as model, saved_model.opened(model) as opened:
            tags = [tag.decode() for tag in opened.tag(texts)["tag"]]
        assert counted()["same"] == sum(tag == row["tag"] for tag, row in zip(tags, answered, strict=True))
        assert server.states()[newest]["state"] == "AVAILABLE"
        assert first not in server.states()
        same = counted()["same"]
    [noted] = Series(two_versions).agreements()
    assert (noted.live, noted.shadow, noted.posts, noted.same) == (newest, first, 60, same)
    assert Series(two_versions).observations() == []
    assert f'<td>{first}</td><td class="n">60</td>' in models.render(Registry(two_versions))


def metrics(server: Serving) -> str:
    return server.client.get("/metrics").text


def test_vertex_ai_calls_it_by_the_routes_that_it_chose(finished_run, tmp_path):
    vertex = {"AIP_HTTP_PORT": str(free_port()), "AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}
    with serving(finished_run.store, tmp_path, **vertex) as server:
        assert server.client.get("/health").is_success
        body = {"instances": ["a java list", {"post": "python"}], "parameters": {}}
        predictions = server.client.post("/predict", json=body).json()["predictions"]
        assert [set(each) for each in predictions] == [{"tag", "probability", "probabilities"}] * 2
        lines = [json.loads(line) for line in server.output.read_text().splitlines()]
        assert [line for line in lines if line["path"] == "/v2"] == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--host", "0.0.0.0"), "lets other machines ask: give a --token-file"),
        (("--token-file", "{short}"), "must hold one token of 16 printable ASCII characters or more"),
        (("--token-file", "{short}.none"), "cannot be read"),
        (("--port", "{taken}"), "Address already in use"),
        (("--host", "192.0.2.1", "--token-file", "{long}"), "cannot listen"),
        (("--store", "{folder}/none"), "none"),
        (("--shadow", "7"), "does not hold version 7"),
    ],
)
def test_what_cannot_be_followed_is_one_sentence(finished_run, tmp_path, tagger, taken_port, options, sentence):
    (tmp_path / "short").write_text("short")
    (tmp_path / "long").write_text("correct horse battery")
    names = {"short": tmp_path / "short", "long": tmp_path / "long", "taken": taken_port, "folder": tmp_path}
    given = [option.format(**names) for option in options]
    if "--store" not in given:
        given += ["--store", finished_run.store.url]
    done = tagger("serve", *given, "--grpc-port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    [said] = [line for line in done.stderr.splitlines() if line.startswith("tagger: ")]
    assert sentence in said
