"""Export the Estimator as a SavedModel that reads raw posts, and prove in a fresh process that it answers alike."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import progress
from pipeline.data import posts
from pipeline.data.words import VOCABULARY_FILE
from pipeline.errors import ExportRefused, GateNotPassed
from pipeline.files import read_lines
from pipeline.model import network, parity, serving
from pipeline.settings import Settings
from pipeline.stages.plan import CHECKPOINT, DECISION, LABELS

POSTS_PROVED = 10_000


@dataclass(frozen=True)
class Exported:
    """`rows` test posts were answered alike, within `largest_difference` of a probability."""

    rows: int
    largest_difference: float


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Exported:
    """Leaves the SavedModel, its saved_model.pb at the top.

    Raises GateNotPassed where the evaluation did not pass, ExportRefused where the SavedModel answers differently.
    """
    decision = json.loads((inputs["evaluate"] / DECISION).read_text())
    if decision["verdict"] != "passed":
        raise GateNotPassed(f"nothing is exported: {'; '.join(decision['reasons'])}")
    labels = read_lines(inputs["fit_vocabulary"] / LABELS)
    with TemporaryDirectory(prefix="tagger-export-") as scratch:
        with network.trained(inputs["train"] / CHECKPOINT, settings, len(labels)) as estimator:
            model = serving.export(
                estimator,
                vocabulary_file=inputs["fit_vocabulary"] / VOCABULARY_FILE,
                labels_file=inputs["fit_vocabulary"] / LABELS,
                settings=settings,
                folder=Path(scratch, "models"),
            )
        shutil.copytree(model, out, dirs_exist_ok=True)
        cases = Path(scratch, "cases.parquet")
        pq.write_table(_cases(inputs, labels, settings), cases)
        with progress.track("export", "posts", None) as advance:
            result = prove(out, cases)
            advance(result["posts"])
    return Exported(result["posts"], result["largest_difference"])


def prove(model: Path, cases: Path) -> dict[str, Any]:
    """Let a fresh process compare the SavedModel with the cases; ExportRefused names the first differences."""
    command = [sys.executable, "-m", parity.__name__, str(model), str(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the command is ours
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportRefused(f"the exported model cannot be loaded or asked ({last}): nothing is published")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if result["faults"]:
        raise ExportRefused(
            f"the exported model does not answer as the trained one ({'; '.join(result['faults'])}): nothing is "
            "published; the text rule of training and serving must agree, see pipeline/text.py"
        )
    return result


def _cases(inputs: Mapping[str, Path], labels: list[str], settings: Settings) -> pa.Table:
    """The first test posts with their vectors and the Estimator's answers, in the order of their rows."""
    vectors = _head(inputs["vectorize"], "test")
    answers = _head(inputs["evaluate"], "predictions")
    texts = _texts(inputs["ingest"], vectors.column("row"), settings)
    columns = {
        "row": vectors.column("row"),
        "post": texts,
        "tag": pa.array(labels).take(answers.column("predicted").combine_chunks()),
        "indices": vectors.column("indices"),
        "values": vectors.column("values"),
        "probabilities": answers.column("probabilities"),
    }
    return pa.table(columns, schema=parity.CASES)


def _head(folder: Path, kind: str) -> pa.Table:
    found, taken = 0, list[pa.RecordBatch]()
    for batch in posts.batches(folder, kind):
        taken.append(batch.slice(0, POSTS_PROVED - found))
        found += taken[-1].num_rows
        if found == POSTS_PROVED:
            break
    return pa.Table.from_batches(taken)


def _texts(source: Path, rows: pa.ChunkedArray, settings: Settings) -> pa.ChunkedArray:
    """The texts of these rows of the test split."""
    wanted, last = rows.combine_chunks(), rows[-1].as_py()
    taken = list[pa.Array]()
    for batch in posts.split(source, "test", settings):
        taken.append(batch.filter(pc.is_in(batch.column("row"), value_set=wanted)).column("post"))
        if batch.column("row")[-1].as_py() >= last:
            break
    return pa.chunked_array(taken)
