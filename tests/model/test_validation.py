"""The learning curve on the validation posts, and early stopping."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.data import posts
from pipeline.data.vectors import as_matrix
from pipeline.model import events, input_fn, network, training
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import VALIDATED
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED

VALUES = {
    "source": "sample://posts?rows=1500&seed=3",
    "validation_fraction": 0.2,
    "vocabulary_size": 300,
    "hidden_units": 16,
    "epochs": 12,
    "learning_rate": 0.02,
    "dropout": 0.3,
    "patience": 2,
}
TAGS = 20


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """The vectors of synthetic posts, a fifth of whose train posts validate; the network overfits them soon."""
    run = Run(Store(str(tmp_path_factory.mktemp("validation") / "store")), "a")
    run.begin(Settings.of(VALUES), CREATED)
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        run_stage(stage, run)
    folder = tmp_path_factory.mktemp("vectors")
    run.files.fetch(run.manifest("vectorize"), folder)
    return folder


@pytest.fixture(scope="module")
def stopped(vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    return training.train(vectors, folder / "model", Settings.of(VALUES), TAGS, answers=folder / VALIDATED), folder


def evaluate(vectors, model_dir, side):
    """Accuracy and loss of a checkpoint on one side, by the Estimator itself."""
    settings = Settings.of(VALUES)

    def windows():
        batch = list(posts.batches(vectors, side, input_fn.COLUMNS))
        for each in batch:
            yield as_matrix(each, settings.vocabulary_size), each.column("label").to_numpy()

    with network.trained(model_dir, settings, TAGS) as estimator:
        return estimator.evaluate(lambda: input_fn._dataset(windows, settings.vocabulary_size, TAGS, 4096))


def test_training_stops_where_it_no_longer_improves_and_keeps_the_best_epoch(stopped, vectors):
    result, folder = stopped
    accuracies = [point["accuracy"] for point in result.curve]
    assert result.best_epoch == 1 + int(np.argmax(accuracies))
    assert len(accuracies) == result.best_epoch + VALUES["patience"] < VALUES["epochs"]
    per_epoch = -(-posts.rows(vectors, "train") // 128)
    assert result.steps == len(accuracies) * per_epoch
    assert training.step_of(folder / "model") == result.best_epoch * per_epoch
    assert [path.name for path in folder.glob("model/*.npz")] == []


def test_the_curve_says_what_the_estimator_says(stopped, vectors):
    result, folder = stopped
    measured = evaluate(vectors, folder / "model", "validation")
    best = result.curve[result.best_epoch - 1]
    assert best["accuracy"] == pytest.approx(float(measured["accuracy"]), abs=1e-6)
    assert best["loss"] == pytest.approx(float(measured["loss"]), rel=1e-4)


def test_the_answers_are_those_of_the_best_epoch(stopped, vectors):
    result, folder = stopped
    table = pq.read_table(folder / VALIDATED)
    right = (table["label"].to_numpy() == table["predicted"].to_numpy()).mean()
    assert right == pytest.approx(result.curve[result.best_epoch - 1]["accuracy"], abs=1e-6)
    rows = [row for batch in posts.batches(vectors, "validation") for row in batch.column("row").to_pylist()]
    assert table["row"].to_pylist() == rows


def test_tensorboard_has_the_curve(stopped):
    result, folder = stopped
    _, curve = events.read(folder / "model")
    assert len(curve) == len(result.curve)
    for written, point in zip(curve.values(), result.curve, strict=True):
        assert written == pytest.approx({name: value for name, value in point.items() if name != "epoch"}, rel=1e-6)


def test_a_training_that_was_cut_off_goes_on_with_the_same_curve(stopped, vectors, tmp_path):
    """Also where the best epoch was before the checkpoint. Without dropout, whose random state is not resumed."""
    settings = Settings.of(VALUES | {"dropout": 0, "checkpoint_steps": 9})
    whole = training.train(vectors, tmp_path / "whole", settings, TAGS)
    saved = []

    def save(folder, step):
        saved.append(tmp_path / f"saved{step}")
        folder.rename(saved[-1])
        folder.mkdir()

    training.train(vectors, tmp_path / "cut", settings, TAGS, save=save)
    for at in (1, len(saved) - 1):
        again = training.train(vectors, saved[at], settings, TAGS)
        assert again.resumed_from_step > 0
        assert (again.curve, again.best_epoch) == (whole.curve, whole.best_epoch)
        assert training.checkpoint_digest(saved[at]) == training.checkpoint_digest(tmp_path / "whole")


def test_without_validation_posts_the_curve_is_that_of_the_training(first):
    curve = first.manifest("train").summary["curve"]
    assert [point["epoch"] for point in curve] == list(range(1, 61))
    assert {tuple(point) for point in curve} == {("epoch", "training_loss")}
    assert curve[-1]["training_loss"] < curve[0]["training_loss"]
    assert first.manifest("train").summary["best_epoch"] is None
    assert VALIDATED not in first.manifest("train").files
