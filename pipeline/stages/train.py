"""Train the network, converted to an Estimator, on the vectors; alone or as the chief of a cluster."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import tf_config
from pipeline.data import posts
from pipeline.files import read_lines
from pipeline.model import distributed, temperature, training
from pipeline.settings import Settings
from pipeline.stages.context import Context
from pipeline.stages.plan import CHECKPOINT, LABELS, RESUME, VALIDATED


@dataclass(frozen=True)
class Trained:
    """The summary: steps, loss and speed of the training, its learning curve, and the digest of its checkpoint."""

    rows: int
    steps: int
    final_loss: float
    examples_per_second: float
    resumed_from_step: int
    curve: list[dict[str, float]]  # see pipeline.model.validation.Validation; of one process only, not of a cluster
    best_epoch: int | None
    temperature: float  # what the logits were divided by
    calibration: dict[str, dict[str, float]] | None  # of the validation posts, see pipeline.model.training.Training
    checkpoint: str


def run(inputs: Mapping[str, Path], out: Path, settings: Settings, context: Context) -> Trained:
    """Train, and write the Estimator's model_dir to `out`: the checkpoint, and its learning curve for TensorBoard.

    The answers to the validation posts, if there are any, are written to `out/validated.parquet`.

    Without a cluster, training resumes from the checkpoint in the input RESUME, if there is one, and the same inputs
    and settings give the same bytes. Raises TrainingFailed if the loss is not a finite number, and if the global step
    is not what the posts and the settings require.
    """
    tags = len(read_lines(inputs["fit_vocabulary"] / LABELS))
    model_dir = out / CHECKPOINT
    if place := tf_config.here():
        result = distributed.train(
            inputs["vectorize"], model_dir, settings, tags, place, context.track, context.save_checkpoint
        )
    else:
        if RESUME in inputs:
            shutil.copytree(inputs[RESUME], model_dir)
        result = training.train(
            inputs["vectorize"],
            model_dir,
            settings,
            tags,
            context.track,
            context.save_checkpoint,
            context.on_epoch,
            out / VALIDATED,
        )
    training.drop_graphs(model_dir)
    temperature.fold(model_dir, result.temperature)
    return Trained(
        rows=posts.rows(inputs["vectorize"], "train"),
        checkpoint=training.checkpoint_digest(model_dir),
        **asdict(result),
    )
