"""Train the Estimator in one process, save its checkpoints for a retry, and leave the last one."""

import hashlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from pipeline.data import posts
from pipeline.errors import TrainingFailed
from pipeline.files import digest, scratch_folder
from pipeline.model import events, input_fn, network, temperature
from pipeline.model.validation import Validation, ValidationHook
from pipeline.progress import Advance, OnEpoch, SaveCheckpoint, Track, log_lines, no_checkpoint, no_report
from pipeline.settings import Settings

GLOBAL_STEP = "estimator_global_step/.ATTRIBUTES/VARIABLE_VALUE"
"""The global step as a converted Estimator's checkpoint names it; Estimator.get_variable_value does not find it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """The result of a training: its steps, the last batch's loss, the speed, and the step where it resumed.

    `curve` has the figures of each epoch, see Validation; `best_epoch` is the one whose weights are kept, None if it is
    the last because nothing else was asked for. `temperature` is what the logits are to be divided by, and
    `calibration` what that changes on the validation posts: figures of pipeline.model.temperature.measure; None if it
    was not fitted.
    """

    steps: int
    final_loss: float
    examples_per_second: float
    resumed_from_step: int
    curve: list[dict[str, float]]
    best_epoch: int | None
    temperature: float
    calibration: dict[str, dict[str, float]] | None


class ProgressHook(tf.estimator.SessionRunHook):
    """Reports each step as progress, and records the last loss, every events.EVERY-th, and each epoch's last."""

    def __init__(
        self, advance: Advance, step: int = 0, losses: Mapping[int, float] | None = None, per_epoch: int = events.EVERY
    ) -> None:
        self.advance, self.loss, self.step, self.per_epoch = advance, math.nan, step, per_epoch
        self.losses = dict(losses or {})

    def begin(self) -> None:
        """Find the loss in the graph's collection, to which Estimator adds it before its hooks begin."""
        self.tensor = tf.compat.v1.losses.get_losses()[-1]

    def before_run(self, run_context: tf.estimator.SessionRunContext) -> tf.estimator.SessionRunArgs:
        """Request the loss along with the step."""
        return tf.estimator.SessionRunArgs(self.tensor)

    def after_run(self, run_context: tf.estimator.SessionRunContext, run_values: tf.estimator.SessionRunValues) -> None:
        """Count the step and record its loss."""
        self.loss = float(run_values.results)
        self.step += 1
        if self.step % events.EVERY == 0 or self.step % self.per_epoch == 0:
            self.losses[self.step] = self.loss
        self.advance(1)


class CheckpointListener(tf.estimator.CheckpointSaverListener):
    """Records the step of the last checkpoint."""

    def __init__(self) -> None:
        self.step = 0

    def after_save(self, session: tf.compat.v1.Session, global_step_value: int) -> None:
        """Called when the checkpoint of this step is complete on the disk."""
        self.step = global_step_value


class CheckpointHook(tf.estimator.SessionRunHook):
    """Saves each checkpoint for a retry, with the learning curve up to its step.

    It must come after the ProgressHook and the ValidationHook in the list of hooks, because the listener is called
    before these have the loss.
    """

    def __init__(
        self,
        model_dir: Path,
        done: int,
        steps: int,
        progress: ProgressHook,
        save: SaveCheckpoint,
        validation: Validation | None = None,
    ) -> None:
        self.model_dir, self.done, self.steps, self.progress, self.save = model_dir, done, steps, progress, save
        self.validation, self.listener = validation, CheckpointListener()

    def after_run(self, run_context: tf.estimator.SessionRunContext, run_values: tf.estimator.SessionRunValues) -> None:
        """Save a new checkpoint, except that of the first and of the last step, which a retry could not use."""
        if not self.done < self.listener.step < self.steps:
            return
        self.done, name = self.listener.step, f"model.ckpt-{self.listener.step}"
        with scratch_folder("checkpoint") as scratch:
            for file in self.model_dir.glob(f"{name}.*"):
                shutil.copy(file, scratch)
            # TensorFlow's own file `checkpoint` contains a path of this machine.
            tf.compat.v1.train.update_checkpoint_state(scratch, name)
            events.write(scratch, self.progress.losses, self.validation.curve if self.validation else {})
            if self.validation:
                self.validation.save(scratch)
            self.save(scratch, self.done)


def step_of(model_dir: Path) -> int:
    """Read the global step of the folder's latest checkpoint; 0 if there is none."""
    return int(tf.train.load_variable(str(model_dir), GLOBAL_STEP)) if tf.train.latest_checkpoint(str(model_dir)) else 0


def train(
    vectors: Path,
    model_dir: Path,
    settings: Settings,
    tags: int,
    track: Track = log_lines,
    save: SaveCheckpoint = no_checkpoint,
    on_epoch: OnEpoch = no_report,
    answers: Path | None = None,
    prepare: Callable[[tf.keras.Model], object] | None = None,
) -> Training:
    """Train on the train vectors, from the checkpoint in `model_dir` if there is one, otherwise from the beginning.

    `prepare` may set the weights of the Keras model with which it begins.

    The seed determines the order of the batches, so a resumed training ends with the same weights as one without
    interruption, except with dropout, whose random state is not saved. With validation posts and `patience` it ends
    with the weights of the epoch that tags most of those posts correctly.

    If asked, the answers to the validation posts are written to the file `answers`.

    Raises TrainingFailed if the loss is not a finite number, and if the global step is not what the posts require.
    """
    examples = posts.rows(vectors, "train")
    per_epoch = math.ceil(examples / settings.batch_size)
    steps, done = settings.epochs * per_epoch, step_of(model_dir)
    validation, (losses, curve) = (
        Validation(vectors, settings.vocabulary_size, tags, settings.patience),
        events.read(model_dir),
    )
    validation.load(model_dir, curve)
    if done:
        log.info("resuming from the checkpoint of step %d of %d", done, steps)
    estimator = network.to_estimator(settings, tags, model_dir, prepare=prepare)
    feed = input_fn.training(
        vectors,
        columns=settings.vocabulary_size,
        tags=tags,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        done=done,
        balanced=settings.class_weights == "balanced",
    )
    start = time.monotonic()
    with track("train", "steps", steps) as advance:
        advance(done)
        progress = ProgressHook(advance, done, losses, per_epoch)
        epochs = ValidationHook(validation, done, per_epoch, steps, progress.losses, on_epoch)
        checkpoints = CheckpointHook(model_dir, done, steps, progress, save, validation)
        try:
            if done < steps:
                estimator.train(feed, hooks=[progress, epochs, checkpoints], saving_listeners=[checkpoints.listener])
        except tf.estimator.NanLossDuringTrainingError:
            raise diverged(math.nan, settings) from None
    reached, best = step_of(model_dir), validation.best
    if reached != (best.step if best else steps):
        raise TrainingFailed(
            f"global_step is {reached} after training, but {examples:,} posts require {best.step if best else steps}: "
            "the checkpoint was of another training, or the input ended early; run train again"
        )
    if not math.isfinite(progress.loss):
        raise diverged(progress.loss, settings)
    drop_initial_weights(model_dir)
    if answers:
        validation.write_answers(answers)
    events.write(model_dir, progress.losses | {progress.step: progress.loss}, validation.curve)
    is_fitted = settings.fit_temperature and len(validation.labels)
    calibrated = _fitted(validation) if is_fitted else (settings.temperature, None)
    rate = (progress.step - done) * settings.batch_size / (time.monotonic() - start)
    return Training(
        progress.step,
        progress.loss,
        round(rate, 1),
        done,
        validation.table(),
        best.epoch if best else None,
        *calibrated,
    )


def _fitted(validation: Validation) -> tuple[float, dict[str, dict[str, float]]]:
    """Fit the temperature to the validation posts, and measure them with and without it."""
    logits, labels = validation.kept_logits(), validation.labels
    found = temperature.fit(logits, labels)
    return found, {
        "without": temperature.measure(logits, labels),
        "with": temperature.measure(logits / found, labels),
    }


def diverged(loss: float, settings: Settings) -> TrainingFailed:
    """The error for a loss that is not a finite number."""
    return TrainingFailed(
        f"the loss is {loss} with learning_rate={settings.learning_rate}: the network diverged; lower learning_rate "
        "and start a new run"
    )


def drop_initial_weights(model_dir: Path) -> None:
    """Remove all but the last checkpoint; the weights before the first step would double the folder."""
    shutil.rmtree(model_dir / "keras")
    latest = tf.train.latest_checkpoint(str(model_dir))
    for file in model_dir.glob("model.ckpt-*"):
        if not file.name.startswith(f"{Path(latest).name}."):
            file.unlink()
    tf.compat.v1.train.update_checkpoint_state(str(model_dir), Path(latest).name)


def drop_graphs(model_dir: Path) -> None:
    """Remove the graphs and events that TensorFlow writes: nothing reads them, and their bytes differ each time."""
    for pattern in ("*.meta", "graph.pbtxt", "events.out.tfevents.*"):
        for file in model_dir.glob(pattern):
            file.unlink()


def checkpoint_digest(model_dir: Path) -> str:
    """The sha256 over the names and digests of the latest checkpoint's files, which identifies the trained model."""
    files = sorted(model_dir.glob(Path(tf.train.latest_checkpoint(str(model_dir))).name + ".*"))
    lines = [f"{file.name} {digest(file)}" for file in files if file.suffix != ".meta"]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
