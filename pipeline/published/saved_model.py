"""Computes the probabilities of posts by a SavedModel, of versions that were published without a file of weights.

It is imported only where such a version is asked, because it imports TensorFlow.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from pipeline.data.text_rule import TextRule, example_texts
from pipeline.data.vectors import Vectorizer
from pipeline.data.weights import Weights
from pipeline.data.words import of_texts
from pipeline.errors import CorruptArtifact
from pipeline.model import checkpoint, serving

FEW = 64
"""Up to so many posts the graph is faster than vectors made on Arrow, whose cost is one millisecond a batch."""

TOLERANCE = 1e-5
"""How much a probability by the graph may differ from the one by vectors made on Arrow."""


class SavedModel:
    """A SavedModel in memory. May be asked from several threads."""

    is_light = False

    def __init__(self, folder: Path, rule: TextRule | None) -> None:
        """Load it; the `rule` is None where only the graph knows how to read posts, as in versions of old pipelines."""
        self._open, self._rule = ExitStack(), rule
        self._served = self._open.enter_context(serving.opened(folder))
        self._vectorizer = Vectorizer(rule.vocabulary, rule.size, rule.mode) if rule else None
        try:
            self.weights: Weights = checkpoint.weights_of_model(folder)
            self._refuse_disagreement()
        except BaseException:
            self.close()
            raise

    def probabilities(self, posts: list[bytes]) -> np.ndarray:
        """As Arrays.probabilities."""
        if self._vectorizer is None or len(posts) <= FEW:
            return self._served.tag(posts)["probabilities"]
        return self.of_column(of_texts([post.decode(errors="replace").encode() for post in posts]))

    def of_column(self, posts: pa.Array) -> np.ndarray:
        """As Arrays.of_column."""
        if self._vectorizer is None:
            texts = posts.cast(pa.binary()).to_numpy(zero_copy_only=False)
            return self._served.tag(texts)["probabilities"]
        return self._served.from_cells(self._vectorizer.matrix(posts))

    def from_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """As Arrays.from_vectors."""
        return self._served.from_vectors(vectors)

    def vector(self, post: bytes) -> csr_matrix:
        """As Arrays.vector."""
        return self._served.tag_and_vectors([post])[1]

    def close(self) -> None:
        """Free the memory of the model, which must not be asked any more."""
        self._open.close()

    def _refuse_disagreement(self) -> None:
        """Raise CorruptArtifact where the graph and the text rule give other answers; this also warms the graph up."""
        if self._rule is None:
            return
        posts = [text.encode() for text in example_texts(self._rule.vocabulary)]
        many = self.of_column(of_texts(posts))
        if not np.allclose(self.probabilities(posts), many, atol=TOLERANCE):
            raise CorruptArtifact("the model cannot be opened: its graph and its text rule give different answers")
