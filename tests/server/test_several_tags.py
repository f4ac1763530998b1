"""`tagger serve` with a version that gives a post several tags, in each protocol."""

import json
import shutil

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from pipeline.published.arrays import FEW
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.scoring import predict
from pipeline.server.open_inference_proto import MESSAGE, SERVICE
from pipeline.sources import sample
from pipeline.store import feedback
from pipeline.store.objects import Store
from tests.run.test_several_tags import several  # noqa: F401 - a fixture
from tests.server.conftest import MODEL, serving, wait_for

INFER = "/v2/models/stackoverflow_tagger/infer"
TEXTS = next(sample.blocks(FEW * 2, 21, 3))["post"].to_pylist()


@pytest.fixture(scope="module")
def store(several, tmp_path_factory):  # noqa: F811 - the fixture
    folder = tmp_path_factory.mktemp("several_served")
    shutil.copytree(several.store.url, folder / "store")
    return Store(str(folder / "store"))


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    live = str(Registry(store).live())
    with serving(store, tmp_path_factory.mktemp("log"), "--record", "1", "--shadow", live) as server:
        yield server


@pytest.fixture(scope="module")
def expected(store):
    """What `tagger predict` says of TEXTS."""
    with model_cache.opened(Registry(store), None) as model:
        return [{**each, "tags": "|".join(each["tags"])} for each in predict.tag_texts(model, TEXTS)]


def test_each_protocol_gives_all_tags_of_a_post(server, expected):
    tags, first = ([each[name] for each in expected] for name in ("tags", "tag"))
    assert any("|" in each for each in tags)
    rows = server.client.post(f"{MODEL}:predict", json={"instances": TEXTS}).json()["predictions"]
    assert ([row["tags"] for row in rows], [row["tag"] for row in rows]) == (tags, first)
    assert np.allclose([row["probability"] for row in rows], [each["probability"] for each in expected], atol=1e-5)
    [one] = server.client.post(f"{MODEL}:predict", json={"instances": TEXTS[:1]}).json()["predictions"]
    assert one["tags"] == tags[0]
    inputs = [{"name": "post", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}]
    [output] = server.client.post(INFER, json={"inputs": inputs, "outputs": [{"name": "tags"}]}).json()["outputs"]
    assert output == {"name": "tags", "shape": [len(TEXTS)], "datatype": "BYTES", "data": tags}
    named = [each["name"] for each in server.client.get("/v2/models/stackoverflow_tagger").json()["outputs"]]
    assert named == ["tag", "tags", "probability", "probabilities"]
    with grpc.insecure_channel(server.grpc) as channel:
        request = PredictRequest()
        request.model_spec.name = "stackoverflow_tagger"
        request.inputs["post"].CopyFrom(tf.make_tensor_proto([text.encode() for text in TEXTS]))
        outputs = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request).outputs
        assert [each.decode() for each in tf.make_ndarray(outputs["tags"])] == tags


def test_open_inference_gives_them_in_each_form_and_is_recorded(server, expected):
    names = ["tag", "tags", "probability", "probabilities"]
    tags = [each["tags"] for each in expected]
    fields = {"name": "post", "shape": [len(TEXTS)], "datatype": "BYTES"}
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            lambda request: request.SerializeToString(),
            MESSAGE["ModelInferResponse"].FromString,
        )
        contents = {"bytes_contents": [text.encode() for text in TEXTS]}
        named = {"model_name": "stackoverflow_tagger", "inputs": [fields | {"contents": contents}]}
        response, call = infer.with_call(MESSAGE["ModelInferRequest"](**named))
    assert [output.name for output in response.outputs] == names
    assert [text.decode() for text in response.outputs[1].contents.bytes_contents] == tags
    request = dict(call.trailing_metadata())["tagger-id"]
    told = server.client.post("/v1/feedback", json={"id": request, "tag": "java"}).json()
    assert told["predicted"] == tags[0]

    body = {"inputs": [fields | {"data": TEXTS}], "parameters": {"binary_data_output": True}}
    answer = server.client.post(INFER, json=body)
    head = json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])
    assert [output["name"] for output in head["outputs"]] == names
    assert all(tag.encode() in answer.content for tag in tags)
    told = server.client.post("/v1/feedback", json={"id": answer.headers["Tagger-Id"], "tag": "java"}).json()
    assert told["predicted"] == tags[0]


def test_the_page_marks_every_tag_that_the_post_gets(server, expected):
    at = next(number for number, each in enumerate(expected) if "|" in each["tags"])
    page = server.client.post("/", data={"post": TEXTS[at]}).text
    for tag in expected[at]["tags"].split("|"):
        assert f"<strong>{tag}</strong>" in page
    assert page.count("<strong>") == expected[at]["tags"].count("|") + 1
    assert f"Words that speak for {expected[at]['tag']}" in page


def test_recorded_answers_feedback_and_a_shadow_are_of_all_tags(server, store, expected):
    inputs = [{"name": "post", "shape": [1], "datatype": "BYTES", "data": TEXTS[:1]}]
    assert "Tagger-Id" in server.client.post(INFER, json={"inputs": inputs}).headers
    assert "Tagger-Id" in server.client.post(f"{MODEL}:classify", json={"examples": [{"post": TEXTS[0]}]}).headers
    with grpc.insecure_channel(server.grpc) as channel:
        predict_request = PredictRequest()
        predict_request.model_spec.name = "stackoverflow_tagger"
        predict_request.inputs["post"].CopyFrom(tf.make_tensor_proto([TEXTS[0].encode()]))
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        _, call = stub.Predict.with_call(predict_request)
        name = dict(call.trailing_metadata())["tagger-id"]
    assert (
        server.client.post("/v1/feedback", json={"id": name, "tag": "java"}).json()["predicted"] == expected[0]["tags"]
    )
    answered = server.client.post(f"{MODEL}:predict", json={"instances": TEXTS[:3]})
    request = answered.headers["Tagger-Id"]
    told = server.client.post("/v1/feedback", json={"id": f"{request}.1", "tag": "java|python"}).json()
    assert (told["tag"], told["predicted"]) == ("java|python", expected[1]["tags"])
    wait_for("the feedback is written", lambda: list(store.names(feedback.TAGGED)))
    rows = feedback.asked(store, request.partition("-")[0])
    assert {row["predicted"] for row in rows if row["id"].startswith(f"{request}.")} == {
        each["tags"] for each in expected[:3]
    }
    metrics = server.client.get("/metrics").text
    assert 'tagger_shadow_posts_total{result="same"}' in metrics
    assert 'tagger_shadow_posts_total{result="other"} 0.0' in metrics


def test_a_version_whose_thresholds_do_not_fit_is_not_served(store, tmp_path):
    from pipeline.errors import CorruptArtifact
    from pipeline.server.loaded import Loaded

    with model_cache.opened(Registry(store), None) as model:
        shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model/assets.extra/thresholds.json"
    file.write_text(json.dumps(json.loads(file.read_text())[1:]))
    with pytest.raises(CorruptArtifact, match="its answers are not probabilities"):
        Loaded.open(tmp_path / "model", 7)
