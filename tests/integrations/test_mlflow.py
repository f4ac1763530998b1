"""Runs copied to MLflow, read back from its own store; and runs that go on where it cannot be reached."""

import pytest
from mlflow import MlflowClient

from pipeline.errors import GateNotPassed
from pipeline.integrations.mlflow import EXPERIMENT, URI
from pipeline.run.runner import run_stage
from pipeline.stages.plan import STAGES
from tests.conftest import free_port


@pytest.fixture
def client(monkeypatch, tmp_path):
    """A client of an MLflow store in a folder, to which runs are copied."""
    monkeypatch.setenv(URI, f"file://{tmp_path}/mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient()


def copied(client):
    [found] = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    return found


def test_a_published_run_is_copied_once_with_all_of_it(client, new_run):
    run = new_run(epochs=5, min_accuracy=0)
    for stage in STAGES:
        run_stage(stage, run)
    there, evaluated = copied(client), run.manifest("evaluate").summary
    assert there.info.run_name == "a"
    assert there.info.status == "FINISHED"
    assert there.data.params["epochs"] == "5"
    assert there.data.metrics["accuracy"] == evaluated["accuracy"]
    assert there.data.tags["tagger.version"] == str(run.existing().first_version)
    assert there.data.tags["tagger.verdict"] == "passed"
    history = client.get_metric_history(there.info.run_id, "epoch/training_loss")
    curve = run.manifest("train").summary["curve"]
    assert [(point.step, point.value) for point in history] == [
        (each["epoch"], each["training_loss"]) for each in curve
    ]
    assert [file.path for file in client.list_artifacts(there.info.run_id)] == ["report.html"]


def test_a_refused_run_is_copied_with_the_reason(client, new_run):
    run = new_run(min_accuracy=1.0, epochs=1)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
        run_stage(stage, run)
    with pytest.raises(GateNotPassed):
        run_stage("evaluate", run)
    there = copied(client)
    assert there.info.status == "FAILED"
    assert there.data.tags["tagger.refused"] == run.refusal().why
    assert there.data.metrics["accuracy"] == run.manifest("evaluate").summary["accuracy"]


def test_a_server_that_is_gone_is_a_warning_and_the_run_goes_on(new_run, monkeypatch, caplog):
    monkeypatch.setenv(URI, f"http://127.0.0.1:{free_port()}")
    run = new_run()
    for stage in STAGES:
        run_stage(stage, run)
    assert caplog.text.count("run a is not copied to MLflow (MLFLOW_TRACKING_URI)") == 2
    assert run.manifest("export") is not None


def test_without_the_variable_mlflow_is_not_even_imported(new_run, monkeypatch):
    monkeypatch.delenv(URI, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    run = new_run()
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"):
        run_stage(stage, run)
