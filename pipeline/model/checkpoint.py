"""Reads the weights of a trained network from its checkpoint."""

from pathlib import Path

import tensorflow as tf

from pipeline.data.weights import Weights

LAYERS = "layer_with_weights-{}/{}/.ATTRIBUTES/VARIABLE_VALUE"
"""The weights of the layers `posts` (0) and `labels` (1) as a converted Estimator's checkpoint names them."""


def weights(checkpoint: Path) -> Weights:
    """Read the weights from a checkpoint's folder or prefix."""
    reader = tf.train.load_checkpoint(str(checkpoint))
    return Weights(*(reader.get_tensor(LAYERS.format(layer, part)) for layer in (0, 1) for part in ("kernel", "bias")))


def weights_of_model(model: Path) -> Weights:
    """Read the weights from the variables of a SavedModel."""
    return weights(model / "variables" / "variables")
