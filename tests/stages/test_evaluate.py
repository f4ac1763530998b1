import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pipeline.checks.confusion_matrix import draw
from pipeline.data import held_out, posts
from pipeline.data.learned import FILE, Learned
from pipeline.data.weights import FILE as FILE_OF_WEIGHTS
from pipeline.errors import GateNotPassed, TaggerError
from pipeline.files import read_lines
from pipeline.model import evaluation
from pipeline.registry.registry import Registry
from pipeline.stages import evaluate
from pipeline.stages.answers import figures_by_tag
from tests.conftest import context_of, inputs_of


@pytest.fixture
def evaluated_before(finished_run, tmp_path):
    finished_run.files.fetch(finished_run.manifest("evaluate"), tmp_path / "evaluate")
    return tmp_path / "evaluate"


def test_the_report_agrees_with_the_predictions(evaluated_before):
    report = json.loads((evaluated_before / "evaluation.json").read_text())
    rows = [row for batch in posts.batches(evaluated_before, "predictions") for row in batch.to_pylist()]
    true, predicted = ([row[name] for row in rows] for name in ("label", "predicted"))
    assert len(rows) == report["rows"] == 400
    assert report["accuracy"] == pytest.approx(accuracy_score(true, predicted), abs=1e-6)
    assert report["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"), abs=1e-6)
    assert predicted == [int(np.argmax(row["probabilities"])) for row in rows]
    assert sum(tag["support"] for tag in report["per_tag"].values()) == 400
    assert 0.05 <= report["accuracy_of_the_commonest_tag"] < report["accuracy"]


def test_the_decision_names_its_model_posts_and_thresholds(evaluated_before, finished_run):
    report, decision = (
        json.loads((evaluated_before / name).read_text()) for name in ("evaluation.json", "decision.json")
    )
    assert decision.pop("candidate") == {
        "name": "the candidate",
        "accuracy": report["accuracy"],
        "worst_tag": min(report["per_tag"], key=lambda tag: report["per_tag"][tag]["recall"]),
        "worst_recall": pytest.approx(min(figures["recall"] for figures in report["per_tag"].values()), abs=1e-6),
        "checkpoint": finished_run.manifest("train").summary["checkpoint"],
    }
    assert len(decision.pop("test_posts_sha256")) == 64
    assert decision == {
        "verdict": "passed",
        "action": "publish",
        "reasons": [],
        "warnings": ["no model was live to compare with: this is the first"],
        "thresholds": {
            "min_accuracy": 0.8,
            "min_tag_recall": 0.0,
            "min_macro_f1": 0.0,
            "max_regression": 0.01,
            "min_compared_posts": 200,
            "when_unsure": "keep",
            "retired_tags": None,
            "force": None,
            "force_reason": None,
        },
        "champion": None,
        "comparison": None,
        "champion_recall": None,
        "test_posts": 400,
    }


def test_the_report_shows_five_examples(evaluated_before, finished_run, tmp_path):
    examples = json.loads((evaluated_before / "evaluation.json").read_text())["examples"]
    assert [example["row"] for example in examples] == [1601, 1602, 1603, 1604, 1605]
    answers = next(posts.batches(evaluated_before, "predictions")).slice(0, 5).to_pylist()
    inputs = inputs_of(finished_run, tmp_path / "inputs")
    labels = read_lines(inputs["fit_vocabulary"] / "labels.txt")
    texts = next(posts.batches(inputs["ingest"], "posts/test"))["post"].to_pylist()
    assert [(each["tag"], each["predicted"], each["post"], each["probability"]) for each in examples] == [
        (labels[answer["label"]], labels[answer["predicted"]], text[:200], round(max(answer["probabilities"]), 4))
        for answer, text in zip(answers, texts[:5], strict=True)
    ]


def test_the_confusion_matrix_agrees_with_the_predictions(evaluated_before, tmp_path):
    tags = sorted(json.loads((evaluated_before / "evaluation.json").read_text())["per_tag"])
    rows = [row for batch in posts.batches(evaluated_before, "predictions") for row in batch.to_pylist()]
    counts = np.zeros((len(tags), len(tags)), int)
    for row in rows:
        counts[row["label"], row["predicted"]] += 1
    draw(counts, tags, tmp_path / "drawn.png")
    assert (evaluated_before / "confusion_matrix.png").read_bytes() == (tmp_path / "drawn.png").read_bytes()


def evaluated(inputs, out, settings):
    return evaluate.run(inputs, out, settings, context_of(settings))


@pytest.fixture
def with_champion(finished_run, tmp_path):
    """The inputs of an evaluation where the candidate itself is live already."""
    inputs = inputs_of(finished_run, tmp_path)
    inputs["champion"] = tmp_path / "champion"
    card = Registry(finished_run.store).fetch(None, tmp_path / "champion" / "model")
    (tmp_path / "champion" / "card.json").write_text(json.dumps({"version": card.version, "synthetic": card.synthetic}))
    (tmp_path / "out").mkdir()
    return inputs


def test_the_champion_is_evaluated_on_the_same_posts(with_champion, finished_run, tmp_path):
    """The same model, fed with raw text, tags the same posts correctly."""
    summary = evaluated(with_champion, tmp_path / "out", finished_run.existing().settings)
    comparison = json.loads((tmp_path / "out" / "decision.json").read_text())["comparison"]
    assert (comparison["gained"], comparison["lost"], comparison["difference"]) == (0, 0, 0.0)
    assert comparison["champion"]["accuracy"] == summary.accuracy
    assert (summary.champion, summary.warnings) == (20260105060708, [])


def rename_a_tag_of(champion, new):
    labels = champion / "model" / "assets" / "labels.txt"
    labels.write_text(labels.read_text().replace("python", new))


def test_tags_that_only_one_model_knows_are_not_compared(with_champion, finished_run, tmp_path):
    rename_a_tag_of(with_champion["champion"], "perl")
    settings = finished_run.existing().settings
    with pytest.raises(GateNotPassed, match=r"does not know 1 of the tags of the live model, version \d+: 'perl'; if"):
        evaluated(with_champion, tmp_path / "out", settings)
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    comparison = json.loads((tmp_path / "out" / "decision.json").read_text())["comparison"]
    others = 400 - int(report["per_tag"]["python"]["support"])
    assert (comparison["new_tags"], comparison["lost_tags"]) == (["python"], ["perl"])
    assert comparison["compared"] == others < 400
    assert comparison["lost"] == 0
    assert any(warning.startswith("tag 'python' is new") for warning in report["warnings"])


def test_a_retired_tag_is_no_objection(with_champion, finished_run, tmp_path):
    rename_a_tag_of(with_champion["champion"], "perl")
    settings = finished_run.existing().settings.model_copy(update={"retired_tags": "perl"})
    assert evaluated(with_champion, tmp_path / "out", settings).verdict == "passed"


def test_a_champions_tags_are_escaped_and_shortened(with_champion, finished_run, tmp_path):
    rename_a_tag_of(with_champion["champion"], "\x1b[31m\x85forged" + "x" * 1000)
    with pytest.raises(GateNotPassed, match=r"version \d+: '\\x1b\[31m\\x85forgedx") as caught:
        evaluated(with_champion, tmp_path / "out", finished_run.existing().settings)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_posts_that_the_champion_learned_are_not_compared(with_champion, finished_run, tmp_path):
    """The champion says that it has learned the first 100 test posts."""
    test_posts = pa.Table.from_batches(list(posts.batches(with_champion["ingest"], "posts/test")))
    Learned.of(test_posts.slice(0, 100).to_batches()).write(with_champion["champion"] / "model" / FILE)
    summary = evaluated(with_champion, tmp_path / "out", finished_run.existing().settings)
    assert (summary.rows, summary.compared_posts) == (400, 300)
    assert summary.coverage == "compared on 300 of 400 test posts; the live model had learned the others"
    correct = posts.correct(pa.Table.from_batches(list(posts.batches(tmp_path / "out", "predictions"))))
    assert summary.champion_accuracy == pytest.approx(correct[100:].mean(), abs=1e-6)


def test_posts_that_the_candidate_learned_are_not_compared(with_champion, finished_run, tmp_path):
    """The candidate began from the weights of a model that had learned the first 100 test posts."""
    test_posts = pa.Table.from_batches(list(posts.batches(with_champion["ingest"], "posts/test")))
    Learned.of(test_posts.slice(0, 100).to_batches()).write(with_champion["train"] / FILE)
    settings = finished_run.existing().settings.model_copy(update={"warm_start": "live"})
    summary = evaluated(with_champion, tmp_path / "out", settings)
    assert summary.coverage == (
        "compared on 300 of 400 test posts; left out: 100 of which this model has learned copies"
    )


def test_a_champion_that_learned_all_test_posts_cannot_be_compared(with_champion, finished_run, tmp_path):
    test_posts = posts.batches(with_champion["ingest"], "posts/test")
    Learned.of(test_posts).write(with_champion["champion"] / "model" / FILE)
    with pytest.raises(GateNotPassed, match=r"cannot be told .* compared on 0 of 400 test posts; the live model had"):
        evaluated(with_champion, tmp_path / "out", finished_run.existing().settings)
    decision = json.loads((tmp_path / "out" / "decision.json").read_text())
    assert (decision["verdict"], decision["action"]) == ("cannot tell", "keep")
    assert "difference" not in decision["comparison"]


def test_a_champion_of_an_earlier_release_is_compared_on_all_posts_with_a_warning(
    with_champion, finished_run, tmp_path
):
    (with_champion["champion"] / "model" / FILE).unlink()
    summary = evaluated(with_champion, tmp_path / "out", finished_run.existing().settings)
    assert summary.coverage == (
        "compared on all 400 test posts; it is not known whether the live model had learned some of them"
    )
    assert "does not say all posts that it learned" in summary.warnings[0]


def test_what_the_candidate_learned_is_written(with_champion, finished_run, tmp_path):
    evaluated(with_champion, tmp_path / "out", finished_run.existing().settings)
    learned = Learned.read(tmp_path / "out" / FILE)
    for side, share in (("train", 1), ("test", 0)):
        texts = pa.Table.from_batches(list(posts.batches(with_champion["ingest"], f"posts/{side}")))["post"]
        assert learned.has(texts).mean() == share


LOST = {"force": "incomparable", "force_reason": "it is lost"}


@pytest.mark.parametrize(
    "lost",
    [["assets/labels.txt"], ["assets.extra/counts.parquet"], [FILE_OF_WEIGHTS, "saved_model.pb"]],
    ids=["tags", "words", "weights and graph"],
)
def test_a_champion_that_cannot_be_loaded_fails_the_candidate_unless_forced(
    with_champion, finished_run, tmp_path, lost
):
    for name in lost:
        (with_champion["champion"] / "model" / name).unlink()
    settings = finished_run.existing().settings
    with pytest.raises(
        GateNotPassed, match=r"version 20260105060708, cannot be compared with this one \(it cannot be loaded or used: "
    ):
        evaluated(with_champion, tmp_path / "out", settings)
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    forced = evaluated(with_champion, tmp_path / "out", settings.model_copy(update=LOST))
    assert forced.verdict == "passed"
    assert forced.warnings[0].endswith("forced: it is lost")


@pytest.mark.parametrize("damage", [b"", b"PAR1 and nothing else PAR1"])
def test_a_damaged_list_of_learned_posts_fails_the_candidate(with_champion, finished_run, tmp_path, damage):
    (with_champion["champion"] / "model" / FILE).write_bytes(damage)
    with pytest.raises(GateNotPassed, match=r"cannot be loaded or used: learned\.parquet cannot be read: "):
        evaluated(with_champion, tmp_path / "out", finished_run.existing().settings)


def mark_synthetic(inputs, synthetic):
    card = inputs["champion"] / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"synthetic": synthetic}))


def test_a_model_of_synthetic_posts_does_not_take_a_real_ones_place(with_champion, finished_run, tmp_path):
    mark_synthetic(with_champion, False)
    with pytest.raises(GateNotPassed, match="it was trained on real posts, this candidate on synthetic posts"):
        evaluated(with_champion, tmp_path / "out", finished_run.existing().settings)


def test_a_model_of_synthetic_posts_is_not_compared_with_a_real_one(with_champion, finished_run, tmp_path):
    real = finished_run.existing().settings.model_copy(update={"source": "posts.csv"})
    summary = evaluated(with_champion, tmp_path / "out", real)
    assert summary.verdict == "passed"
    assert summary.warnings == [
        "the live model, version 20260105060708, was trained on synthetic posts, so this model of real posts was not "
        "compared with it"
    ]


def test_the_decision_has_the_digest_of_the_held_out_posts(evaluated_before, finished_run, tmp_path):
    decision = json.loads((evaluated_before / "decision.json").read_text())
    inputs = inputs_of(finished_run, tmp_path / "again")
    labels = read_lines(inputs["fit_vocabulary"] / "labels.txt")
    held = held_out.HeldOut(inputs["ingest"], labels)
    assert held.digest() == decision["test_posts_sha256"]
    (last,) = posts.shards(inputs["ingest"], "posts/test")
    pq.write_table(pq.read_table(last).slice(1), last)
    assert held.digest() != decision["test_posts_sha256"]


def test_a_tag_may_have_any_name():
    tags = ["$x^$", "accuracy", "macro avg", "weighted avg"]
    report = figures_by_tag(np.array([0, 1, 2, 3, 3]), np.array([0, 1, 2, 3, 0]), tags)
    assert {tag: figures["support"] for tag, figures in report.items()} == dict(zip(tags, [1, 1, 1, 2], strict=True))
    assert report["weighted avg"]["recall"] == 0.5


def test_an_accuracy_that_differs_from_the_predictions_is_refused(finished_run, tmp_path, monkeypatch):
    inputs = inputs_of(finished_run, tmp_path)
    measure = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", lambda *arguments: measure(*arguments) | {"accuracy": 0.99})
    (tmp_path / "out").mkdir()
    with pytest.raises(TaggerError, match=r"own accuracy is 0\.990000, but that of its predictions is"):
        evaluated(inputs, tmp_path / "out", finished_run.existing().settings)
