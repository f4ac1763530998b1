"""Measure the Estimator on the test posts, and compare it with the thresholds and with the live model."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from pipeline.checks import gate
from pipeline.checks.calibration import calibration
from pipeline.checks.confusion_matrix import MAX_ANNOTATED, draw
from pipeline.checks.mistakes import confusions, slices, surest
from pipeline.data import held_out, posts
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import BadInput, GateNotPassed, TaggerError
from pipeline.files import read_lines
from pipeline.model import attribution, evaluation, input_fn, network, serving, tagging, training
from pipeline.progress import Advance, Track
from pipeline.settings import Settings
from pipeline.stages.context import Context
from pipeline.stages.plan import CHAMPION, CHECKPOINT, DECISION, EVALUATION, LABELS

THRESHOLDS = ("min_accuracy", "min_tag_recall", "max_regression", "force_reason")
CURE = (
    "nothing is published and the live model stays; read decision.json and evaluation.json, then fix the data or the "
    "settings and start a new run"
)

WORDS, POSTS_ATTRIBUTED = 10, 10_000
"""How many words that speak for each tag are named, and on how many test posts at most they are found."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """The candidate's scores on `rows` test posts, and the gate's verdict, `passed` or `failed`.

    `champion` is the version that was live, None if there was none, and `champion_accuracy` its accuracy on the same
    posts, None if it was not compared.
    """

    rows: int
    accuracy: float
    loss: float
    macro_f1: float
    calibration_error: float  # expected, see pipeline.checks.calibration
    tags: int
    verdict: str
    reasons: list[str]
    warnings: list[str]
    champion: int | None
    champion_accuracy: float | None


def run(inputs: Mapping[str, Path], out: Path, settings: Settings, context: Context) -> Evaluated:
    """Measure the candidate, and write decision.json, evaluation.json, confusion_matrix.png and `predictions` to `out`.

    Raises GateNotPassed, with the summary as evidence, if the gate's verdict is `failed`, and TaggerError if the
    Estimator's own accuracy is not that of its predictions.
    """
    labels = read_lines(inputs["fit_vocabulary"] / LABELS)
    if not posts.rows(inputs["vectorize"], "test"):
        raise BadInput("there is no test post to evaluate on: start a run with drop_test_posts=false")
    measured, answers = _measure(inputs, out, settings, len(labels), context.track)
    true, predicted, probability = answers.true.to_numpy(), answers.predicted, answers.probability
    _check_accuracy(measured["accuracy"], float((true == predicted).mean()))
    report = _per_tag(true, predicted, labels)
    candidate = _candidate(true == predicted, report)
    champion = _champion(inputs, labels, true, synthetic=context.source.synthetic)
    decision = gate.decide(candidate, champion, settings)
    calibrated = calibration(probability, true == predicted)
    summary = Evaluated(
        rows=len(true),
        accuracy=round(measured["accuracy"], 6),
        loss=round(measured["loss"], 6),
        macro_f1=round(float(np.mean([figures["f1-score"] for figures in report.values()])), 6),
        calibration_error=calibrated["expected_error"],
        tags=len(labels),
        verdict=decision.verdict,
        reasons=decision.reasons,
        warnings=decision.warnings,
        champion=_version(inputs),
        champion_accuracy=round(float(champion.correct.mean()), 6) if isinstance(champion, gate.Scores) else None,
    )
    matrix = confusion_matrix(true, predicted, labels=range(len(labels)))
    draw(matrix, labels, out / "confusion_matrix.png")
    _write_json(out / DECISION, _decision_document(inputs, settings, labels, candidate, champion, decision))
    _write_json(
        out / EVALUATION,
        asdict(summary)
        | {"per_tag": report, "calibration": calibrated}
        | ({"confusion_matrix": matrix.tolist()} if len(labels) <= MAX_ANNOTATED else {})
        | _details(inputs, out, answers, labels, settings),
    )
    for warning in decision.warnings:
        log.warning("warning: %s", warning)
    if decision.reasons:
        raise GateNotPassed(f"{'; '.join(decision.reasons)}: {CURE}", asdict(summary))
    return summary


def _details(
    inputs: Mapping[str, Path], out: Path, answers: "_Answers", labels: list[str], settings: Settings
) -> dict[str, Any]:
    """What evaluation.json has for a person: some answers, words, accuracy on slices of the posts, and mistakes."""
    true, ingested = answers.true.to_numpy(), inputs["ingest"]
    correct = true == answers.predicted
    vocabulary = Vocabulary.load(inputs["fit_vocabulary"]).head(settings.vocabulary_size)
    unknown = held_out.unknown_shares(ingested, labels, vocabulary)
    return {
        "accuracy_of_the_commonest_tag": round(float(np.bincount(true).max() / len(true)), 6),
        "examples": held_out.examples(ingested, out, labels),
        "slices": [asdict(each) for each in slices(held_out.lengths(ingested, labels), correct)],
        "slices_by_unknown_words": [asdict(each) for each in slices(unknown, correct)],
        "words": _words(inputs, labels, vocabulary, settings),
    } | _mistakes(ingested, answers, labels)


def _words(
    inputs: Mapping[str, Path], labels: list[str], vocabulary: Vocabulary, settings: Settings
) -> dict[str, list[str]]:
    """For each tag the WORDS words that speak most for it, the strongest first."""
    some = posts.spread(inputs["vectorize"], "test", POSTS_ATTRIBUTED)
    columns = attribution.strongest(
        attribution.Network(inputs["train"] / CHECKPOINT),
        input_fn.vectors(some, settings.vocabulary_size),
        some.column("label").to_numpy(),
        len(labels),
        WORDS,
    )
    words = [vocabulary.words.take(pa.array([column - 1 for column in each], pa.int64())) for each in columns]
    return {tag: each.to_pylist() for tag, each in zip(labels, words, strict=True)}


def _mistakes(ingested: Path, answers: "_Answers", labels: list[str]) -> dict[str, Any]:
    """The commonest confusions and the mistakes that the model was surest of, with excerpts of their posts."""
    scored = answers.true.to_numpy(), answers.predicted, answers.probability
    commonest, surest_first = confusions(*scored), surest(*scored)
    rows = answers.rows.to_numpy()
    texts = held_out.excerpts(ingested, rows[[*surest_first, *(at for each in commonest for at in each.at)]].tolist())

    def shown(at: int) -> dict[str, Any]:
        row, probability = int(rows[at]), round(float(answers.probability[at]), 4)
        tags = {"tag": labels[scored[0][at]], "predicted": labels[scored[1][at]]}
        return {"row": row, "post": texts[row]} | tags | {"probability": probability}

    return {
        "confusions": [
            {
                "tag": labels[each.true],
                "predicted": labels[each.predicted],
                "posts": each.count,
                "examples": [shown(at) for at in each.at],
            }
            for each in commonest
        ],
        "mistakes": [shown(at) for at in surest_first],
    }


def _check_accuracy(evaluated: float, predicted: float) -> None:
    """Raise TaggerError if the Estimator's own accuracy is not that of the answers that were written."""
    if abs(evaluated - predicted) > 1e-6:
        raise TaggerError(
            f"the Estimator's own accuracy is {evaluated:.6f}, but that of its predictions is {predicted:.6f}: the two "
            "did not read the same test vectors; run vectorize again"
        )


def _candidate(correct: np.ndarray, report: Mapping[str, Mapping[str, float]]) -> gate.Scores:
    """The candidate's scores, from which posts it tagged correctly (bool [posts]) and its report by tag."""
    recall = {tag: figures["recall"] for tag, figures in report.items() if figures["support"]}
    return gate.Scores("the candidate", correct, recall, tuple(tag for tag in report if tag not in recall))


def _decision_document(
    inputs: Mapping[str, Path],
    settings: Settings,
    labels: list[str],
    candidate: gate.Scores,
    champion: gate.Scores | gate.Incomparable | gate.Absent,
    decision: gate.Decision,
) -> dict[str, Any]:
    """The content of decision.json: the verdict, and which model, posts and thresholds led to it."""
    return {
        "verdict": decision.verdict,
        "reasons": decision.reasons,
        "warnings": decision.warnings,
        "thresholds": {name: getattr(settings, name) for name in THRESHOLDS},
        "candidate": candidate.to_dict() | {"checkpoint": training.checkpoint_digest(inputs["train"] / CHECKPOINT)},
        "champion": _version(inputs),
        "comparison": decision.comparison,
        "champion_recall": champion.recall if isinstance(champion, gate.Scores) else None,
        "test_posts": len(candidate.correct),
        "test_posts_sha256": held_out.digest(inputs["ingest"], labels),
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n")


def _per_tag(true: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 score and support of each tag.

    scikit-learn's classification_report would put keys such as `accuracy`, which may be a tag, in the same dictionary.
    """
    columns = precision_recall_fscore_support(true, predicted, labels=range(len(labels)), zero_division=0)
    names = ("precision", "recall", "f1-score", "support")
    return {
        tag: dict(zip(names, map(float, figures), strict=True)) for tag, *figures in zip(labels, *columns, strict=True)
    }


def _version(inputs: Mapping[str, Path]) -> int | None:
    if CHAMPION not in inputs:
        return None
    return int(_card(inputs)["version"])


def _card(inputs: Mapping[str, Path]) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((inputs[CHAMPION] / "card.json").read_text())
    return card


def _champion(
    inputs: Mapping[str, Path], labels: list[str], true: np.ndarray, *, synthetic: bool
) -> gate.Scores | gate.Incomparable | gate.Absent:
    """Tag the same test posts with the live model, from their texts, as `tagger predict` does.

    A candidate trained on synthetic posts is incomparable with a model of real posts, so it does not replace it unless
    the run is forced; where only the champion is synthetic, there is nothing to compare with.
    """
    if CHAMPION not in inputs:
        return gate.Absent("no model was live to compare with: this is the first")
    name, model = f"version {_version(inputs)}", inputs[CHAMPION] / "model"
    champion_synthetic = _card(inputs).get("synthetic", False)
    if champion_synthetic and not synthetic:
        return gate.Absent(
            f"the live model, {name}, was trained on synthetic posts, so this model of real posts was not "
            "compared with it"
        )
    if synthetic and not champion_synthetic:
        return gate.Incomparable(name, "it was trained on real posts, this candidate on synthetic posts")
    try:
        known = read_lines(model / "assets" / LABELS)
        if known != labels:
            return gate.Incomparable(name, _other_tags(known, labels))
        with serving.opened(model) as served:
            batches = held_out.batches(inputs["ingest"], labels)
            tags = pa.chunked_array(tags for _, tags, _ in tagging.tagged(served, model, known, batches))
    except (OSError, ValueError, LookupError, serving.ERRORS) as error:
        return gate.Incomparable(name, f"it cannot be loaded or used: {str(error).splitlines()[0]}")
    correct = _labels(tags, labels) == true
    recall = {tag: float(correct[true == at].mean()) for at, tag in enumerate(labels) if (true == at).any()}
    return gate.Scores(name, correct, recall)


def _labels(tags: pa.ChunkedArray, labels: list[str]) -> np.ndarray:
    """Map tags to their labels: int32 [len(tags)], -1 for an unknown tag."""
    found = pc.index_in(tags, value_set=pa.array(labels, pa.string()))
    label: np.ndarray = pc.fill_null(found, -1).to_numpy()
    return label


def _other_tags(known: list[str], labels: list[str]) -> str:
    """Say which tags the champion and the candidate do not share."""
    new, gone = sorted(set(labels) - set(known)), sorted(set(known) - set(labels))
    differences = [
        f"{what} {', '.join(f'{tag!r:.60}' for tag in tags[:5])}"
        for what, tags in (("it lacks", new), ("only it has", gone))
        if tags
    ]
    return f"it knows other tags: {'; '.join(differences)}"


class _Answers:
    """Writes the Estimator's answers to the test posts to `predictions`, as they come, and keeps the predicted labels.

    `true` and `predicted` are the labels, int32 [test posts], and `probability` is that of the predicted one.
    """

    def __init__(self, vectors: Path, writer: posts.Writer, advance: Advance) -> None:
        table = pa.Table.from_batches(list(posts.batches(vectors, "test", ["row", "label"])))
        self.rows, self.true = (table[name].combine_chunks() for name in ("row", "label"))
        self.predicted, self.probability = np.empty(len(table), np.int32), np.empty(len(table), np.float32)
        self.writer, self.advance, self.done = writer, advance, 0

    def add(self, probabilities: np.ndarray) -> None:
        """Take the answers to the next posts, float32 [n, tags]."""
        count, tags = probabilities.shape
        now = slice(self.done, self.done + count)
        self.predicted[now], self.probability[now] = probabilities.argmax(axis=1), probabilities.max(axis=1)
        starts = pa.array(np.arange(count + 1) * tags, pa.int32())
        columns = [
            self.rows[now],
            self.true[now],
            pa.array(self.predicted[now]),
            pa.ListArray.from_arrays(starts, pa.array(probabilities.ravel())),
        ]
        self.writer.write(pa.RecordBatch.from_arrays(columns, schema=posts.PREDICTIONS))
        self.done += count
        self.advance(count)


def _measure(
    inputs: Mapping[str, Path], out: Path, settings: Settings, tags: int, track: Track
) -> tuple[dict[str, float], _Answers]:
    """Return the Estimator's own accuracy and loss, and its answers, which are written to `predictions`."""
    vectors = inputs["vectorize"]
    with (
        network.trained(inputs["train"] / CHECKPOINT, settings, tags) as estimator,
        track("evaluate", "posts", posts.rows(vectors, "test")) as advance,
        posts.Writer(out, "predictions") as writer,
    ):
        answers = _Answers(vectors, writer, advance)
        feed = input_fn.testing(vectors, columns=settings.vocabulary_size, tags=tags)
        return evaluation.evaluate(estimator, feed, answers.add), answers
