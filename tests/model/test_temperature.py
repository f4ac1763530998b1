"""Temperatures that are fitted, and folded into a checkpoint."""

import shutil

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from pipeline.data import posts
from pipeline.files import digest
from pipeline.model import evaluation, input_fn, network, temperature
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED

VALUES = {
    "source": "sample://posts?rows=1500&seed=3",
    "validation_fraction": 0.2,
    "vocabulary_size": 300,
    "hidden_units": 16,
    "epochs": 25,
    "learning_rate": 0.02,
}
TAGS = 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train an overfitted network with each of some settings: the folders of its stages, and the summary of train."""
    store = Store(str(tmp_path_factory.mktemp("temperature") / "store"))
    done = {}
    for name, changed in {"plain": {}, "fitted": {"fit_temperature": True}, "given": {"temperature": 2}}.items():
        folder = tmp_path_factory.mktemp(name)
        run = Run(store, name)
        run.begin(Settings.of(VALUES | changed), CREATED)
        for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
            run_stage(stage, run)
        for stage in ("vectorize", "train"):
            run.files.fetch(run.manifest(stage), folder / stage)
        done[name] = folder, run.manifest("train").summary
    return done


def logits_and_labels(folder):
    """The logarithms of a network's probabilities on the test posts, which are its logits but for a sum, and labels."""
    answers = []
    feed = input_fn.testing(folder / "vectorize", columns=VALUES["vocabulary_size"], tags=TAGS)
    with network.trained(folder / "train" / "model", Settings.of(VALUES), TAGS) as estimator:
        evaluation.evaluate(estimator, feed, answers.append)
    labels = [label for batch in posts.batches(folder / "vectorize", "test") for label in batch["label"].to_pylist()]
    return np.log(np.concatenate(answers)), np.array(labels)


@pytest.mark.parametrize("real", [0.3, 1.7, 4.0])
def test_the_temperature_that_made_the_labels_is_found(real):
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 3, (20_000, 5))
    labels = (softmax(logits / real, axis=1).cumsum(axis=1) > draw.random((20_000, 1))).argmax(axis=1)
    assert temperature.fit(logits, labels) == pytest.approx(real, rel=0.05)


def test_where_no_temperature_is_better_it_is_one():
    assert temperature.fit(np.zeros((10, 3)), np.zeros(10, int)) == 1


def test_the_measure_by_hand():
    logits = np.log([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6]])
    wanted = {
        "loss": pytest.approx(-np.log([0.8, 0.2, 0.6]).mean(), abs=1e-6),
        "calibration_error": pytest.approx((0.6 + 0.4) / 3, abs=1e-6),
    }
    assert temperature.measure(logits, np.array([0, 1, 1])) == wanted


def test_the_network_is_less_sure_and_has_the_same_tags(trained):
    (plain, before), (fitted, after) = trained["plain"], trained["fitted"]
    assert (before["temperature"], before["calibration"]) == (1, None)
    assert after["temperature"] > 1.2, "it was trained for too long"
    assert after["curve"] == before["curve"]
    logits, labels = logits_and_labels(plain)
    scaled, _ = logits_and_labels(fitted)
    np.testing.assert_allclose(scaled, log_softmax(logits / after["temperature"], axis=1), atol=1e-4)
    assert temperature.measure(scaled, labels)["loss"] < temperature.measure(logits, labels)["loss"]


def test_the_summary_says_what_it_changes_on_the_validation_posts(trained):
    _, summary = trained["fitted"]
    found = summary["calibration"]
    assert found["without"]["loss"] == pytest.approx(summary["curve"][-1]["loss"], abs=1e-6)
    assert found["with"]["loss"] < found["without"]["loss"]
    assert found["with"]["calibration_error"] != found["without"]["calibration_error"]


def test_a_temperature_that_is_given_is_used_as_it_is(trained):
    (plain, _), (given, summary) = trained["plain"], trained["given"]
    assert (summary["temperature"], summary["calibration"]) == (2, None)
    logits, _ = logits_and_labels(plain)
    np.testing.assert_allclose(logits_and_labels(given)[0], log_softmax(logits / 2, axis=1), atol=1e-4)


def test_a_temperature_of_one_changes_no_byte(trained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained["plain"][0] / "train" / "model", model)
    before = {file.name: digest(file) for file in model.iterdir()}
    temperature.fold(model, 1)
    assert {file.name: digest(file) for file in model.iterdir()} == before
    temperature.fold(model, 2)
    assert {file.name for file in model.glob("*.index")} == {name for name in before if name.endswith(".index")}
    assert {file.name: digest(file) for file in model.iterdir()} != before


def test_the_same_settings_make_the_same_bytes(trained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained["plain"][0] / "train" / "model", model)
    temperature.fold(model, trained["fitted"][1]["temperature"])
    for file in (trained["fitted"][0] / "train" / "model").glob("model.ckpt*"):
        assert digest(file) == digest(model / file.name)
