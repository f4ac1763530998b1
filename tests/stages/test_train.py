import pytest

from pipeline.errors import TrainingFailed
from pipeline.estimator import training
from pipeline.runner import run_stage


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


def test_a_step_that_does_not_advance_is_refused(vectorized_run, tmp_path):
    """A model_dir that was trained in before goes on from its checkpoint, so the steps are not the data's."""
    run = vectorized_run(epochs=1)
    run.fetch(run.manifest("vectorize"), tmp_path / "vectors")
    settings = run.existing().settings
    training.train(tmp_path / "vectors", tmp_path / "model", settings, 2)
    with pytest.raises(TrainingFailed, match="global_step is 6 after training where 6 posts make 3"):
        training.train(tmp_path / "vectors", tmp_path / "model", settings, 2)


def test_seeds_make_models(vectorized_run):
    checkpoints = [
        run_stage("train", vectorized_run(name=str(n), seed=n // 2, epochs=2))["checkpoint"] for n in range(3)
    ]
    assert checkpoints[0] == checkpoints[1] != checkpoints[2]
