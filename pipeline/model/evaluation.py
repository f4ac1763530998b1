"""Evaluates an Estimator, and hands out its answer to each batch on the way."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.data.signatures import OUTPUT


class _AnswersHook(tf.estimator.SessionRunHook):
    """Requests the network's output along with each batch's metrics."""

    def __init__(self, output: tf.Tensor, each: Callable[[np.ndarray], None]) -> None:
        self.output, self.each = output, each

    def before_run(self, run_context: tf.estimator.SessionRunContext) -> tf.estimator.SessionRunArgs:
        """Request the output."""
        return tf.estimator.SessionRunArgs(self.output)

    def after_run(self, run_context: tf.estimator.SessionRunContext, run_values: tf.estimator.SessionRunValues) -> None:
        """Hand out the output."""
        self.each(run_values.results)


def evaluate(
    estimator: tf.estimator.Estimator,
    feed: Callable[[], tf.data.Dataset],
    each: Callable[[np.ndarray], None],
) -> dict[str, float]:
    """Return the Estimator's own metrics, and call `each` with the probabilities of each batch, float32 [n, tags].

    Estimator.evaluate and Estimator.predict, one after the other, would read and feed all vectors twice.
    """

    def model_fn(features: Any, labels: Any, mode: str, config: Any) -> tf.estimator.EstimatorSpec:
        spec = estimator.model_fn(features, labels, mode, config)
        return spec._replace(evaluation_hooks=[*spec.evaluation_hooks, _AnswersHook(spec.predictions[OUTPUT], each)])

    measured = tf.estimator.Estimator(model_fn, model_dir=estimator.model_dir, config=estimator.config).evaluate(feed)
    return {name: float(figure) for name, figure in measured.items()}
