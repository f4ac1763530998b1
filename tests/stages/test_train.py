import logging
from pathlib import Path

import pytest

from pipeline.errors import TrainingFailed
from pipeline.execution.runner import run_stage
from pipeline.model import training
from pipeline.store.runs import Run


@pytest.fixture
def vectorized_run(new_run):
    def through(**values):
        run = new_run(**values)
        for stage in ("ingest", "fit_vocabulary", "vectorize"):
            run_stage(stage, run)
        return run

    return through


def test_training_counts_its_steps_and_leaves_one_checkpoint_and_its_events(vectorized_run):
    run = vectorized_run(epochs=3)
    summary = run_stage("train", run)
    assert (summary["rows"], summary["steps"]) == (6, 9)
    files = run.manifest("train").files
    assert {name for name in files if name.endswith(".index")} == {"model/model.ckpt-9.index"}
    assert any("tfevents" in name for name in files)


def test_a_loss_that_is_no_number_is_refused(vectorized_run):
    run = vectorized_run(learning_rate=1e38)
    with pytest.raises(TrainingFailed, match="the network diverged; lower learning_rate"):
        run_stage("train", run)
    assert run.manifest("train") is None


def test_a_step_that_is_not_the_datas_is_refused(vectorized_run, tmp_path):
    """A model_dir that was trained for longer has a checkpoint beyond the steps asked for."""
    run = vectorized_run(epochs=1)
    run.fetch(run.manifest("vectorize"), tmp_path / "vectors")
    settings = run.existing().settings
    training.train(tmp_path / "vectors", tmp_path / "model", settings.model_copy(update={"epochs": 2}), 2)
    with pytest.raises(TrainingFailed, match="global_step is 6 after training where 6 posts make 3"):
        training.train(tmp_path / "vectors", tmp_path / "model", settings, 2)


class Killed(BaseException):
    """As little to be caught as SIGKILL."""


@pytest.fixture
def killed_at_step_6(vectorized_run, monkeypatch):
    """A run whose train was cut off after the checkpoint of step 6 of 12 had reached the store."""
    run = vectorized_run(epochs=4, checkpoint_steps=2)
    keep = Run.keep

    def keep_and_die(self, stage, name, folder, inputs):
        keep(self, stage, name, folder, inputs)
        if training.step_of(folder) == 6:
            raise Killed

    monkeypatch.setattr(Run, "keep", keep_and_die)
    with pytest.raises(Killed):
        run_stage("train", run)
    monkeypatch.undo()
    assert run.manifest("train") is None
    return run


def test_a_retry_goes_on_from_the_last_checkpoint_and_ends_as_if_never_cut_off(
    killed_at_step_6, vectorized_run, caplog
):
    with caplog.at_level(logging.INFO):
        resumed = run_stage("train", killed_at_step_6)
    assert "going on from step 6 of 12, where an earlier try was" in caplog.messages
    whole = run_stage("train", vectorized_run(name="whole", epochs=4, checkpoint_steps=2, reuse=False))
    assert (resumed["resumed_from_step"], whole["resumed_from_step"]) == (6, 0)
    assert (resumed["steps"], resumed["checkpoint"]) == (whole["steps"], whole["checkpoint"])
    assert killed_at_step_6.store.names("runs/a/train") == [killed_at_step_6.manifest("train").attempt, "manifest.json"]


def test_a_checkpoint_of_other_vectors_is_not_gone_on_with(killed_at_step_6):
    run_stage("ingest", killed_at_step_6)
    manifest = killed_at_step_6.manifest("vectorize")
    killed_at_step_6.commit(
        "vectorize",
        copied(killed_at_step_6, manifest),
        inputs={name: killed_at_step_6.manifest(name) for name in manifest.inputs},
        summary=manifest.summary,
        seconds=1,
        peak_mib=None,
    )
    assert run_stage("train", killed_at_step_6)["resumed_from_step"] == 0


def copied(run, manifest):
    """The stage's files with one more among them."""
    folder = Path(run.store.url).parent / "copied"
    run.fetch(manifest, folder)
    (folder / "more").write_text("")
    return folder


def test_a_damaged_checkpoint_is_not_gone_on_with(killed_at_step_6, caplog):
    (index,) = Path(killed_at_step_6.store.url).glob("runs/a/train/partial/*/model.ckpt-6.index")
    index.write_bytes(b"?")
    assert run_stage("train", killed_at_step_6)["resumed_from_step"] == 0
    assert any(message.startswith("train begins anew: ") for message in caplog.messages)


def test_seeds_make_models(vectorized_run):
    checkpoints = [
        run_stage("train", vectorized_run(name=str(n), seed=n // 2, epochs=2, reuse=False))["checkpoint"]
        for n in range(3)
    ]
    assert checkpoints[0] == checkpoints[1] != checkpoints[2]
