"""Finds the words that speak most for each tag: how much each adds to the tag's logit in the posts that have it.

Gradient times input, which for relu units divides a logit exactly among its inputs, but for the biases: Shrikumar et
al. 2016, Not Just a Black Box (https://arxiv.org/abs/1605.01713).
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix

LAYERS = "layer_with_weights-{}/{}/.ATTRIBUTES/VARIABLE_VALUE"
"""The weights of the layers `posts` (0) and `labels` (1) as a converted Estimator's checkpoint names them."""


def weights(checkpoint: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read kernel and bias of the layer `posts`, and those of `labels`, from a checkpoint's folder or prefix."""
    reader = tf.train.load_checkpoint(str(checkpoint))
    posts, labels = ([reader.get_tensor(LAYERS.format(layer, part)) for part in ("kernel", "bias")] for layer in (0, 1))
    return posts, labels


class Network:
    """The weights of a trained network, as arrays."""

    def __init__(self, model_dir: Path) -> None:
        (self.kernel, self.bias), (labels, _) = weights(model_dir)
        # What all tags have in common speaks for none of them.
        self.labels = labels - labels.mean(axis=1, keepdims=True)

    def contributions(self, vectors: csr_matrix, tag: int) -> tuple[np.ndarray, np.ndarray]:
        """How much each column adds to the tag's logit, beyond the mean of all tags, summed over the posts.

        `vectors` are float32 [posts, vocabulary_size]. Returns the columns that occur, and their sums.
        """
        columns = np.unique(vectors.indices)
        present, kernel = vectors[:, columns], self.kernel[columns]
        active = (present @ kernel + self.bias) > 0
        slopes = active * self.labels[:, tag]
        return columns, np.einsum("cu,cu->c", np.asarray(present.T @ slopes), kernel)


def strongest(network: Network, vectors: csr_matrix, labels: np.ndarray, tags: int, count: int) -> list[list[int]]:
    """For each tag the `count` columns that add most to its logit in its own posts, the strongest first.

    `labels` are the posts' tags, int [posts] or where they have several bool [posts, tags]. Columns that add nothing
    are left out.
    """
    found = []
    for tag in range(tags):
        own = labels[:, tag] if labels.ndim == 2 else labels == tag
        columns, sums = network.contributions(vectors[np.flatnonzero(own)], tag)
        best = np.argsort(-sums, kind="stable")[:count]
        found.append(columns[best[sums[best] > 0]].tolist())
    return found
