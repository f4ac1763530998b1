"""Build the Keras network, convert it to an Estimator, and train that from the Parquet vectors."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import posts
from pipeline.estimator import training
from pipeline.files import read_lines
from pipeline.settings import Settings
from pipeline.stages import CHECKPOINT, LABELS, RESUME


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

    Raises TrainingFailed for a loss that is no number, and for a global step that did not advance as it should.
    """
    tags = len(read_lines(inputs["fit_vocabulary"] / LABELS))
    model_dir = out / CHECKPOINT
    if RESUME in inputs:
        shutil.copytree(inputs[RESUME], model_dir)
    result = training.train(inputs["vectorize"], model_dir, settings, tags)
    return Trained(
        rows=posts.rows(inputs["vectorize"], "train"),
        checkpoint=training.checkpoint_digest(model_dir),
        **asdict(result),
    )
