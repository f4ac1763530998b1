"""Export the Estimator as a SavedModel that reads raw posts, with its weights, and check that all answer the same."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.checks import thresholds
from pipeline.checks.parity import CASES, Parity, worst_of
from pipeline.checks.verdict import action_of
from pipeline.data import held_out, learned, posts, tag_matrix, weights
from pipeline.data.vocabulary import VOCABULARY_FILE
from pipeline.errors import CorruptArtifact, ExportRefused, GateNotPassed
from pipeline.files import read_lines, scratch_folder
from pipeline.model import checkpoint, network, serving
from pipeline.model import parity as saved_model_parity
from pipeline.published import parity as published_parity
from pipeline.settings import Settings
from pipeline.stages import model_card
from pipeline.stages.context import Context
from pipeline.stages.plan import DECISION, EVALUATION, LABELS, MODEL_DIR, STAGES

POSTS_COMPARED = 10_000
"""The parity check compares at most this many test posts, the first ones."""


@dataclass(frozen=True)
class Exported:
    """The result of the parity check: `rows` test posts, whose probabilities differ by `largest_difference` at most."""

    rows: int
    largest_difference: float


def run(inputs: Mapping[str, Path], out: Path, settings: Settings, context: Context) -> Exported:
    """Write the SavedModel to `out`, with saved_model.pb, its weights and its model card at the top level.

    Raises GateNotPassed if the evaluation did not pass, ExportRefused if the SavedModel, or the weights beside it,
    answer differently.
    """
    decision = json.loads((inputs["evaluate"] / DECISION).read_text())
    if action_of(decision) == "keep":
        raise GateNotPassed(f"nothing is exported: {'; '.join(decision['reasons'])}")
    labels = read_lines(inputs["fit_vocabulary"] / LABELS)
    with scratch_folder("export") as scratch:
        with network.trained(inputs["train"] / MODEL_DIR, settings, len(labels)) as estimator:
            model = serving.export(
                estimator,
                vocabulary_file=inputs["fit_vocabulary"] / VOCABULARY_FILE,
                labels_file=inputs["fit_vocabulary"] / LABELS,
                settings=settings,
                folder=Path(scratch, "models"),
                thresholds_file=inputs["train"] / thresholds.FILE if settings.multi_tag else None,
            )
        shutil.copytree(model, out, dirs_exist_ok=True)
        checkpoint.weights(inputs["train"] / MODEL_DIR).write(out / weights.FILE)
        with suppress(FileNotFoundError):  # an evaluation of an earlier release left none
            shutil.copyfile(inputs["evaluate"] / learned.FILE, out / learned.FILE)
        _write_card(out, inputs["evaluate"], decision, settings, synthetic=context.source.synthetic)
        cases = Path(scratch, "cases.parquet")
        pq.write_table(_cases(inputs, labels), cases)
        with context.track("export", "posts", pq.read_metadata(cases).num_rows) as advance:
            result = check_parity(out, cases)
            advance(result.posts)
    return Exported(result.posts, result.largest_difference)


def _write_card(
    out: Path, evaluated: Path, decision: Mapping[str, Any], settings: Settings, *, synthetic: bool
) -> None:
    evaluation = json.loads((evaluated / EVALUATION).read_text())
    network = {name: getattr(settings, name) for name in STAGES["export"].reads}
    (out / model_card.FILE).write_text(model_card.text(evaluation, decision, network, synthetic=synthetic))


def check_parity(model: Path, cases: Path) -> Parity:
    """Check the SavedModel in a new process, then the weights beside it; ExportRefused names the first differences.

    `cases` is a Parquet file of pipeline.checks.parity.CASES.
    """
    command = [sys.executable, "-m", saved_model_parity.__name__, str(model), str(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the command is ours
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportRefused(f"the exported model cannot be loaded or used ({last}): nothing is published")
    by_saved_model = Parity(**json.loads(done.stdout.splitlines()[-1]))
    _refuse_faults("the exported model", by_saved_model)
    try:
        by_weights = published_parity.check_parity(model, cases)
    except CorruptArtifact as error:
        raise ExportRefused(f"the exported model cannot be loaded or used ({error}): nothing is published") from None
    _refuse_faults("the file of weights beside the exported model", by_weights)
    return worst_of([by_saved_model, by_weights])


def _refuse_faults(what: str, result: Parity) -> None:
    if result.faults:
        raise ExportRefused(
            f"{what} does not answer as the trained one does ({'; '.join(result.faults)}): nothing is published; "
            "training and serving must turn text into vectors by the same rule, see pipeline/data/vectors.py"
        )


def _cases(inputs: Mapping[str, Path], labels: list[str]) -> pa.Table:
    """The table of CASES: the first test posts with their vectors and the Estimator's answers."""
    vectors = _head(inputs["vectorize"], "test")
    answers = _head(inputs["evaluate"], "predictions")
    columns = {
        "row": vectors.column("row"),
        "post": held_out.texts_of(inputs["ingest"], vectors.column("row").combine_chunks()),
        "tag": pa.array(tag_matrix.tags_of(answers.column("predicted"), labels), pa.string()),
        "indices": vectors.column("indices"),
        "values": vectors.column("values"),
        "probabilities": answers.column("probabilities"),
    }
    return pa.table(columns, schema=CASES)


def _head(folder: Path, kind: str) -> pa.Table:
    """The first POSTS_COMPARED rows of a kind."""
    found, taken = 0, list[pa.RecordBatch]()
    for batch in posts.batches(folder, kind):
        taken.append(batch.slice(0, POSTS_COMPARED - found))
        found += taken[-1].num_rows
        if found == POSTS_COMPARED:
            break
    return pa.Table.from_batches(taken)
