"""What TF_CONFIG may contain, and what is refused."""

import json

import pytest

from pipeline.errors import BadInput
from pipeline.tf_config import Place

CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "b:2"], "ps": ["c:1"]}


def config(kind="chief", index=0, **addresses):
    return json.dumps({"cluster": addresses or CLUSTER, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"cluster": {}}',
        '{"task": {"type": "worker", "index": 0}}',
        config(chief=["a:1"]),
        config("worker", worker=["a:1"]),
    ],
)
def test_a_cluster_of_one_process_is_none(text):
    assert Place.of(text) is None


@pytest.mark.parametrize(
    ("text", "leads", "rank"),
    [
        (config(), True, 0),
        (config("worker", 1), False, 2),
        (json.dumps(json.loads(config("worker")) | {"environment": "cloud", "rpc_layer": "grpc"}), False, 1),
    ],
)
def test_chief_and_workers_are_numbered(text, leads, rank):
    place = Place.of(text)
    assert (place.leads, place.rank, place.trainers) == (leads, rank, 3)
    assert place.size == {"chief": 1, "worker": 2, "ps": 1}
    assert set(json.loads(place.config)) == {"cluster", "task"}


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("{", "TF_CONFIG is not JSON"),
        ("[]", "must be an object whose cluster lists the host:port"),
        ('{"cluster": {"chief": "a:1"}}', "must be an object whose cluster lists the host:port"),
        ('{"cluster": {"chief": ["a"], "ps": ["b:1"]}}', "must be an object whose cluster lists the host:port"),
        (json.dumps({"cluster": CLUSTER}), "names a cluster but no task"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "ps"}}), "names a cluster but no task"),
        (config("master"), "unknown process type 'master': use one of chief, worker, ps, evaluator"),
        (config(master=["a:1"], ps=["b:1"], worker=["c:1"]), "unknown process type 'master'"),
        (config("worker", worker=["a:1", "b:1"]), "workers but no ps, as MultiWorkerMirroredStrategy does"),
        (config(chief=["a:1"], worker=["b:1"]), "as MultiWorkerMirroredStrategy does"),
        (config("worker", worker=["a:1"], ps=["b:1"]), "must name exactly one chief"),
        (config(chief=["a:1", "a:2"], ps=["b:1"]), "must name exactly one chief"),
        (config("worker", 2), "makes this process worker 2, but its cluster has no address for it"),
        (config("ps", -1), "makes this process ps -1, but its cluster has no address for it"),
        (config("evaluator", chief=["a:1"]), "evaluator 0, but the chief trains alone"),
        (config("evaluator", worker=["a:1"]), "MultiWorkerMirroredStrategy"),
        (config("worker", chief=["a:1"]), "makes this process worker 0, but its cluster has no address for it"),
        (config("chief", worker=["a:1"]), "MultiWorkerMirroredStrategy"),
        (config("ps", chief=["a:1"]), "makes this process ps 0, but its cluster has no address for it"),
        (config("ps", ps=["a:1"]), "must name exactly one chief"),
        (config("chief", 1, chief=["a:1"]), "makes this process chief 1, but its cluster has no address for it"),
        (config(chief=["a:1"], master=["b:1"]), "unknown process type 'master'"),
        (json.dumps({"cluster": {"chief": ["a:1"]}}), "names a cluster but no task"),
    ],
)
def test_an_invalid_value_is_refused(text, refusal):
    with pytest.raises(BadInput, match=refusal):
        Place.of(text)
