"""A process of a cluster that is not its chief: what it refuses to do, and how it ends when the others are lost."""

import socket
import subprocess
import sys

import pytest

from pipeline import tf_config
from pipeline.errors import BadInput, Unavailable
from pipeline.run import cache_keys, cluster_worker
from pipeline.run.runner import run_stage
from pipeline.run.work import Work
from pipeline.store.runs import Run
from pipeline.tf_config import Place
from tests.conftest import free_port
from tests.test_tf_config import CLUSTER, config


def through_vectorize(run: Run) -> Run:
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        run_stage(stage, run)
    return run


def test_a_port_in_use_is_reported_before_training(new_run, monkeypatch):
    run = through_vectorize(new_run())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", config(chief=[f"127.0.0.1:{port}"], ps=["127.0.0.1:1"]))
        with pytest.raises(Unavailable, match=rf"chief 0 cannot listen on 127.0.0.1:{port} \(Address already in use\)"):
            run_stage("train", run)
    assert run.store.names("runs/a/train") == []


@pytest.mark.parametrize("kind", ["worker", "ps", "evaluator"])
def test_only_the_chief_does_other_stages_than_train(new_run, monkeypatch, kind):
    monkeypatch.setenv("TF_CONFIG", config(kind))
    with pytest.raises(BadInput, match=rf"{kind} 0 of a cluster, which takes part in train only"):
        run_stage("ingest", new_run())


def test_more_processes_than_row_groups_are_refused(new_run, monkeypatch):
    run = through_vectorize(new_run())
    monkeypatch.setenv("TF_CONFIG", config("worker", **CLUSTER | {"worker": [f"127.0.0.1:{free_port()}"]}))
    with pytest.raises(BadInput, match=r"1 row groups of 1,024 train posts are too few for the chief and 1 workers"):
        run_stage("train", run)
    assert run.store.names("runs/a/train") == []


def test_the_size_of_the_cluster_is_part_of_the_cache_key(new_run, monkeypatch):
    run = through_vectorize(new_run())

    def key():
        return cache_keys.of(Work.of("train", run))

    alone = key()
    monkeypatch.setenv("TF_CONFIG", config())
    three = key()
    monkeypatch.setenv("TF_CONFIG", config("ps"))
    assert key() == three != alone
    monkeypatch.setenv("TF_CONFIG", config(**CLUSTER | {"worker": ["b:1"]}))
    assert key() not in (three, alone)


def test_it_works_until_the_chief_has_committed_the_stage(new_run, monkeypatch, tmp_path):
    """That its inputs are complete is not the end of its work."""
    run = through_vectorize(new_run())
    child = "import sys, time; sys.stdin.readline(); time.sleep(300)"
    popen, answers = subprocess.Popen, []
    monkeypatch.setattr(
        cluster_worker.subprocess, "Popen", lambda command, **options: popen([sys.executable, "-c", child], **options)
    )

    def attend(child, place, is_over):
        answers.append(is_over())
        run.commit("train", tmp_path / "inputs", inputs={}, summary={"rows": 1}, seconds=1, peak_mib=None)
        answers.append(is_over())

    monkeypatch.setattr(cluster_worker, "_attend", attend)
    place = Place.of(config("worker", **CLUSTER | {"worker": [f"127.0.0.1:{free_port()}"]}))
    cluster_worker.take_part(Work.of("train", run), place, tmp_path)
    assert answers == [False, True]


@pytest.fixture
def child():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_chief_that_never_comes_is_reported(child, monkeypatch):
    monkeypatch.setattr(tf_config, "LONGEST_WAIT", 0.0)
    place = Place.of(config("ps", chief=[f"127.0.0.1:{free_port()}"], ps=["127.0.0.1:1"]))
    with pytest.raises(Unavailable, match=r"ps 0: the chief at .* does not answer"):
        cluster_worker._attend(child, place, lambda: False)


def test_a_chief_that_is_lost_is_reported(child, monkeypatch):
    monkeypatch.setattr(tf_config, "LOST", 0.0)
    monkeypatch.setattr(tf_config, "POLL", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as chief:
        place = Place.of(config("ps", chief=[f"127.0.0.1:{chief.getsockname()[1]}"], ps=["127.0.0.1:1"]))
        looks = iter([chief.listen, chief.listen, chief.close])

        def is_over():
            next(looks, lambda: None)()
            return False

        with pytest.raises(Unavailable, match=r"ps 0: the chief at .* does not answer"):
            cluster_worker._attend(child, place, is_over)


@pytest.mark.parametrize(("kind", "status"), [("chief", 1), ("worker", 1), ("ps", 0), ("evaluator", 0)])
def test_a_process_that_trains_ends_without_its_parameter_server(kind, status):
    place = config(kind, **CLUSTER | {"ps": [f"127.0.0.1:{free_port()}"]})
    code = f"""
import time
from pipeline import tf_config
from pipeline.model import distributed
tf_config.LONGEST_WAIT, tf_config.POLL = 0.0, 0.01
with distributed._exit_without_servers(tf_config.Place.of({place!r})):
    time.sleep({300 if status else 1})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("a parameter server does not answer" in done.stderr) == bool(status)
