"""What TF_CONFIG may say, what is refused, and how a process of a cluster ends when it is left alone."""

import json
import socket
import subprocess
import sys

import pytest

from pipeline import tf_config
from pipeline.errors import BadInput, Unavailable
from pipeline.execution import cache
from pipeline.execution.runner import run_stage
from pipeline.store.runs import Run
from pipeline.tf_config import Place

ENOUGH = 300
"""Seconds after which something did not end by itself."""

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
def test_one_process_trains_as_without_tf_config(text):
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
        ("[]", "is not an object whose cluster gives lists of host:port"),
        ('{"cluster": {"chief": "a:1"}}', "is not an object whose cluster gives lists of host:port"),
        ('{"cluster": {"chief": ["a"], "ps": ["b:1"]}}', "is not an object whose cluster gives lists of host:port"),
        (json.dumps({"cluster": CLUSTER}), "names a cluster and no task"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "ps"}}), "names a cluster and no task"),
        (config("master"), "no process is of type 'master': the types are chief, worker, ps, evaluator"),
        (config(master=["a:1"], ps=["b:1"], worker=["c:1"]), "no process is of type 'master'"),
        (config("worker", worker=["a:1", "b:1"]), "cluster of MultiWorkerMirroredStrategy: its collective operations"),
        (config(chief=["a:1"], worker=["b:1"]), "cluster of MultiWorkerMirroredStrategy"),
        (config("worker", worker=["a:1"], ps=["b:1"]), "without its one chief"),
        (config(chief=["a:1", "a:2"], ps=["b:1"]), "without its one chief"),
        (config("worker", 2), "this process is worker 2, which its cluster does not name"),
        (config("ps", -1), "this process is ps -1, which its cluster does not name"),
        (config("evaluator", chief=["a:1"]), "evaluator 0 beside a chief that trains alone, which keeps no"),
        (config("evaluator", worker=["a:1"]), "MultiWorkerMirroredStrategy"),
        (config("worker", chief=["a:1"]), "this process is worker 0, which its cluster does not name"),
        (config("chief", worker=["a:1"]), "MultiWorkerMirroredStrategy"),
        (config("ps", chief=["a:1"]), "this process is ps 0, which its cluster does not name"),
        (config("ps", ps=["a:1"]), "without its one chief"),
        (config("chief", 1, chief=["a:1"]), "this process is chief 1, which its cluster does not name"),
        (config(chief=["a:1"], master=["b:1"]), "no process is of type 'master'"),
        (json.dumps({"cluster": {"chief": ["a:1"]}}), "names a cluster and no task"),
    ],
)
def test_what_it_cannot_mean_is_refused(text, refusal):
    with pytest.raises(BadInput, match=refusal):
        Place.of(text)


def test_a_port_that_is_taken_is_said_before_anything_is_trained(new_run, monkeypatch):
    run = through_vectorize(new_run())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", config(chief=[f"127.0.0.1:{port}"], ps=["127.0.0.1:1"]))
        with pytest.raises(Unavailable, match=rf"chief 0 cannot listen on 127.0.0.1:{port} \(Address already in use\)"):
            run_stage("train", run)
    assert run.store.names("runs/a/train") == []


@pytest.mark.parametrize("kind", ["worker", "ps", "evaluator"])
def test_only_train_is_for_others_than_the_chief(new_run, monkeypatch, kind):
    monkeypatch.setenv("TF_CONFIG", config(kind))
    with pytest.raises(BadInput, match=rf"{kind} 0 of a cluster, which takes part in train only"):
        run_stage("ingest", new_run())


def test_more_processes_than_row_groups_are_refused(new_run, monkeypatch):
    run = through_vectorize(new_run())
    monkeypatch.setenv("TF_CONFIG", config("worker", **CLUSTER | {"worker": [f"127.0.0.1:{free_port()}"]}))
    with pytest.raises(BadInput, match=r"1 row groups of 1,024 train posts are too few for the chief and 1 workers"):
        run_stage("train", run)
    assert run.store.names("runs/a/train") == []


def test_what_a_cluster_trains_is_not_taken_for_what_one_process_trains(new_run, monkeypatch):
    run = through_vectorize(new_run())

    def key():
        return cache.keys(run, "train", {name: run.manifest(name) for name in ("vectorize",)}, run.existing().settings)

    alone = key()
    monkeypatch.setenv("TF_CONFIG", config())
    three = key()
    monkeypatch.setenv("TF_CONFIG", config("ps"))
    assert key() == three != alone
    monkeypatch.setenv("TF_CONFIG", config(**CLUSTER | {"worker": ["b:1"]}))
    assert key() not in (three, alone)


@pytest.fixture
def child():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_process_without_its_chief_does_not_wait_for_ever(child, monkeypatch):
    monkeypatch.setattr(tf_config, "PATIENCE", 0.0)
    place = Place.of(config("ps", chief=[f"127.0.0.1:{free_port()}"], ps=["127.0.0.1:1"]))
    with pytest.raises(Unavailable, match=r"ps 0: the chief at .* does not answer"):
        tf_config.attend(child, place, lambda: False)


def test_a_chief_that_was_there_and_is_gone_is_missed(child, monkeypatch):
    monkeypatch.setattr(tf_config, "LOST", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as chief:
        place = Place.of(config("ps", chief=[f"127.0.0.1:{chief.getsockname()[1]}"], ps=["127.0.0.1:1"]))
        asked = iter([chief.listen, chief.listen, chief.close])

        def over():
            next(asked, lambda: None)()
            return False

        with pytest.raises(Unavailable, match=r"ps 0: the chief at .* does not answer"):
            tf_config.attend(child, place, over)


@pytest.mark.parametrize(("kind", "status"), [("chief", 1), ("worker", 1), ("ps", 0), ("evaluator", 0)])
def test_who_trains_does_not_wait_for_ever_for_the_weights(kind, status):
    place = config(kind, **CLUSTER | {"ps": [f"127.0.0.1:{free_port()}"]})
    code = f"""
import time
from pipeline import tf_config
tf_config.PATIENCE, tf_config.POLL = 0.0, 0.01
with tf_config.servers_missed(tf_config.Place.of({place!r})):
    time.sleep({ENOUGH if status else 1})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("a parameter server does not answer" in done.stderr) == bool(status)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def through_vectorize(run: Run) -> Run:
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        run_stage(stage, run)
    return run
