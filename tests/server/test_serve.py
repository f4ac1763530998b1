"""What `tagger serve` answers, by each of its protocols, and what it refuses."""

import base64
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from pipeline.model import serving as saved_model
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from tests.server.conftest import MODEL

PREDICT, INFER = f"{MODEL}:predict", "/v2/models/stackoverflow_tagger/infer"
TEXTS = ["how do i center a div with css", "print a list in python", "", "naïve 🙂 \x00 text", "java\r\nc++ c#"]
SECRET = "the posts are secret"


@pytest.fixture(scope="module")
def expected(served):
    """The answer of the SavedModel to TEXTS, its tags, and its vectors."""
    with model_cache.opened(served.registry, None) as model, saved_model.opened(model) as opened:
        answer, vectors = opened.tag_and_vectors(TEXTS)
        return {
            "tag": [tag.decode() for tag in answer["tag"]],
            "probability": answer["probability"],
            "probabilities": answer["probabilities"],
            "labels": (model / "assets/labels.txt").read_text().splitlines(),
            "vectors": vectors.toarray(),
        }


@pytest.fixture(scope="module")
def version(served):
    return Registry(served.store).live()


def same(answer, expected):
    assert list(answer["tag"]) == expected["tag"]
    assert np.allclose(answer["probability"], expected["probability"], atol=1e-6)
    assert np.allclose(answer["probabilities"], expected["probabilities"], atol=1e-6)


@pytest.mark.parametrize("which", ["", "/labels/live", "/versions/{version}"])
def test_predict_answers_rows_and_columns_as_the_saved_model_does(served, expected, version, which):
    path = f"{MODEL}{which.format(version=version)}:predict"
    encoded = [{"b64": base64.b64encode(text.encode()).decode()} for text in TEXTS]
    named = [{"post": text} for text in TEXTS]
    for instances in (TEXTS, encoded, named):
        rows = served.client.post(path, json={"instances": instances}).json()["predictions"]
        same({name: [row[name] for row in rows] for name in rows[0]}, expected)
    for inputs in (TEXTS, {"post": TEXTS}):
        body = {"signature_name": "serving_default", "inputs": inputs}
        same(served.client.post(path, json=body).json()["outputs"], expected)


def test_many_posts_are_computed_another_way_with_the_same_answer(served, expected):
    rows = served.client.post(PREDICT, json={"instances": TEXTS * 50}).json()["predictions"]
    assert len(rows) == len(TEXTS) * 50
    for start in range(0, len(rows), len(TEXTS)):
        part = rows[start : start + len(TEXTS)]
        same({name: [row[name] for row in part] for name in part[0]}, expected)


def test_predict_answers_the_signature_for_vectors(served, expected):
    rows = expected["vectors"].tolist()
    body = {"signature_name": "vectors", "instances": rows}
    answer = served.client.post(PREDICT, json=body).json()["predictions"]
    assert np.allclose(answer, expected["probabilities"], atol=1e-6)
    body = {"signature_name": "vectors", "inputs": {"posts_input": rows}}
    assert np.allclose(served.client.post(PREDICT, json=body).json()["outputs"], answer, atol=1e-9)


def test_classify_answers_each_tag_with_its_score(served, expected):
    body = {"context": {"other": 1}, "examples": [{"post": text, "other": 2} for text in TEXTS]}
    refused = served.client.post(f"{MODEL}:classify", json=body)
    assert (refused.status_code, "'post' only" in refused.json()["error"]) == (400, True)
    body = {"examples": [{"post": TEXTS[0]}, {"post": [TEXTS[1]]}]}
    results = served.client.post(f"{MODEL}:classify", json=body).json()["results"]
    assert [[label for label, _ in row] for row in results] == [expected["labels"]] * 2
    scores = [[score for _, score in row] for row in results]
    assert np.allclose(scores, expected["probabilities"][:2], atol=1e-6)


def test_status_and_metadata_have_the_shape_of_tensorflow_servings(served, version):
    status = {"version": str(version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for which in ("", f"/versions/{version}", "/labels/live"):
        assert served.client.get(f"{MODEL}{which}").json() == {"model_version_status": [status]}
        metadata = served.client.get(f"{MODEL}{which}/metadata").json()
        assert metadata["model_spec"] == {
            "name": "stackoverflow_tagger",
            "signature_name": "",
            "version": str(version),
        }
        signatures = metadata["metadata"]["signature_def"]["signature_def"]
        assert set(signatures) == {"serving_default", "vectors", "cells", "classify"}
        assert signatures["serving_default"]["inputs"]["post"]["dtype"] == "DT_STRING"


def test_open_inference_answers_the_same(served, expected, version):
    tensor = {"name": "post", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}
    for path in (INFER, f"/v2/models/stackoverflow_tagger/versions/{version}/infer"):
        answer = served.client.post(path, json={"id": "a1", "inputs": [tensor]}).json()
        assert (answer["id"], answer["model_name"]) == ("a1", "stackoverflow_tagger")
        assert answer["model_version"] == str(version)
        found = {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in answer["outputs"]}
        same(found, expected)
    only = {"inputs": [tensor], "outputs": [{"name": "tag"}]}
    [output] = served.client.post(INFER, json=only).json()["outputs"]
    assert output == {"name": "tag", "shape": [len(TEXTS)], "datatype": "BYTES", "data": expected["tag"]}
    assert served.client.get("/v2").json()["name"] == "stackoverflow-tagger"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/stackoverflow_tagger/ready"):
        assert served.client.get(path).is_success
    model = served.client.get("/v2/models/stackoverflow_tagger").json()
    assert model["inputs"] == [{"name": "post", "datatype": "BYTES", "shape": [-1]}]
    assert [output["shape"] for output in model["outputs"]] == [[-1], [-1], [-1, len(expected["labels"])]]


@pytest.fixture(scope="module")
def channel(served):
    with grpc.insecure_channel(served.grpc) as channel:
        yield channel


def request_of(kind, *, name="stackoverflow_tagger", version=None, label=None, signature=""):
    request = kind()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    if signature:
        request.model_spec.signature_name = signature
    return request


def test_grpc_answers_the_same_on_googles_stubs(served, channel, expected, version):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    for which in ({}, {"version": version}, {"label": "live"}):
        request = request_of(PredictRequest, **which)
        request.inputs["post"].CopyFrom(tf.make_tensor_proto([text.encode() for text in TEXTS]))
        response = stub.Predict(request)
        found = {name: tf.make_ndarray(output) for name, output in response.outputs.items()}
        same(found | {"tag": [tag.decode() for tag in found["tag"]]}, expected)
        assert response.model_spec.version.value == version
    request = request_of(PredictRequest, signature="vectors")
    request.inputs["posts_input"].CopyFrom(tf.make_tensor_proto(expected["vectors"]))
    found = tf.make_ndarray(stub.Predict(request).outputs["labels"])
    assert np.allclose(found, expected["probabilities"], atol=1e-6)
    request = request_of(ClassificationRequest)
    for text in TEXTS:
        example = request.input.example_list.examples.add()
        example.features.feature["post"].bytes_list.value.append(text.encode())
    rows = stub.Classify(request).result.classifications
    assert [[each.label for each in row.classes] for row in rows] == [expected["labels"]] * len(TEXTS)
    scores = [[each.score for each in row.classes] for row in rows]
    assert np.allclose(scores, expected["probabilities"], atol=1e-6)


def test_grpc_tells_the_signatures_and_the_versions(channel, version):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = request_of(GetModelMetadataRequest)
    request.metadata_field.append("signature_def")
    signatures = SignatureDefMap()
    assert stub.GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["classify"].method_name == "tensorflow/serving/classify"
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    [status] = models.GetModelStatus(request_of(GetModelStatusRequest)).model_version_status
    assert (status.version, status.State.Name(status.state)) == (version, "AVAILABLE")


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        ({"name": "other"}, "NOT_FOUND", "no model 'other'"),
        ({"version": 7}, "NOT_FOUND", "version 7 is not loaded"),
        ({"label": "old"}, "NOT_FOUND", "no label 'old'"),
        ({"signature": "cells"}, "INVALID_ARGUMENT", "'cells' is not answered"),
        ({}, "INVALID_ARGUMENT", "send 'post' only"),
    ],
)
def test_grpc_refuses_in_one_sentence(channel, change, code, sentence):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError, match=re.escape(sentence)) as refused:
        stub.Predict(request_of(PredictRequest, **change))
    assert refused.value.code().name == code


VECTORS = b'{"signature_name": "vectors", "instances": [%b]}'
COMMON = json.dumps({"context": {"post": "a" * 90_000}, "examples": [{}] * 100}).encode()
NONSENSE = [
    (PREDICT, b"", 400, "not JSON"),
    (PREDICT, b"\xff\x00{", 400, "not JSON"),
    (PREDICT, b"[" * 100_000, 400, "not JSON"),
    (PREDICT, b"[]", 400, "the body is a list"),
    (PREDICT, b'{"instances": ["\\ud800"]}', 400, "not JSON"),
    (PREDICT, b'{"instances": NaN}', 400, "not JSON"),
    (PREDICT, b"{}", 400, 'send either "instances"'),
    (PREDICT, b'{"instances": [], "inputs": []}', 400, 'send either "instances"'),
    (PREDICT, b'{"instances": []}', 400, "instances is empty"),
    (PREDICT, b'{"instances": {"post": 1}}', 400, "instances must be a list"),
    (PREDICT, b'{"instances": [1]}', 400, "instances[0] is a number: a post is a text"),
    (PREDICT, b'{"instances": ["a", null]}', 400, "instances[1] is null"),
    (PREDICT, b'{"instances": [{"text": "a"}]}', 400, "the field 'post' only"),
    (PREDICT, b'{"instances": [{"b64": "%"}]}', 400, "not base64"),
    (PREDICT, b'{"inputs": {"post": "a"}}', 400, "inputs is a text: send a list of texts"),
    (PREDICT, b'{"inputs": {"post": ["a"], "more": ["b"]}}', 400, "the field 'post' only"),
    (PREDICT, b'{"instances": ["a"], "more": 1}', 400, "the unknown field 'more'"),
    (PREDICT, b'{"signature_name": "cells", "instances": [1]}', 400, "'cells' is not answered"),
    (PREDICT, b'{"signature_name": [], "instances": [{}]}', 400, "the field 'post' only"),
    (PREDICT, b'{"signature_name": {"a": 1}, "instances": ["a"]}', 400, "is not answered"),
    (PREDICT, b'{"signature_name": "vectors", "instances": [[1, 2]]}', 400, "reads vectors of 1,000 numbers"),
    (PREDICT, b'{"signature_name": "vectors", "instances": [[1], [1, 2]]}', 400, "all of the same length"),
    (PREDICT, b'{"signature_name": "vectors", "instances": ["a"]}', 400, "vectors of numbers"),
    (PREDICT, VECTORS % json.dumps([3e38] * 1000).encode(), 400, "sums of them are not finite"),
    (PREDICT, VECTORS % json.dumps([1e300] * 1000).encode(), 400, "a number that is not finite"),
    (PREDICT, json.dumps({"instances": ["a"] * 1001}).encode(), 413, "1,001 entries: send at most 1,000"),
    (PREDICT, json.dumps({"instances": ["a" * 100_001]}).encode(), 413, "100,001 bytes"),
    (f"{MODEL}/versions/7:predict", b'{"instances": ["a"]}', 404, "version 7 is not loaded"),
    (f"{MODEL}/versions/x:predict", b'{"instances": ["a"]}', 404, "version x is not loaded"),
    (f"{MODEL}/labels/old:predict", b'{"instances": ["a"]}', 404, "no label 'old'"),
    ("/v1/models/other:predict", b'{"instances": ["a"]}', 404, "no model 'other'"),
    (f"{MODEL}:regress", b"{}", 404, "there is nothing at"),
    (f"{MODEL}:classify", b'{"examples": "a"}', 400, 'send "examples"'),
    (f"{MODEL}:classify", b'{"examples": [1], "context": {}}', 400, "a post is a text"),
    (f"{MODEL}:classify", b'{"examples": [{"post": ["a", "b"]}]}', 400, "examples[0] is a list"),
    (
        f"{MODEL}:classify",
        b'{"signature_name": "x", "examples": [{"post": "a"}]}',
        400,
        "'x' is not answered: ask classify",
    ),
    (f"{MODEL}:classify", COMMON, 413, "more than 8,388,608 bytes of text"),
    (INFER, b"{}", 400, 'send "inputs"'),
    (INFER, b'{"inputs": [{"name": "post", "datatype": "FP32", "data": [], "shape": [0]}]}', 400, "datatype 'BYTES'"),
    (INFER, b'{"inputs": [{"name": "post", "datatype": "BYTES", "data": ["a"], "shape": [2]}]}', 400, "shape is [2]"),
    (INFER, b'{"inputs": [{"name": "post", "datatype": "BYTES", "data": ["a"], "shape": [1], "x": 1}]}', 400, "'x'"),
    (
        INFER,
        b'{"outputs": [{"name": 1}], "inputs": [{"name": "post", "datatype": "BYTES", "data": ["a"], "shape": [1]}]}',
        400,
        "no output 1",
    ),
    ("/v2/models/other/infer", b"{}", 404, "no model 'other'"),
]


@pytest.mark.parametrize(("path", "body", "status", "sentence"), NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_refused_in_one_sentence(served, path, body, status, sentence):
    answer = served.client.post(path, content=body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_body_is_limited_whether_it_says_its_length_or_not(served):
    large = b'{"instances": ["' + b"a" * (9 * 2**20) + b'"]}'
    said = served.client.post(PREDICT, content=large)
    unsaid = served.client.post(PREDICT, content=iter([large[:100], large[100:]]))
    assert (said.status_code, unsaid.status_code) == (413, 413)
    assert "send at most 8,388,608" in said.json()["error"]
    assert unsaid.json() == {"error": "the body has more than 8,388,608 bytes: send less"}


def test_a_path_that_does_not_answer_a_method_says_so(served):
    assert served.client.get(PREDICT).json() == {"error": f"{PREDICT} does not answer GET"}
    assert served.client.get(PREDICT).status_code == 405
    assert served.client.get("/nowhere").json() == {"error": "there is nothing at /nowhere"}


def test_answers_to_many_clients_at_once_are_each_their_own(served):
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 40)]
    alone = served.client.post(PREDICT, json={"instances": texts}).json()["predictions"]
    with ThreadPoolExecutor(16) as pool, httpx.Client(base_url=served.client.base_url, trust_env=False) as client:
        asked = list(pool.map(lambda text: client.post(PREDICT, json={"instances": [text]}, timeout=60), texts))
    together = [answer.json()["predictions"][0] for answer in asked]
    assert [row["tag"] for row in together] == [row["tag"] for row in alone]
    assert np.allclose([row["probabilities"] for row in together], [row["probabilities"] for row in alone], atol=1e-5)


def test_metrics_and_the_access_log_tell_of_requests_but_not_of_posts(served):
    before = served.client.get("/metrics").text
    assert served.client.post(PREDICT, json={"instances": [SECRET] * 3}).is_success
    after = served.client.get("/metrics").text

    def value(text, name):
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

    assert value(after, "tagger_posts_total") == value(before, "tagger_posts_total") + 3
    name = 'tagger_requests_total{api="tensorflow-serving",status="200"}'
    assert value(after, name) == value(before, name) + 1
    assert value(after, "tagger_live_version") == Registry(served.store).live()
    served.client.post(PREDICT, content=SECRET)
    lines = [json.loads(line) for line in _lines(served)]
    assert {"time", "client", "method", "path", "status", "ms"} == set(lines[0])
    assert {line["status"] for line in lines if line["path"] == PREDICT} >= {200, 400}
    assert {line["path"] for line in lines}.isdisjoint({"/healthz", "/readyz"})
    assert SECRET not in served.output.read_text() + served.errors.read_text()


def _lines(served):
    """The access log, whose lines are written a moment after the answers."""
    time.sleep(1)
    return served.output.read_text().splitlines()


def test_nothing_that_was_refused_left_a_traceback(served):
    assert "Traceback" not in served.errors.read_text()
    assert served.client.get("/readyz").text == f"version {Registry(served.store).live()} answers\n"
