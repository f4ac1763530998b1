"""Finds the words that speak most for each tag: how much each adds to the tag's logit in the posts that have it.

Gradient times input, which for relu units divides a logit exactly among its inputs, but for the biases: Shrikumar et
al. 2016, Not Just a Black Box (https://arxiv.org/abs/1605.01713).
"""

import numpy as np
from scipy.sparse import csr_matrix

from pipeline.data.weights import Weights


class Attribution:
    """Divides the logits of a trained network among the words of posts."""

    def __init__(self, weights: Weights) -> None:
        self.kernel, self.bias = weights.posts_kernel, weights.posts_bias
        # What all tags have in common speaks for none of them.
        self.labels = weights.labels_kernel - weights.labels_kernel.mean(axis=1, keepdims=True)

    def contributions(self, vectors: csr_matrix, tag: int) -> tuple[np.ndarray, np.ndarray]:
        """How much each column adds to the tag's logit, beyond the mean of all tags, summed over the posts.

        `vectors` are float32 [posts, vocabulary_size]. Returns the columns that occur, and their sums.
        """
        columns = np.unique(vectors.indices)
        present, kernel = vectors[:, columns], self.kernel[columns]
        active = (present @ kernel + self.bias) > 0
        slopes = active * self.labels[:, tag]
        return columns, np.einsum("cu,cu->c", np.asarray(present.T @ slopes), kernel)


def strongest(of: Attribution, vectors: csr_matrix, labels: np.ndarray, tags: int, count: int) -> list[list[int]]:
    """For each tag the `count` columns that add most to its logit in its own posts, the strongest first.

    `labels` are the posts' tags, int [posts] or where they have several bool [posts, tags]. Columns that add nothing
    are left out.
    """
    found = []
    for tag in range(tags):
        own = labels[:, tag] if labels.ndim == 2 else labels == tag
        columns, sums = of.contributions(vectors[np.flatnonzero(own)], tag)
        best = np.argsort(-sums, kind="stable")[:count]
        found.append(columns[best[sums[best] > 0]].tolist())
    return found
