import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pipeline import posts
from pipeline.errors import TaggerError
from pipeline.settings import Settings
from pipeline.stages import evaluate


@pytest.fixture
def evaluation(finished_run, tmp_path):
    finished_run.fetch(finished_run.manifest("evaluate"), tmp_path / "evaluate")
    return tmp_path / "evaluate"


def test_the_report_is_that_of_the_predictions(evaluation):
    report = json.loads((evaluation / "evaluation.json").read_text())
    rows = [row for batch in posts.batches(evaluation, "predictions") for row in batch.to_pylist()]
    true, predicted = ([row[name] for row in rows] for name in ("label", "predicted"))
    assert len(rows) == report["rows"] == 400
    assert report["accuracy"] == pytest.approx(accuracy_score(true, predicted), abs=1e-6)
    assert report["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"), abs=1e-6)
    assert predicted == [int(np.argmax(row["probabilities"])) for row in rows]
    assert (report["verdict"], report["thresholds"], report["reasons"]) == ("passed", {"min_accuracy": 0.8}, [])
    assert sum(tag["support"] for tag in report["per_tag"].values()) == 400
    assert 0.05 <= report["accuracy_of_the_commonest_tag"] < report["accuracy"]


def test_five_predictions_stand_beside_the_true_tags(evaluation):
    examples = json.loads((evaluation / "evaluation.json").read_text())["examples"]
    assert [example["row"] for example in examples] == [1601, 1602, 1603, 1604, 1605]
    assert all(example["post"] and 0 < example["probability"] <= 1 for example in examples)
    assert any(example["tag"] == example["predicted"] for example in examples)


def test_the_confusion_matrix_is_a_picture(evaluation):
    assert (evaluation / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("accuracy", "threshold", "refused"),
    [(0.8, 0.8, False), (0.79999, 0.8, True), (1.0, None, True), (0.0, 0.0, False)],
)
def test_the_gate(accuracy, threshold, refused):
    reasons = evaluate._objections(accuracy, Settings(min_accuracy=threshold))
    assert bool(reasons) == refused
    if refused and threshold:
        assert f"{accuracy:.4f}" in reasons[0]
        assert str(threshold) in reasons[0]


def test_an_accuracy_that_its_predictions_do_not_bear_out_is_refused(finished_run, tmp_path, monkeypatch):
    inputs = {}
    for name in ("ingest", "fit_vocabulary", "vectorize", "train"):
        finished_run.fetch(finished_run.manifest(name), tmp_path / name)
        inputs[name] = tmp_path / name
    measure = evaluate._measure
    monkeypatch.setattr(evaluate, "_measure", lambda *arguments: measure(*arguments) | {"accuracy": 0.99})
    (tmp_path / "out").mkdir()
    with pytest.raises(TaggerError, match=r"the Estimator evaluates to accuracy 0\.990000, its predictions to"):
        evaluate.run(inputs, tmp_path / "out", finished_run.existing().settings)
