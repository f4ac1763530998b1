"""What a published model needs of whatever computes its probabilities."""

from typing import Protocol

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from pipeline.data.weights import Weights


class Computing(Protocol):
    """Computes probabilities, float32 [posts, tags]. Its methods may be called from several threads."""

    weights: Weights
    is_light: bool
    """Whether a few posts are computed in less time than it takes to hand them to a thread."""

    def probabilities(self, posts: list[bytes]) -> np.ndarray:
        """Those of posts in UTF-8."""

    def of_column(self, posts: pa.Array) -> np.ndarray:
        """Those of many posts, an array of strings."""

    def from_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Those of vectors, float32 [posts, vocabulary_size]."""

    def vector(self, post: bytes) -> csr_matrix:
        """The vector of a post in UTF-8, float32 [1, vocabulary_size]."""

    def close(self) -> None:
        """Free its memory; it must not be asked any more."""
