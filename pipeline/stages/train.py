"""Build the Keras network, convert it to an Estimator, and train that from the Parquet vectors.

`python -m pipeline.stages.train` is the life of a cluster's process that is not its chief, as `tf_config.part` begins
it: a line of JSON on standard input says where its inputs are, and when that input ends, so does the process.
"""

import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import progress, tf_config
from pipeline.data import posts
from pipeline.errors import TaggerError
from pipeline.files import read_lines
from pipeline.model import distributed, training
from pipeline.settings import Settings
from pipeline.stages.plan import CHECKPOINT, LABELS, RESUME


@dataclass(frozen=True)
class Trained:
    """How training went, and the sha256 of the checkpoint it left."""

    rows: int
    steps: int
    final_loss: float
    examples_per_second: float
    resumed_from_step: int
    checkpoint: str


def run(inputs: Mapping[str, Path], out: Path, settings: Settings) -> Trained:
    """Leaves the Estimator's model_dir: the checkpoint, the graph and TensorBoard's events.

    The chief of a cluster does so with the others' help, and always from the beginning. Raises TrainingFailed for a
    loss that is no number, and for a global step that did not advance as it should.
    """
    tags = len(read_lines(inputs["fit_vocabulary"] / LABELS))
    model_dir = out / CHECKPOINT
    if place := tf_config.here():
        result = distributed.train(inputs["vectorize"], model_dir, settings, tags, place)
    else:
        if RESUME in inputs:
            shutil.copytree(inputs[RESUME], model_dir)
        result = training.train(inputs["vectorize"], model_dir, settings, tags)
    return Trained(
        rows=posts.rows(inputs["vectorize"], "train"),
        checkpoint=training.checkpoint_digest(model_dir),
        **asdict(result),
    )


def _take_part() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in (distributed.__name__, progress.__name__):
        logging.getLogger(name).setLevel(logging.INFO)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    inputs = {name: Path(folder) for name, folder in job["inputs"].items()}
    tags, place = len(read_lines(inputs["fit_vocabulary"] / LABELS)), tf_config.here()
    if place:
        settings = Settings.of(job["settings"])
        distributed.take_part(inputs.get("vectorize", Path()), Path(job["model_dir"]), settings, tags, place)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    try:
        _take_part()
    except TaggerError as error:
        sys.stdout.write(str(error))
        sys.exit(error.exit_status)
