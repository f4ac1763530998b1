import json
import logging
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from pipeline.errors import BadInput, TrainingFailed
from pipeline.model import events, training
from pipeline.registry.registry import Registry
from pipeline.report.facts import Facts, lineage
from pipeline.run.runner import run_stage
from pipeline.store.run_files import RunFiles
from pipeline.store.runs import Run
from tests.conftest import CREATED, small_version


@pytest.fixture
def vectorized_run(new_run):
    def through(**values):
        run = new_run(**values)
        for stage in ("ingest", "fit_vocabulary", "vectorize"):
            run_stage(stage, run)
        return run

    return through


def test_training_counts_its_steps_and_leaves_one_checkpoint_and_its_losses(vectorized_run):
    run = vectorized_run(epochs=3)
    summary = run_stage("train", run)
    assert (summary["rows"], summary["steps"]) == (6, 9)
    files = {name.removeprefix("model/") for name in run.manifest("train").files}
    assert {name for name in files if not name.startswith("model.ckpt-9.data-")} == {
        "checkpoint",
        "model.ckpt-9.index",
        "loss.tfevents",
    }


def test_tensorboard_shows_the_losses(vectorized_run, tmp_path):
    run = vectorized_run(epochs=70)
    summary = run_stage("train", run)
    run.files.fetch(run.manifest("train"), tmp_path / "train")
    board = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "train")).Reload()
    losses = [(event.step, event.tensor_proto.float_val[0]) for event in board.Tensors("model", "loss")]
    assert [step for step, _ in losses] == sorted({*range(10, 211, 10), *range(3, 211, 3)})  # 3 steps an epoch
    assert losses[0][1] > losses[-2][1]
    assert losses[-1][1] == summary["final_loss"]
    assert len(board.Tensors("model", "epoch/training_loss")) == 70


def test_a_loss_that_is_not_a_number_is_refused(vectorized_run):
    run = vectorized_run(learning_rate=1e38)
    with pytest.raises(TrainingFailed, match="the network diverged; lower learning_rate"):
        run_stage("train", run)
    assert run.manifest("train") is None


def test_a_global_step_that_does_not_fit_the_posts_is_refused(vectorized_run, tmp_path):
    """The checkpoint of a longer training is beyond the steps that are required."""
    run = vectorized_run(epochs=1)
    run.files.fetch(run.manifest("vectorize"), tmp_path / "vectors")
    settings = run.existing().settings
    training.train(tmp_path / "vectors", tmp_path / "model", settings.model_copy(update={"epochs": 2}), 2)
    with pytest.raises(TrainingFailed, match="global_step is 6 after training, but 6 posts require 3"):
        training.train(tmp_path / "vectors", tmp_path / "model", settings, 2)


class Killed(BaseException):
    """Like SIGKILL, not caught by `except Exception`."""


@pytest.fixture
def killed_at_step_6(vectorized_run, monkeypatch):
    """A run whose training was killed after the checkpoint of step 6 of 12 was saved to the store."""
    monkeypatch.setattr(events, "EVERY", 2)
    run = vectorized_run(epochs=4, checkpoint_steps=2)
    save = RunFiles.save

    def save_and_die(self, stage, name, folder, inputs):
        save(self, stage, name, folder, inputs)
        if training.step_of(folder) == 6:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunFiles, "save", save_and_die)
        with pytest.raises(Killed):
            run_stage("train", run)
    assert run.manifest("train") is None
    return run


def test_a_retry_resumes_from_the_last_checkpoint_and_gives_the_same_bytes(killed_at_step_6, vectorized_run, caplog):
    with caplog.at_level(logging.INFO):
        resumed = run_stage("train", killed_at_step_6)
    assert "resuming from the checkpoint of step 6 of 12" in caplog.messages
    whole = run_stage("train", vectorized_run(name="whole", epochs=4, checkpoint_steps=2, reuse=False))
    assert (resumed["resumed_from_step"], whole["resumed_from_step"]) == (6, 0)
    assert (resumed["steps"], resumed["checkpoint"]) == (whole["steps"], whole["checkpoint"])
    manifests = [run.manifest("train") for run in (killed_at_step_6, Run(killed_at_step_6.store, "whole"))]
    assert manifests[0].files == manifests[1].files
    assert killed_at_step_6.store.names("runs/a/train") == [killed_at_step_6.manifest("train").attempt, "manifest.json"]


def test_a_checkpoint_of_other_vectors_is_not_resumed(killed_at_step_6):
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
    """A folder with the stage's files and one more."""
    folder = Path(run.store.url).parent / "copied"
    run.files.fetch(manifest, folder)
    (folder / "more").write_text("")
    return folder


def test_a_damaged_checkpoint_is_not_resumed(killed_at_step_6, caplog):
    (index,) = Path(killed_at_step_6.store.url).glob("runs/a/train/checkpoint/*/model.ckpt-6.index")
    index.write_bytes(b"?")
    assert run_stage("train", killed_at_step_6)["resumed_from_step"] == 0
    assert any(message.startswith("train begins again: ") for message in caplog.messages)


def test_the_seed_determines_the_model(vectorized_run):
    checkpoints = [
        run_stage("train", vectorized_run(name=str(n), seed=n // 2, epochs=2, reuse=False))["checkpoint"]
        for n in range(3)
    ]
    assert checkpoints[0] == checkpoints[1] != checkpoints[2]


def test_a_warm_start_begins_with_the_live_models_answers_and_says_so(first):
    """With a learning rate of next to nothing, what was trained is what it began with."""
    settings = first.existing().settings.model_copy(update={"warm_start": "live", "learning_rate": 1e-30, "epochs": 1})
    answers = []
    for name, changed in (("warm", {}), ("cold", {"warm_start": "none"})):
        run = Run(first.store, name)
        run.begin(
            settings.model_copy(update=changed | {"min_accuracy": 0, "max_regression": 1}), CREATED.replace(day=9)
        )
        for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"):
            summary = run_stage(stage, run)
        answers.append((run.manifest("train").summary, summary["accuracy"], summary["loss"], run))
    (warm, accuracy, loss, run), (cold, _, cold_loss, _) = answers
    live = Registry(first.store).live()
    words = run.manifest("fit_vocabulary").summary["words"]
    assert warm["warm_start"] == {"version": live, "words_kept": words, "words_new": 0, "words_lost": 0}
    assert cold["warm_start"] is None
    evaluated = first.manifest("evaluate").summary
    assert (accuracy, loss) == (evaluated["accuracy"], pytest.approx(evaluated["loss"], abs=1e-5))
    assert cold_loss > loss + 0.1
    [row] = [row for row in lineage(Facts.of(run)) if row[0] == "train"]
    assert row[3] == f"fit_vocabulary, vectorize, weights of version {live}"


def test_a_warm_start_is_found_in_the_cache_only_for_the_same_live_version(first):
    def trained_by(name: str, day: int) -> str:
        run = Run(first.store, name)
        run.begin(first.existing().settings.model_copy(update={"warm_start": "live"}), CREATED.replace(day=day))
        for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
            run_stage(stage, run)
        return run.manifest("train").run

    assert (trained_by("a", 9), trained_by("b", 10)) == ("a", "a")
    small_version(first.store, 20260111000000, Path(first.store.url).parent / "small", created=CREATED.replace(day=11))
    with pytest.raises(BadInput, match="cannot be read"):
        trained_by("c", 12)


def test_without_a_live_version_a_warm_start_begins_at_random(vectorized_run):
    assert run_stage("train", vectorized_run(warm_start="live"))["warm_start"] is None


def test_a_cluster_cannot_begin_warm(vectorized_run, monkeypatch):
    run = vectorized_run(warm_start="live")
    cluster = {"cluster": {"chief": ["127.0.0.1:1"], "ps": ["127.0.0.1:2"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(BadInput, match="warm_start=live is for one process"):
        run_stage("train", run)
