"""A version that is loaded to answer: from texts or vectors to probabilities, and the words that speak for a tag."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.vectors import Vectorizer
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import CorruptArtifact
from pipeline.files import read_lines
from pipeline.model import attribution, input_fn, serving, tagging, warmup
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.stages.plan import LABELS

FEW = 64
"""Up to so many posts the graph is faster than vectors made on Arrow, whose cost is one millisecond a batch."""

TOLERANCE = 1e-5
"""How much a probability by the graph may differ from the one by vectors made on Arrow."""

WORDS = 8


class Loaded:
    """A version in memory. Its methods may be called from several threads."""

    def __init__(self, version: int, folder: Path) -> None:
        """Load the SavedModel, compute its warm-up requests, and compare what its two ways of computing give.

        Raises CorruptArtifact if it cannot be loaded, or the two differ, or an answer is no distribution over its tags,
        or where posts have several tags no probability for each.
        """
        self.version = version
        self._open = ExitStack()
        try:
            self._served = self._open.enter_context(serving.opened(folder))
            self.labels = read_lines(folder / "assets" / LABELS)
            self.limits = serving.thresholds_of(folder)
            self._network = attribution.Network(folder / "variables" / "variables")
            rule = serving.text_rule(folder)
            # Versions of older pipelines have no text rule: only the graph knows how to read posts.
            self._vocabulary = rule.vocabulary if rule else None
            self._vectorizer = Vectorizer(rule.vocabulary, rule.size, rule.mode) if rule else None
            self._size = rule.size if rule else 0
            self._warm_up(warmup.read(folder), rule.vocabulary if rule else None)
        except Exception as error:  # whatever it is: the version before goes on answering
            self.close()
            if isinstance(error, CorruptArtifact):
                raise
            why = str(error).partition("\n")[0]
            raise CorruptArtifact(f"version {version} cannot be served: {type(error).__name__}: {why}") from error

    @classmethod
    def of(cls, registry: Registry, version: int) -> "Loaded":
        """Fetch a published version and load it. Raises BadInput if there is none, CorruptArtifact as above."""
        with model_cache.opened(registry, version) as folder:
            return cls(version, folder)

    @property
    def signatures(self) -> dict[str, Any]:
        """The SavedModel's signatures by name, as SignatureDef messages."""
        return self._served.signatures

    @property
    def vector_size(self) -> int:
        """How many numbers a vector of the signature `vectors` has."""
        return int(self.signatures[serving.VECTORS].inputs[serving.FEATURE].tensor_shape.dim[1].size)

    def probabilities(self, posts: list[bytes]) -> np.ndarray:
        """Compute the probabilities of the posts, UTF-8: float32 [posts, tags]."""
        if self._vectorizer is None or len(posts) <= FEW:
            return self._served.tag(posts)["probabilities"]
        texts = pa.array([post.decode(errors="replace") for post in posts], pa.string())
        return self._served.from_cells(input_fn.vectors(self._vectorizer.vectors(texts), self._size))

    def given(self, probabilities: np.ndarray) -> tuple[np.ndarray, list[str] | None]:
        """What the version gives posts with these probabilities, see pipeline.model.tagging."""
        return tagging.given(probabilities, self.labels, self.limits)

    def from_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Compute the probabilities of dense vectors, float32 [n, vocabulary_size]: float32 [n, tags]."""
        return self._served.from_vectors(vectors)

    def words_for(self, post: bytes, tag: int) -> list[tuple[str, float]]:
        """The words of the post that add most to the tag's logit, and how much, the strongest first; at most WORDS."""
        if self._vocabulary is None:
            return []
        _, vectors = self._served.tag_and_vectors([post])
        columns, sums = self._network.contributions(vectors, tag)
        words = self._vocabulary.words
        best = [at for at in np.argsort(-sums, kind="stable")[:WORDS] if sums[at] > 0]
        return [(words[int(columns[at]) - 1].as_py(), float(sums[at])) for at in best if columns[at] > 0]

    def close(self) -> None:
        """Free the memory of the version, which must not be asked any more."""
        self._open.close()

    def _are_probabilities(self, answer: np.ndarray) -> bool:
        if self.limits is not None:
            return len(self.limits) == len(self.labels) and bool(((answer >= 0) & (answer <= 1)).all())
        return np.allclose(answer.sum(axis=1), 1, atol=1e-3)

    def _warm_up(self, requests: list[list[bytes]], vocabulary: Vocabulary | None) -> None:
        if not requests and vocabulary:
            requests = [[text.encode() for text in warmup.texts(vocabulary)]]
        for posts in requests or [[b""]]:
            answer = self._served.tag(posts)["probabilities"]
            if answer.shape != (len(posts), len(self.labels)) or not self._are_probabilities(answer):
                raise CorruptArtifact(f"version {self.version} cannot be served: its answers are no probabilities")
            many = posts * (FEW + 1)
            if not np.allclose(self.probabilities(many)[: len(posts)], answer, atol=TOLERANCE):
                raise CorruptArtifact(
                    f"version {self.version} cannot be served: its graph and its text rule give different answers"
                )
