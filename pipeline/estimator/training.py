"""Train the Estimator, watch its steps, and keep what came of it."""

import hashlib
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from pipeline import posts, progress
from pipeline.errors import TrainingFailed
from pipeline.estimator import input_fn, network
from pipeline.files import digest
from pipeline.settings import Settings

GLOBAL_STEP = "estimator_global_step/.ATTRIBUTES/VARIABLE_VALUE"
"""The global step as a converted Estimator's checkpoint names it; Estimator.get_variable_value does not find it."""


@dataclass(frozen=True)
class Training:
    """How training went: the Estimator's global step, the last batch's loss, and the pace."""

    steps: int
    final_loss: float
    examples_per_second: float


class _Watch(tf.estimator.SessionRunHook):
    """Counts steps for the progress display, and remembers the last loss."""

    def __init__(self, advance: progress.Advance) -> None:
        self.advance, self.loss = advance, math.nan

    def begin(self) -> None:
        """Find the loss in the graph's collection, where Estimator puts it before its hooks begin."""
        self.tensor = tf.compat.v1.losses.get_losses()[-1]

    def before_run(self, run_context: tf.estimator.SessionRunContext) -> tf.estimator.SessionRunArgs:
        """Ask for the loss with the step that is run anyway."""
        return tf.estimator.SessionRunArgs(self.tensor)

    def after_run(self, run_context: tf.estimator.SessionRunContext, run_values: tf.estimator.SessionRunValues) -> None:
        """One step is done."""
        self.loss = float(run_values.results)
        self.advance(1)


def train(vectors: Path, model_dir: Path, settings: Settings, tags: int) -> Training:
    """Train on the train vectors into an empty `model_dir`.

    Raises TrainingFailed for a loss that is no number and for a global step that is not what the data asks for.
    """
    examples = posts.rows(vectors, "train")
    steps = settings.epochs * math.ceil(examples / settings.batch_size)
    estimator = network.to_estimator(settings, tags, model_dir)
    feed = input_fn.training(
        vectors,
        columns=settings.vocabulary_size,
        tags=tags,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
    )
    start = time.monotonic()
    with progress.track("train", "steps", steps) as advance:
        watch = _Watch(advance)
        try:
            estimator.train(feed, hooks=[watch])
        except tf.estimator.NanLossDuringTrainingError:
            watch.loss = math.nan
    if not math.isfinite(watch.loss):
        raise TrainingFailed(
            f"the loss is {watch.loss} with learning_rate={settings.learning_rate}: the network diverged; "
            "lower learning_rate and start a new run"
        )
    reached = int(tf.train.load_variable(str(model_dir), GLOBAL_STEP))
    if reached != steps:
        raise TrainingFailed(
            f"global_step is {reached} after training where {examples:,} posts make {steps}: "
            "the model's folder was not empty or the input ended early; run train again"
        )
    _drop_initial_weights(model_dir)
    seconds = time.monotonic() - start
    return Training(reached, watch.loss, round(settings.epochs * examples / seconds, 1))


def _drop_initial_weights(model_dir: Path) -> None:
    """Leave the last checkpoint only: the weights before the first step double the folder and are of no use."""
    shutil.rmtree(model_dir / "keras")
    latest = tf.train.latest_checkpoint(str(model_dir))
    for file in model_dir.glob("model.ckpt-*"):
        if not file.name.startswith(f"{Path(latest).name}."):
            file.unlink()
    tf.compat.v1.train.update_checkpoint_state(str(model_dir), Path(latest).name)


def checkpoint_digest(model_dir: Path) -> str:
    """sha256 over the latest checkpoint's files: what tells one trained model from another."""
    files = sorted(model_dir.glob(Path(tf.train.latest_checkpoint(str(model_dir))).name + ".*"))
    kept = [f"{file.name} {digest(file)}" for file in files if file.suffix != ".meta"]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()
