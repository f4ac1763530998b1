"""Train the network, converted to an Estimator, on the vectors; alone or as the chief of a cluster."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from scipy.special import expit

from pipeline import tf_config
from pipeline.checks import thresholds
from pipeline.data import learned, posts
from pipeline.data.learned import Learned
from pipeline.data.vocabulary import VOCABULARY_FILE
from pipeline.errors import BadInput
from pipeline.files import read_lines
from pipeline.model import checkpoint, distributed, temperature, training
from pipeline.model.validation import Validation
from pipeline.model.warm_start import Initial
from pipeline.settings import Settings
from pipeline.stages.context import Context
from pipeline.stages.plan import CARD, LABELS, MODEL_DIR, RESUME, VALIDATED, WARM_START

log = logging.getLogger(__name__)


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
    warm_start: dict[str, int] | None  # the version that training began from, see pipeline.model.warm_start
    checkpoint: str
    warnings: list[str]


def run(inputs: Mapping[str, Path], out: Path, settings: Settings, context: Context) -> Trained:
    """Train, and write the Estimator's model_dir to `out`: the checkpoint, and its learning curve for TensorBoard.

    The answers to the validation posts, if there are any, are written to `out/validated.parquet`, and with multi_tag
    the threshold of each tag to `out/thresholds.json`. With the input WARM_START the posts that the live model has
    learned are kept in `out/learned.parquet`, because this model has learned them, too.

    Without a cluster, training resumes from the checkpoint in the input RESUME, if there is one, and the same inputs
    and settings give the same bytes. With the input WARM_START it begins from the live model's weights. Raises BadInput
    where these do not fit this run, TrainingFailed if the loss is not a finite number, and if the global step
    is not what the posts and the settings require.
    """
    labels = read_lines(inputs["fit_vocabulary"] / LABELS)
    tags, model_dir = len(labels), out / MODEL_DIR
    begins_from: Initial | None = None
    if place := tf_config.here():
        if settings.warm_start == "live":
            raise BadInput("warm_start=live is for one process: set warm_start=none, or train without TF_CONFIG")
        result = distributed.train(
            inputs["vectorize"], model_dir, settings, tags, place, context.track, context.save_checkpoint
        )
    else:
        if RESUME in inputs:
            shutil.copytree(inputs[RESUME], model_dir)
        if WARM_START in inputs:
            begins_from = _live_weights(inputs[WARM_START], settings)
        words = read_lines(inputs["fit_vocabulary"] / VOCABULARY_FILE)
        result = training.train(
            inputs["vectorize"],
            model_dir,
            settings,
            tags,
            context.track,
            context.save_checkpoint,
            context.on_epoch,
            out / VALIDATED,
            partial(begins_from.put_into, words=words, tags=labels) if begins_from else None,
        )
    if WARM_START in inputs:
        Learned.read(inputs[WARM_START] / "model" / learned.FILE).write(out / learned.FILE)
    training.drop_graphs(model_dir)
    temperature.fold(model_dir, result.temperature)
    warnings = _pick_thresholds(out, inputs["vectorize"], settings, tags) if settings.multi_tag else []
    return Trained(
        rows=posts.rows(inputs["vectorize"], "train"),
        checkpoint=training.checkpoint_digest(model_dir),
        warm_start=asdict(begins_from.kept(words, settings.vocabulary_size)) if begins_from else None,
        warnings=warnings,
        **asdict(result),
    )


def _pick_thresholds(out: Path, vectors: Path, settings: Settings, tags: int) -> list[str]:
    """Write the threshold of each tag, picked on the validation posts; return a warning if there are none."""
    validation = Validation(vectors, settings.vocabulary_size, tags)
    logits = checkpoint.weights(out / MODEL_DIR).logits(validation.vectors)
    thresholds.write(out / thresholds.FILE, thresholds.pick(expit(logits), validation.labels))
    if len(validation.labels):
        return []
    warning = "there are no validation posts, so the threshold of each tag is 0.5: set validation_fraction"
    log.warning("warning: %s", warning)
    return [warning]


def _live_weights(champion: Path, settings: Settings) -> Initial:
    """The weights of the live version, which the folder holds; BadInput where they do not fit this run."""
    version = json.loads((champion / CARD).read_text())["version"]
    return Initial.read(version, champion / "model", vector_mode=settings.vector_mode, several=settings.multi_tag)
