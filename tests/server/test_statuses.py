"""The status of each odd request over HTTP: who may ask, by which name, path, method, encoding and numbers."""

import base64
import json
import re
from typing import Any

import httpx
import pytest

from pipeline.errors import BadInput
from pipeline.registry.registry import Registry
from pipeline.server.app import Server
from pipeline.server.guard import admits
from pipeline.server.listen import Listen
from pipeline.server.recording import Recorder
from pipeline.store.objects import Store
from tests.server.conftest import MODEL, serving

PREDICT, CLASSIFY, INFER = f"{MODEL}:predict", f"{MODEL}:classify", "/v2/models/stackoverflow_tagger/infer"
TOKEN = "correct horse battery"
POST = {"instances": ["a div with css"]}


def refused(answer: httpx.Response, status: int, said: str) -> None:
    assert answer.status_code == status
    if answer.request.method == "HEAD":
        return
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]
    assert len(answer.json()["error"]) < 400


# Who asks


@pytest.mark.parametrize("scheme", ["Bearer", "Basic", "basic", "Digest", ""])
@pytest.mark.parametrize("given", ["é", "ü" * 8, "\xff\xfe", "%", "", "bm8=", TOKEN + "x", TOKEN[:-1]])
def test_whatever_is_not_the_token_does_not_admit(scheme, given):
    assert not admits(f"{scheme} {given}", TOKEN)


def test_the_token_admits_as_bearer_and_as_password():
    for name in ("", "anybody"):
        assert admits(f"Basic {base64.b64encode(f'{name}:{TOKEN}'.encode()).decode()}", TOKEN)
    assert admits(f"bearer  {TOKEN} ", TOKEN)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with a token, that records, and that may be asked by any name."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN)
    store = Store(str(folder / "empty"))
    with serving(store, folder, "--wait", "--token-file", str(folder / "token"), "--record", "1") as server:
        yield server


def test_a_stranger_is_refused_with_401_whatever_the_header_holds(guarded):
    for value in (b"Basic \xc3\xa9", b"Basic \xff", b"Basic", b"Bearer \xc3\xa9", b"", b"\xff \xff"):
        refused(guarded.client.get("/", headers={"Authorization": value}), 401, "send the server's token")
    assert "Traceback" not in guarded.errors.read_text()


# By which name

OURS = ("localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8501", "tagger", "tagger:8501")
THEIRS = (
    *("evil.example", "evil.example:8501", "127.0.0.1.evil.example", "localhost.evil.example", "evil.", "127.0.0.2"),
    *("127.0.0.1@evil.example", "evil.example#localhost", "[::2]", "[::1].evil.example", "", "localhost:x", "a b"),
)


@pytest.mark.parametrize("path", ["/", "/healthz", PREDICT, "/v2", "/nowhere"])
def test_only_names_of_this_machine_are_answered_without_a_token(served, path):
    for host in OURS:
        assert served.client.get(path, headers={"Host": host}).status_code in (200, 404, 405)
    for host in THEIRS:
        refused(
            served.client.get(path, headers={"Host": host}), 421, "this server answers as 127.0.0.1, ::1, localhost"
        )


def test_a_page_of_another_site_may_not_ask(served):
    for origin in ("http://evil.example", "https://evil.example:8501", "null", "http://127.0.0.1.evil.example", "x"):
        for body in ({"content": b'{"instances": ["a"]}'}, {"data": {"post": "a"}}):
            answer = served.client.post("/" if "data" in body else PREDICT, headers={"Origin": origin}, **body)
            refused(answer, 403, "may not ask this server")
    own = str(served.client.base_url)
    for origin in (own, "http://localhost:3000", "http://[::1]:1"):
        assert served.client.post(PREDICT, json=POST, headers={"Origin": origin}).status_code == 200
    named = {"Host": "tagger:8501", "Origin": "http://tagger:8501"}
    assert served.client.post(PREDICT, json=POST, headers=named).status_code == 200
    refused(served.client.post(PREDICT, json=POST, headers={"Origin": "http://tagger:8501"}), 403, "may not ask")


def test_with_a_token_any_name_is_answered(guarded):
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}
    for host in (*OURS, *THEIRS):
        assert guarded.client.get("/v2", headers=headers | {"Host": host}).status_code == 200


def test_a_name_can_be_allowed_and_the_address_is_one():
    hosts = Listen.of({}, host="127.0.0.7", allowed_hosts=("Tagger.Example",)).hosts
    for host in (b"tagger.example", b"TAGGER.example:80", b"127.0.0.7:8501"):
        hosts.refuse_misled([(b"host", host), (b"origin", b"https://tagger.example")])
    assert Listen.of({"AIP_HTTP_PORT": "8080"}).hosts is None
    assert Listen.of({}, host="0.0.0.0", token=TOKEN).hosts is None


# Methods

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def paths() -> list[str]:
    store = Store("nowhere")
    routes = Server(Registry(store), Listen(), recorder=Recorder(store, 1.0, keep_text=True))._router().routes
    names = {"name": "stackoverflow_tagger", "version": "1", "label": "live"}
    return [re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: names[match[1]], route.path) for route in routes]


@pytest.mark.parametrize("path", paths())
def test_a_method_that_is_not_answered_is_405_and_those_that_are_are_named(served, path):
    statuses = {method: served.client.request(method, path) for method in METHODS}
    answered = {method for method, answer in statuses.items() if answer.status_code != 405}
    assert answered <= {"GET", "HEAD", "POST"}
    for method in set(METHODS) - answered:
        assert set(statuses[method].headers["Allow"].split(", ")) == answered
        refused(statuses[method], 405, f"{path} does not answer {method}")


@pytest.mark.parametrize("method", METHODS)
def test_a_verb_that_there_is_not_is_404(served, method):
    assert served.client.request(method, f"{MODEL}:regress").status_code == 404


# Bodies


@pytest.mark.parametrize("encoding", ["identity", "Identity", "IDENTITY", ""])
def test_a_body_that_is_not_encoded_is_read(served, encoding):
    assert served.client.post(PREDICT, json=POST, headers={"Content-Encoding": encoding}).status_code == 200


def test_base64_that_is_not_ascii_is_400(served):
    tensor = {"name": "post", "shape": [1], "datatype": "BYTES"}
    for text in ("é", "YQ==é", "\u2028", "🙂"):
        value = {"b64": text}
        for path, body in (
            (PREDICT, {"instances": [value]}),
            (PREDICT, {"instances": [{"post": value}]}),
            (PREDICT, {"inputs": [value]}),
            (CLASSIFY, {"examples": [{"post": value}]}),
            (INFER, {"inputs": [tensor | {"data": [value]}]}),
        ):
            refused(served.client.post(path, json=body), 400, "is not base64")


ROW = [0.0] * 1000
FAR = {
    "3e38": [3e38] * 1000,
    "both signs": [3e38, -3e38] * 500,
    "more than float32": [1e39, *ROW[1:]],
    "a large integer": [2**63] * 1000,
    "a larger one": [10**40, *ROW[1:]],
    "text": ["1", *ROW[1:]],
    "truth": [True, *ROW[1:]],
    "null": [None, *ROW[1:]],
    "nested": [[0.0]] * 1000,
    "short": ROW[1:],
    "long": [*ROW, 0.0],
    "empty": [],
    "object": {"a": 1},
}


@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize("vector", FAR.values(), ids=FAR)
def test_a_vector_gets_finite_probabilities_or_400(served, vector, form):
    for rows in ([vector], [ROW, vector], [vector, ROW]):
        body = json.dumps({"signature_name": "vectors", form: rows})
        answer = served.client.post(PREDICT, content=body)
        if vector == FAR["a large integer"]:  # which float32 holds
            assert (answer.status_code, "null" in answer.text) == (200, False)
        else:
            refused(answer, 400, "")


def test_each_signature_is_checked_for_each_verb(served):
    examples = [{"post": "css"}]
    for name in (None, "", "classify"):
        body = {"signature_name": name, "examples": examples}
        assert served.client.post(CLASSIFY, json=body).status_code == 200
    for name in ("nope", "serving_default", "vectors", 1, ["classify"], {"a": 1}, True, "x" * 10_000):
        body = {"signature_name": name, "examples": examples}
        refused(served.client.post(CLASSIFY, json=body), 400, "is not answered: ask classify")
        if name not in ("serving_default", "vectors"):
            body = {"signature_name": name, "instances": ["css"]}
            refused(served.client.post(PREDICT, json=body), 400, "ask serving_default or vectors")


@pytest.mark.parametrize("number", [2, 4_000, 20_000])
@pytest.mark.parametrize("name", ["tag", "probability", "probabilities", "nope"])
def test_an_output_is_given_once(served, name, number):
    tensor = {"name": "post", "shape": [1], "datatype": "BYTES", "data": ["css"]}
    answer = served.client.post(INFER, json={"inputs": [tensor], "outputs": [{"name": name}] * number})
    refused(answer, 400, f"outputs has {name!r} twice")


def test_a_context_is_not_copied_for_each_example(served):
    context = {str(number): number for number in range(30_000)}
    answer = served.client.post(CLASSIFY, json={"context": context, "examples": [{}] * 1000})
    refused(answer, 400, "context may have the field 'post' only")
    answer = served.client.post(CLASSIFY, json={"context": {"post": "css"}, "examples": [{}] * 1001})
    refused(answer, 413, "send at most 1,000")


def test_a_form_is_limited_before_it_is_decoded(served):
    answer = served.client.post("/", content=b"post=" + b"%41" * 100_001)
    assert (answer.status_code, "a post may have at most 100,000" in answer.text) == (413, True)
    assert served.client.post("/", content=b"post=" + b"%41" * 100_000).status_code == 200


def test_feedback_is_refused_with_the_way_to_switch_it_on_where_nothing_is_recorded(served, guarded):
    for body in ({"json": {"id": "x", "tag": "css"}}, {"content": b"nonsense"}, {}):
        refused(served.client.post("/v1/feedback", **body), 404, "start the server with --record")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = guarded.client.post("/v1/feedback", json={"id": "x", "tag": "css"}, headers=headers)
    refused(answer, 404, "no recorded post has the id")


def test_nothing_of_all_this_was_a_500(served):
    assert 'status="500"' not in served.client.get("/metrics").text
    assert "Traceback" not in served.errors.read_text()


# Vertex AI's variables


@pytest.mark.parametrize("port", ["0", "65536", "99999999999", "-1", "+1", "8080 ", "8e3", "²", "٣", "x", "0x50"])
def test_a_port_of_vertex_ai_is_one(port):
    with pytest.raises(BadInput, match=re.escape(f"AIP_HTTP_PORT={port} is not a port")):
        Listen.of({"AIP_HTTP_PORT": port})


@pytest.mark.parametrize("variable", ["AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"])
@pytest.mark.parametrize(
    "path", ["predict", "//x", "/a b", "/a?b", "/a#b", "/{name}", "/ü", "http://a/b", "/%41", "/a//b", " "]
)
@pytest.mark.parametrize("port", [{}, {"AIP_HTTP_PORT": "8080"}])
def test_a_route_of_vertex_ai_is_a_path(variable, path, port):
    with pytest.raises(BadInput, match=re.escape(f"{variable}={path} is not a path")):
        Listen.of({variable: path} | port)


ENDPOINT = "/v1/endpoints/123/deployedModels/456"


@pytest.mark.parametrize(
    ("health", "predict", "taken"),
    [
        (ENDPOINT, f"{ENDPOINT}:predict", None),
        ("/healthz", PREDICT, None),
        ("/readyz", "/readyz", None),
        (MODEL, "/predict/", None),
        ("/same", "/same", None),
        ("", "", None),
        ("/metrics", "/predict", "AIP_HEALTH_ROUTE"),
        ("/", "/predict", "AIP_HEALTH_ROUTE"),
        ("/v2", "/predict", "AIP_HEALTH_ROUTE"),
        ("/healthz", "/", "AIP_PREDICT_ROUTE"),
        ("/healthz", "/v1/feedback", "AIP_PREDICT_ROUTE"),
        ("/healthz", CLASSIFY, "AIP_PREDICT_ROUTE"),
        ("/healthz", INFER, "AIP_PREDICT_ROUTE"),
        ("/healthz", "/v1/models/other:predict", "AIP_PREDICT_ROUTE"),
    ],
)
def test_a_route_of_vertex_ai_takes_none_that_answers_something_else(health, predict, taken):
    listen = Listen.of({"AIP_HTTP_PORT": "8080", "AIP_HEALTH_ROUTE": health, "AIP_PREDICT_ROUTE": predict})
    if taken is None:
        assert Server(Registry(Store("nowhere")), listen)
    else:
        with pytest.raises(BadInput, match=f"{taken}=.* at which this server answers something else"):
            Server(Registry(Store("nowhere")), listen)
