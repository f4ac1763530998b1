"""Temperature scaling: divides a trained network's logits by a number, so that its probabilities are as often right.

Guo et al. 2017, On Calibration of Modern Neural Networks (https://arxiv.org/abs/1706.04599). The tags stay the same.
"""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from pipeline.checks.calibration import calibration

LOWEST, HIGHEST = 0.05, 20.0

LAST_LAYER = "layer_with_weights-1/{}/.ATTRIBUTES/VARIABLE_VALUE"
"""The weights of the layer `labels` as a converted Estimator's checkpoint names them: its kernel and its bias."""


def fit(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature with the lowest loss (mean cross-entropy), to four digits; 1 if none is better than that.

    `logits` are float [posts, tags] of posts that the network was not trained on; `labels` as for loss.
    """
    found = minimize_scalar(
        lambda log: loss(logits / math.exp(log), labels),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
    )
    temperature = float(f"{math.exp(found.x):.4g}")
    return temperature if loss(logits / temperature, labels) < loss(logits, labels) else 1.0


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The loss and the expected calibration error (see pipeline.checks.calibration) of logits and labels as for fit."""
    several = labels.ndim == 2
    probabilities = expit(logits) if several else softmax(logits, axis=1)
    best = probabilities.argmax(axis=1)
    right = labels[np.arange(len(labels)), best] if several else best == labels
    error = calibration(probabilities.max(axis=1), right)["expected_error"]
    return {"loss": round(loss(logits, labels), 6), "calibration_error": error}


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean cross-entropy of the labels, int [posts]; of all tags where posts have several, bool [posts, tags]."""
    if labels.ndim == 2:
        return float((np.logaddexp(0, logits) - logits * labels).mean())
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def fold(model_dir: Path, temperature: float) -> None:
    """Divide the last layer's weights in the latest checkpoint, and so the logits of whoever uses it."""
    if temperature == 1:
        return
    path = tf.train.latest_checkpoint(str(model_dir))
    reader = tf.train.load_checkpoint(path)
    names = sorted(reader.get_variable_to_shape_map())
    tensors = {name: reader.get_tensor(name) for name in names}
    for part in ("kernel", "bias"):
        tensors[LAST_LAYER.format(part)] /= np.float32(temperature)
    for file in model_dir.glob(f"{Path(path).name}.data-*"):
        file.unlink()
    tf.raw_ops.SaveV2(
        prefix=path, tensor_names=names, shape_and_slices=[""] * len(names), tensors=[tensors[name] for name in names]
    )
