"""Measure the Estimator on the test posts, and hold the result against the thresholds and the live model."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix, precision_recall_fscore_support

from pipeline import progress
from pipeline.checks import gate
from pipeline.data import posts
from pipeline.errors import GateNotPassed, TaggerError
from pipeline.files import read_lines
from pipeline.model import input_fn, network, serving, training
from pipeline.settings import Settings
from pipeline.sources import sample
from pipeline.stages.plan import CHAMPION, CHECKPOINT, DECISION, EVALUATION, LABELS

THRESHOLDS = ("min_accuracy", "min_tag_recall", "max_regression", "force_reason")
CURE = (
    "nothing is published and the live model stays; read decision.json and evaluation.json, then mend the data or the "
    "settings and start a new run"
)
EXAMPLES = 5
EXCERPT = 200
BATCH = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """What the candidate scored on `rows` test posts, and the gate's verdict: passed or failed.

    `champion` is the version it was compared with, None where none was live.
    """

    rows: int
    accuracy: float
    loss: float
    macro_f1: float
    tags: int
    verdict: str
    reasons: list[str]
    warnings: list[str]
    champion: int | None


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Evaluated:
    """Leaves decision.json, evaluation.json, confusion_matrix.png and `predictions`.

    Raises GateNotPassed, with the summary as evidence, below min_accuracy or where none is set; TaggerError where the
    Estimator's own accuracy is not that of its predictions.
    """
    labels = read_lines(inputs["fit_vocabulary"] / LABELS)
    measured = _measure(inputs, out, settings, len(labels))
    true, predicted = _answers(out)
    if abs(measured["accuracy"] - (true == predicted).mean()) > 1e-6:
        raise TaggerError(
            f"the Estimator evaluates to accuracy {measured['accuracy']:.6f}, its predictions to "
            f"{(true == predicted).mean():.6f}: the test vectors were not read alike; run vectorize again"
        )
    report = _per_tag(true, predicted, labels)
    recall = {tag: float(report[tag]["recall"]) for tag in labels if report[tag]["support"]}
    unasked = tuple(tag for tag in labels if tag not in recall)
    candidate = gate.Scores("the candidate", true == predicted, recall, unasked)
    champion = _champion(inputs, labels, true, settings)
    decision = gate.decide(candidate, champion, settings)
    summary = Evaluated(
        rows=len(true),
        accuracy=round(measured["accuracy"], 6),
        loss=round(measured["loss"], 6),
        macro_f1=round(float(np.mean([figures["f1-score"] for figures in report.values()])), 6),
        tags=len(labels),
        verdict=decision.verdict,
        reasons=decision.reasons,
        warnings=decision.warnings,
        champion=_version(inputs),
    )
    _draw(confusion_matrix(true, predicted, labels=range(len(labels))), labels, out / "confusion_matrix.png")
    decided = {
        "verdict": decision.verdict,
        "reasons": decision.reasons,
        "warnings": decision.warnings,
        "thresholds": {name: getattr(settings, name) for name in THRESHOLDS},
        "candidate": candidate.told() | {"checkpoint": training.checkpoint_digest(inputs["train"] / CHECKPOINT)},
        "champion": _version(inputs),
        "comparison": decision.comparison,
        "test_posts": len(true),
        "test_posts_sha256": _test_digest(inputs["ingest"], labels, settings),
    }
    evaluation = asdict(summary) | {
        "accuracy_of_the_commonest_tag": round(float(np.bincount(true).max() / len(true)), 6),
        "per_tag": report,
        "examples": list(_examples(inputs["ingest"], out, labels)),
    }
    for name, document in ((DECISION, decided), (EVALUATION, evaluation)):
        (out / name).write_text(json.dumps(document, indent=2) + "\n")
    for warning in decision.warnings:
        log.warning("with reservations: %s", warning)
    if decision.reasons:
        raise GateNotPassed(f"{'; '.join(decision.reasons)}: {CURE}", asdict(summary))
    return summary


def _per_tag(true: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, dict[str, float]]:
    """As scikit-learn's classification_report, whose dictionary has no room for a tag named `accuracy`."""
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
    inputs: Mapping[str, Path], labels: list[str], true: np.ndarray, settings: Settings
) -> gate.Scores | gate.Incomparable | gate.Absent:
    """The live model on the same test posts, asked by its raw-text signature as anybody would.

    A model of invented posts is no measure for one of real posts, and must not take its place unseen.
    """
    if CHAMPION not in inputs:
        return gate.Absent("no model was live to compare with: this is the first")
    name, model = f"version {_version(inputs)}", inputs[CHAMPION] / "model"
    invented, is_invented = sample.is_sample(settings.source), _card(inputs).get("invented", False)
    if is_invented and not invented:
        return gate.Absent(f"the live model, {name}, was trained on invented posts and is no measure for real ones")
    if invented and not is_invented:
        return gate.Incomparable(name, "it was trained on real posts, and this candidate on invented ones")
    try:
        known = read_lines(model / "assets" / LABELS)
        if known != labels:
            return gate.Incomparable(name, _other_tags(known, labels))
        with serving.opened(model) as served:
            texts = _test_texts(inputs["ingest"], labels, settings)
            answers = np.concatenate([_labels(served.tag(batch)["tag"], labels) for batch in texts])
    except (OSError, ValueError, LookupError, serving.ERRORS) as error:
        return gate.Incomparable(name, f"it cannot be asked: {str(error).splitlines()[0]}")
    right = answers == true
    recall = {tag: float(right[true == at].mean()) for at, tag in enumerate(labels) if (true == at).any()}
    return gate.Scores(name, right, recall)


def _labels(tags: np.ndarray, labels: list[str]) -> np.ndarray:
    """The label of each tag, given as bytes: int32 [len(tags)], -1 where there is none of its name."""
    found = pc.index_in(pa.array(tags, pa.binary()).cast(pa.string()), value_set=pa.array(labels, pa.string()))
    label: np.ndarray = pc.fill_null(found, -1).to_numpy()
    return label


def _other_tags(known: list[str], labels: list[str]) -> str:
    new, gone = sorted(set(labels) - set(known)), sorted(set(known) - set(labels))
    parts = [
        f"{what} {', '.join(f'{tag!r:.60}' for tag in tags[:5])}"
        for what, tags in (("it lacks", new), ("only it has", gone))
        if tags
    ]
    return f"it knows other tags: {'; '.join(parts)}"


def _test_posts(source: Path, labels: list[str], settings: Settings) -> Iterator[pa.RecordBatch]:
    """The test posts that vectorize kept, in its order."""
    known = pa.array(labels, pa.string())
    for batch in posts.split(source, "test", settings):
        yield batch.filter(pc.is_in(batch.column("tag"), value_set=known))


def _test_texts(source: Path, labels: list[str], settings: Settings) -> Iterator[np.ndarray]:
    for batch in _test_posts(source, labels, settings):
        texts = batch.column("post").cast(pa.binary()).to_numpy(zero_copy_only=False)
        yield from (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))


def _test_digest(source: Path, labels: list[str], settings: Settings) -> str:
    """sha256 over the test posts and their tags: two evaluations with the same were on the same posts."""
    digest = hashlib.sha256()
    for batch in _test_posts(source, labels, settings):
        for post, tag in zip(batch.column("post").to_pylist(), batch.column("tag").to_pylist(), strict=True):
            digest.update(f"{tag}\n{len(post)}\n{post}".encode())
    return digest.hexdigest()


def _measure(inputs: Mapping[str, Path], out: Path, settings: Settings, tags: int) -> dict[str, float]:
    """The Estimator's own metrics; its prediction for each test post goes to `predictions`."""
    vectors = inputs["vectorize"]
    feed = input_fn.testing(vectors, columns=settings.vocabulary_size, tags=tags)
    with (
        network.trained(inputs["train"] / CHECKPOINT, settings, tags) as estimator,
        progress.track("evaluate", "posts", 2 * posts.rows(vectors, "test")) as advance,
    ):
        metrics = estimator.evaluate(feed)
        advance(posts.rows(vectors, "test"))
        answers = estimator.predict(feed, yield_single_examples=False)
        with posts.Writer(out, "predictions") as writer:
            for batch in _predictions(posts.batches(vectors, "test", ["row", "label"]), answers):
                writer.write(batch)
                advance(batch.num_rows)
    return {name: float(metrics[name]) for name in ("accuracy", "loss")}


def _predictions(
    tested: Iterator[pa.RecordBatch], answers: Iterator[dict[str, np.ndarray]]
) -> Iterator[pa.RecordBatch]:
    """The Estimator's answers beside the posts they are for: its batches cut anew as the posts' are."""
    waiting = np.empty((0, 0), np.float32)
    for batch in tested:
        while len(waiting) < batch.num_rows:
            more = next(answers)[network.OUTPUT]
            waiting = np.concatenate([waiting, more]) if len(waiting) else more
        probabilities, waiting = waiting[: batch.num_rows], waiting[batch.num_rows :]
        cells = pa.array(probabilities.ravel(), pa.float32())
        starts = pa.array(np.arange(batch.num_rows + 1) * probabilities.shape[1], pa.int32())
        predicted = pa.array(probabilities.argmax(axis=1), pa.int32())
        columns = [batch.column("row"), batch.column("label"), predicted, pa.ListArray.from_arrays(starts, cells)]
        yield pa.RecordBatch.from_arrays(columns, schema=posts.PREDICTIONS)


def _answers(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted labels, int32 [test posts] each."""
    table = pa.Table.from_batches(
        posts.batches(out, "predictions", ["label", "predicted"]),
        pa.schema([posts.PREDICTIONS.field("label"), posts.PREDICTIONS.field("predicted")]),
    )
    return table.column("label").to_numpy(), table.column("predicted").to_numpy()


def _examples(source: Path, out: Path, labels: list[str]) -> Iterator[dict[str, Any]]:
    """The first test posts, cut short, with their tags and what the Estimator says of them."""
    first = next(posts.batches(out, "predictions")).slice(0, EXAMPLES).to_pylist()
    texts = _texts(source, {answer["row"] for answer in first})
    for answer in first:
        yield {
            "row": answer["row"],
            "post": texts[answer["row"]][:EXCERPT],
            "tag": labels[answer["label"]],
            "predicted": labels[answer["predicted"]],
            "probability": round(max(answer["probabilities"]), 4),
        }


def _texts(source: Path, rows: set[int]) -> dict[int, str]:
    found = dict[int, str]()
    for batch in posts.batches(source, "posts", ["row", "post"]):
        found |= {row: post.as_py() for row, post in zip(batch[0].to_pylist(), batch[1], strict=True) if row in rows}
        if len(found) == len(rows):
            break
    return found


def _draw(matrix: np.ndarray, labels: list[str], path: Path) -> None:
    """The confusion matrix, each row as shares of its tag's posts."""
    inches = 3 + 0.35 * len(labels)
    figure = Figure(figsize=(inches, inches), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # Between two dollar signs matplotlib reads mathematics.
    display = ConfusionMatrixDisplay(shares, display_labels=[label.replace("$", r"\$") for label in labels])
    display.plot(
        ax=axes, xticks_rotation="vertical", values_format=".2f", cmap="Blues", colorbar=False, text_kw={"fontsize": 6}
    )
    for cell in display.text_.flat:
        cell.set_visible(cell.get_text() != "0.00")
    axes.set(xlabel="Predicted tag", ylabel="True tag")
    axes.set_title(f"Share of each tag's test posts, by predicted tag ({matrix.sum():,} posts)", fontsize=9)
    figure.savefig(path, dpi=120)
