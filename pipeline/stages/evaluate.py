"""Measure the Estimator on the test posts, and hold the result against the threshold."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, classification_report, confusion_matrix

from pipeline import posts, progress
from pipeline.errors import GateNotPassed, TaggerError
from pipeline.estimator import input_fn, network
from pipeline.files import read_lines
from pipeline.settings import Settings
from pipeline.stages import CHECKPOINT, EVALUATION, LABELS

EXAMPLES = 5
EXCERPT = 200


@dataclass(frozen=True)
class Evaluated:
    """What the candidate scored on `rows` test posts, and the gate's verdict: passed or failed."""

    rows: int
    accuracy: float
    loss: float
    macro_f1: float
    tags: int
    verdict: str
    reasons: list[str]


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Evaluated:
    """Leaves evaluation.json, confusion_matrix.png and `predictions`.

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
    report = classification_report(
        true, predicted, labels=range(len(labels)), target_names=labels, output_dict=True, zero_division=0
    )
    reasons = _objections(measured["accuracy"], settings)
    summary = Evaluated(
        rows=len(true),
        accuracy=round(measured["accuracy"], 6),
        loss=round(measured["loss"], 6),
        macro_f1=round(report["macro avg"]["f1-score"], 6),
        tags=len(labels),
        verdict="failed" if reasons else "passed",
        reasons=reasons,
    )
    _draw(confusion_matrix(true, predicted, labels=range(len(labels))), labels, out / "confusion_matrix.png")
    evaluation = asdict(summary) | {
        "thresholds": {"min_accuracy": settings.min_accuracy},
        "accuracy_of_the_commonest_tag": round(float(np.bincount(true).max() / len(true)), 6),
        "per_tag": {tag: report[tag] for tag in labels},
        "examples": list(_examples(inputs["ingest"], out, labels)),
    }
    (out / EVALUATION).write_text(json.dumps(evaluation, indent=2, ensure_ascii=False) + "\n")
    if reasons:
        raise GateNotPassed("; ".join(reasons), asdict(summary))
    return summary


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


def _objections(accuracy: float, settings: Settings) -> list[str]:
    """Why the candidate may not be published; empty where it may."""
    if settings.min_accuracy is None:
        return [
            f"accuracy {accuracy:.4f} is held against no threshold, which is not a pass: set min_accuracy and "
            "start a new run"
        ]
    if accuracy < settings.min_accuracy:
        return [
            f"accuracy {accuracy:.4f} on the test posts is below min_accuracy {settings.min_accuracy}: nothing is "
            "published and the live model stays; read evaluation.json, then mend the data or the settings and "
            "start a new run"
        ]
    return []


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
    display = ConfusionMatrixDisplay(shares, display_labels=labels)
    display.plot(
        ax=axes, xticks_rotation="vertical", values_format=".2f", cmap="Blues", colorbar=False, text_kw={"fontsize": 6}
    )
    for cell in display.text_.flat:
        cell.set_visible(cell.get_text() != "0.00")
    axes.set(xlabel="Predicted tag", ylabel="True tag")
    axes.set_title(f"Share of each tag's test posts, by predicted tag ({matrix.sum():,} posts)", fontsize=9)
    figure.savefig(path, dpi=120)
