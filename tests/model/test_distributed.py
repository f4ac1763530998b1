"""A cluster of a parameter server, a worker, a chief and an evaluator, each a `tagger` process on this machine."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from pipeline.model import distributed, network
from pipeline.run.cluster_worker import FOR_EVALUATOR
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.tf_config import CHIEF, PS, Place
from tests.conftest import CREATED, REAL_POSTS, files_of, free_port

KINDS = ("ps", "worker", "evaluator", "chief")
SOURCE = str(REAL_POSTS) if REAL_POSTS.exists() else "sample://posts?rows=16000&seed=0"
ENOUGH = 300
"""Seconds within which processes must have ended by themselves."""

TAGGER = (str(Path(sys.executable).with_name("tagger")),)
IMPATIENT = (sys.executable, "-c", "from pipeline import cli, tf_config; tf_config.LOST = 5.0; cli.main()")
"""`tagger` that gives another process up after five seconds, not after a minute."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that one process trained."""
    run = Run(Store(str(tmp_path_factory.mktemp("cluster") / "store")), "alone")
    run.begin(Settings.of({"source": SOURCE, "train_fraction": 0.5, "checkpoint_steps": 60}), CREATED)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"):
        run_stage(stage, run)
    return run


@pytest.fixture(scope="module")
def logs(alone):
    """The output of each process of a cluster that trains the same vectors, as run `together`."""
    run = Run(alone.store, "together")
    run.begin(alone.existing().settings, CREATED)
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        run_stage(stage, run)
    cluster = {kind: [f"127.0.0.1:{free_port()}"] for kind in KINDS if kind != "evaluator"}
    processes = {kind: start(run, kind, cluster) for kind in KINDS}
    try:
        said = {kind: process.communicate(timeout=ENOUGH)[0] for kind, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    assert {kind: process.returncode for kind, process in processes.items()} == dict.fromkeys(KINDS, 0), said
    return said


def start(run, kind, cluster, tagger=TAGGER):
    config = json.dumps({"cluster": cluster, "task": {"type": kind, "index": 0}})
    command = [*tagger, "run", "--store", run.store.url, "--run", run.name, "--from", "train", "--until", "train"]
    environment = os.environ | {"TF_CONFIG": config}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def together(alone, logs):
    return Run(alone.store, "together")


def test_a_cluster_is_as_accurate_as_one_process(alone, together, logs, monkeypatch):
    """Also that evaluate ignores TF_CONFIG, whose cluster no longer exists."""
    monkeypatch.setenv(
        "TF_CONFIG", '{"cluster": {"chief": ["a:1"], "ps": ["b:1"]}, "task": {"type": "chief", "index": 0}}'
    )
    accuracy = run_stage("evaluate", together)["accuracy"]
    assert together.manifest("train").run == "together"
    by_one = alone.manifest("evaluate").summary["accuracy"]
    print(f"accuracy {accuracy:.4f}, of one process {by_one:.4f}")  # noqa: T201
    assert abs(accuracy - by_one) <= 0.02
    measured = re.findall(r"evaluator 0: at step (\d+) accuracy ([\d.]+)", logs["evaluator"])
    assert measured[-1] == (str(together.manifest("train").summary["steps"]), f"{accuracy:.4f}")


def test_each_post_is_trained_on_by_one_process(together, logs):
    sentence = r"trains on its share, ([\d,]+) train posts, row groups (\d) to (\d) by 2: (\d+) of (\d+) steps"
    shares = [
        [int(n.replace(",", "")) for n in re.search(sentence, logs[kind]).groups()] for kind in ("chief", "worker")
    ]
    rows, firsts, lasts, own, steps = zip(*shares, strict=True)
    assert (rows, firsts, lasts) == ((4096, 3904), (0, 1), (6, 7))
    assert sum(own) == steps[0] == steps[1] == together.manifest("train").summary["steps"]


def test_only_the_chief_writes_results(alone, together):
    manifest = together.manifest("train")
    assert together.store.names("runs/together/train") == [manifest.attempt, "manifest.json"]
    inputs = ("fit_vocabulary", "vectorize")
    assert manifest.inputs == {name: alone.manifest(name).digest for name in inputs}
    assert {name for name in manifest.files if name.endswith(".index")} == {
        f"model/model.ckpt-{manifest.summary['steps']}.index"
    }
    assert not [name for name in files_of(Path(together.store.url)) if name.endswith(".writing")]


def test_the_chief_writes_and_reads_checkpoints_itself(tmp_path):
    """By default each parameter server would write its variables to its own disk."""
    place = Place(CHIEF, 0, {CHIEF: ["127.0.0.1:1"], PS: ["127.0.0.1:2"]})
    settings = Settings(vocabulary_size=4, hidden_units=3)
    estimator = distributed._estimator(distributed._Job(tmp_path, tmp_path, settings, 2, place))
    with tf.Graph().as_default() as graph, graph.device(estimator._device_fn):
        estimator._create_and_assert_global_step(graph)
        feed = tf.compat.v1.sparse_placeholder(tf.float32, [None, 4])
        labels = tf.compat.v1.placeholder(tf.float32, [None, 2])
        spec = estimator.model_fn(network.features(feed), labels, tf.estimator.ModeKeys.TRAIN, estimator.config)
    prefix = spec.scaffold.saver.saver_def.save_tensor_name.rpartition("/")[0]
    nodes = graph.as_graph_def().node
    devices = {
        node.device
        for node in nodes
        if node.op in {"SaveV2", "RestoreV2", "MergeV2Checkpoints"} and node.name.startswith(f"{prefix}/")
    }
    assert {device.partition("/task")[0] for device in devices} == {"/job:chief"}
    weights = {node.device.partition("/task")[0] for node in nodes if node.op == "VarHandleOp"}
    assert "/job:ps" in weights


@pytest.mark.parametrize("lost", ["ps", "chief"])
def test_if_one_process_is_killed_the_others_fail_and_nothing_is_committed(lost, tmp_path):
    """It is killed during training, which has more epochs than the test has time for."""
    run = Run(Store(str(tmp_path / "store")), "cut")
    run.begin(Settings.of({"source": "sample://posts?rows=4000", "epochs": 1000, "checkpoint_steps": 20}), CREATED)
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        run_stage(stage, run)
    cluster = {kind: [f"127.0.0.1:{free_port()}"] for kind in ("ps", "worker", "chief")}
    processes = {kind: start(run, kind, cluster, IMPATIENT) for kind in cluster}
    try:
        end = time.monotonic() + ENOUGH
        while not run.store.read(f"{run.path}/train/{FOR_EVALUATOR}.json"):
            assert time.monotonic() < end
            assert not any(process.poll() for process in processes.values())
            time.sleep(0.1)
        processes[lost].kill()
        said = {kind: process.communicate(timeout=ENOUGH)[0] for kind, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    del said[lost]
    assert {kind: processes[kind].returncode for kind in said} == dict.fromkeys(said, 1), said
    for text in said.values():
        assert (
            len(re.findall("start all (?:processes of the cluster|of them) again$", text, flags=re.MULTILINE)) == 1
        ), text
        assert "Traceback" not in text
    assert run.manifest("train") is None
    assert run.store.names("runs/cut/train") == ["shards"]
