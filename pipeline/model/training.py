"""Train the Estimator, watch its steps, and keep what came of it."""

import hashlib
import logging
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tensorflow as tf

from pipeline import checkpoints, progress
from pipeline.data import posts
from pipeline.errors import TrainingFailed
from pipeline.files import digest
from pipeline.model import input_fn, network
from pipeline.settings import Settings

GLOBAL_STEP = "estimator_global_step/.ATTRIBUTES/VARIABLE_VALUE"
"""The global step as a converted Estimator's checkpoint names it; Estimator.get_variable_value does not find it."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """How training went: the Estimator's global step, the last batch's loss, the pace, and where this try began."""

    steps: int
    final_loss: float
    examples_per_second: float
    resumed_from_step: int


class Watch(tf.estimator.SessionRunHook):
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


class Keeper(tf.estimator.CheckpointSaverListener):
    """Hands out each checkpoint as soon as it is on the disk."""

    def __init__(self, model_dir: Path, steps: int) -> None:
        self.model_dir, self.steps = model_dir, steps

    def after_save(self, session: tf.compat.v1.Session, global_step_value: int) -> None:
        """A checkpoint of this step is whole; the first and the last are of no use to a later try."""
        if 0 < global_step_value < self.steps:
            name = f"model.ckpt-{global_step_value}"
            with TemporaryDirectory(prefix="tagger-checkpoint-") as scratch:
                for file in self.model_dir.glob(f"{name}.*"):
                    shutil.copy(file, scratch)
                # TensorFlow's own note of the latest checkpoint holds this machine's path.
                tf.compat.v1.train.update_checkpoint_state(scratch, name)
                checkpoints.save(Path(scratch), int(global_step_value))


def step_of(model_dir: Path) -> int:
    """The global step of the folder's checkpoint; 0 where there is none."""
    return int(tf.train.load_variable(str(model_dir), GLOBAL_STEP)) if tf.train.latest_checkpoint(str(model_dir)) else 0


def train(vectors: Path, model_dir: Path, settings: Settings, tags: int) -> Training:
    """Train on the train vectors into `model_dir`: from the checkpoint it holds, or from the beginning.

    The order of the batches is the seed's, so a try that goes on ends where one without interruption would have
    (but for dropout, whose draws are not kept).

    Raises TrainingFailed for a loss that is no number and for a global step that is not what the data asks for.
    """
    examples = posts.rows(vectors, "train")
    steps = settings.epochs * math.ceil(examples / settings.batch_size)
    done = step_of(model_dir)
    if done:
        log.info("going on from step %d of %d, where an earlier try was", done, steps)
    estimator = network.to_estimator(settings, tags, model_dir)
    feed = input_fn.training(
        vectors,
        columns=settings.vocabulary_size,
        tags=tags,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        done=done,
    )
    start = time.monotonic()
    with progress.track("train", "steps", steps) as advance:
        advance(done)
        watch = Watch(advance)
        try:
            if done < steps:
                estimator.train(feed, hooks=[watch], saving_listeners=[Keeper(model_dir, steps)])
        except tf.estimator.NanLossDuringTrainingError:
            raise diverged(math.nan, settings) from None
    reached = step_of(model_dir)
    if reached != steps:
        raise TrainingFailed(
            f"global_step is {reached} after training where {examples:,} posts make {steps}: "
            "the model's folder was not empty or the input ended early; run train again"
        )
    if not math.isfinite(watch.loss):
        raise diverged(watch.loss, settings)
    drop_initial_weights(model_dir)
    rate = (steps - done) * settings.batch_size / (time.monotonic() - start)
    return Training(reached, watch.loss, round(rate, 1), done)


def diverged(loss: float, settings: Settings) -> TrainingFailed:
    """The error that tells of such a loss."""
    return TrainingFailed(
        f"the loss is {loss} with learning_rate={settings.learning_rate}: the network diverged; lower learning_rate "
        "and start a new run"
    )


def drop_initial_weights(model_dir: Path) -> None:
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
