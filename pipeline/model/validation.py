"""Measure a network on the validation posts after each epoch of its training, and keep the best epoch's weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from scipy.sparse import csr_matrix, vstack

from pipeline.checks import thresholds
from pipeline.data import posts, tag_matrix
from pipeline.data.vectors import as_matrix
from pipeline.data.weights import Weights
from pipeline.model import input_fn
from pipeline.model.temperature import loss
from pipeline.progress import OnEpoch, no_report

tf1 = tf.compat.v1

BEST = "best.npz"
"""The file with the best epoch's weights, while training has not ended."""


@dataclass(frozen=True)
class Best:
    """The best epoch so far, its last step, and its weights: kernel and bias of `posts`, then those of `labels`."""

    epoch: int
    step: int
    weights: list[np.ndarray]


class Validation:
    """The validation posts, the learning curve so far, and the best epoch's weights if patience asks for them.

    `patience` is the number of epochs without a higher accuracy after which training stops; 0 for never. `curve` maps
    the last step of each epoch to its figures: `training_loss`, the mean over the epoch's recorded steps, and where
    there are validation posts their `loss` and `accuracy`. Where posts have several tags, accuracy is the share of
    posts that get exactly theirs, by a threshold of 0.5: the thresholds are picked after training.
    """

    def __init__(self, vectors: Path, columns: int, tags: int, patience: int = 0) -> None:
        batches = list(posts.batches(vectors, "validation"))
        empty = csr_matrix((0, columns), dtype=np.float32)
        self.vectors = vstack([empty, *(as_matrix(batch, columns) for batch in batches)], format="csr")
        several = posts.have_several(vectors, "validation")
        none = np.empty((0, tags), bool) if several else np.empty(0, np.int32)
        self.labels = np.concatenate([none, *(input_fn.labels(batch, tags) for batch in batches)])
        self.rows = np.concatenate([np.empty(0, np.int64), *(batch.column("row").to_numpy() for batch in batches)])
        self.logits = np.empty((0, 0), np.float32)
        self.patience = patience
        self.curve: dict[int, dict[str, float]] = {}
        self.best: Best | None = None

    def measure(self, step: int, training_loss: float, weights: list[np.ndarray]) -> None:
        """Add a point to the curve, for the epoch that ends with this step."""
        figures = self.curve[step] = {"training_loss": round(training_loss, 6)}
        if not len(self.labels):
            return
        self.logits = logits = Weights(*weights).logits(self.vectors)
        figures["loss"] = round(loss(logits, self.labels), 6)
        figures["accuracy"] = round(float(posts.correct(self._answers(logits)).mean()), 6)
        if self.patience and (self.best is None or figures["accuracy"] > self.curve[self.best.step]["accuracy"]):
            self.best = Best(len(self.curve), step, [np.array(each) for each in weights])

    def kept_logits(self) -> np.ndarray:
        """The logits of the validation posts with the weights that are kept: float32 [validation posts, tags]."""
        return Weights(*self.best.weights).logits(self.vectors) if self.best else self.logits

    def write_answers(self, file: Path) -> None:
        """Write the answer of the weights that are kept to each validation post as Parquet, if there are any."""
        if len(self.labels):
            pq.write_table(self._answers(self.kept_logits()), file)

    def _answers(self, logits: np.ndarray) -> pa.Table:
        """The labels, and those that the logits say; where posts have several, by a threshold of 0.5 for each tag."""
        label, predicted = self.labels, logits.argmax(axis=1).astype(np.int32)
        if label.ndim == 2:
            said = thresholds.chosen(logits, np.zeros(label.shape[1], np.float32))
            label, predicted = (tag_matrix.lists(csr_matrix(each)) for each in (label, said))
        return pa.table({"row": self.rows, "label": label, "predicted": predicted})

    @property
    def hopeless(self) -> bool:
        """Whether the last `patience` epochs were no better than the best."""
        return bool(self.best and len(self.curve) - self.best.epoch >= self.patience)

    def save(self, folder: Path) -> None:
        """Write the best weights, if any, beside a checkpoint; the curve is in its events."""
        if self.best:
            named = {f"weights{at}": weights for at, weights in enumerate(self.best.weights)}
            np.savez(folder / BEST, epoch=self.best.epoch, step=self.best.step, **named)

    def load(self, folder: Path, curve: dict[int, dict[str, float]]) -> None:
        """Continue with the curve, and with the weights that `save` wrote to the folder, if any; remove their file."""
        self.curve = {step: {name: round(value, 6) for name, value in point.items()} for step, point in curve.items()}
        file = folder / BEST
        if file.exists():
            with np.load(file) as found:
                weights = [found[f"weights{at}"] for at in range(len(found.files) - 2)]
                self.best = Best(int(found["epoch"]), int(found["step"]), weights)
            file.unlink()

    def table(self) -> list[dict[str, float]]:
        """The curve for the summary: the figures of each epoch, and its number."""
        return [{"epoch": number} | point for number, point in enumerate(self.curve.values(), 1)]


class ValidationHook(tf.estimator.SessionRunHook):
    """Measures after each epoch, stops a training that no longer improves, and restores the best epoch's weights."""

    def __init__(
        self,
        validation: Validation,
        done: int,
        per_epoch: int,
        steps: int,
        losses: Mapping[int, float],
        on_epoch: OnEpoch = no_report,
    ) -> None:
        """Of `steps` steps `done` were done before, an epoch has `per_epoch`; `losses` has recorded ones by step."""
        self.validation, self.step, self.per_epoch, self.steps, self.losses = validation, done, per_epoch, steps, losses
        self.on_epoch = on_epoch

    def begin(self) -> None:
        """Find the weights and the global step in the graph."""
        self.weights, self.global_step = tf1.trainable_variables(), tf1.train.get_global_step()

    def after_run(self, run_context: tf.estimator.SessionRunContext, run_values: tf.estimator.SessionRunValues) -> None:
        """Measure at the end of an epoch."""
        self.step += 1
        if self.step % self.per_epoch:
            return
        session = run_context.session
        weights = session.run(self.weights) if len(self.validation.labels) else []
        losses = [loss for step, loss in self.losses.items() if 0 <= self.step - step < self.per_epoch]
        self.validation.measure(self.step, float(np.mean(losses)), weights)
        self.on_epoch(len(self.validation.curve), self.validation.curve[self.step])
        best = self.validation.best
        if best and (self.validation.hopeless or self.step >= self.steps):
            if best.step < self.step:
                self._restore(session, best)
            run_context.request_stop()

    def _restore(self, session: Any, best: Best) -> None:
        """Set the weights, and the global step, so that they are saved as the last checkpoint."""
        for variable, value in zip([*self.weights, self.global_step], [*best.weights, best.step], strict=True):
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})
