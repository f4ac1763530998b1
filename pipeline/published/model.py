"""A published model: everything that its folder says, in one object that answers texts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.checks import thresholds
from pipeline.data import LABELS
from pipeline.data import weights as weights_file
from pipeline.data.text_rule import TextRule, example_texts
from pipeline.data.threads import THREADS, in_order
from pipeline.data.vocabulary import VOCABULARY_FILE
from pipeline.data.weights import Weights
from pipeline.errors import CorruptArtifact
from pipeline.files import read_lines
from pipeline.published.answers import Answers
from pipeline.published.arrays import Arrays
from pipeline.published.attribution import Attribution
from pipeline.published.computing import Computing

WORDS = 8
"""How many words that speak for a tag are named at most."""


class PublishedModel:
    """A published model in memory. Its methods may be called from several threads.

    `labels` are its tags in the order of the probabilities. `limits` are the probabilities from which a post gets them,
    float32 [tags], or None where each post gets one tag. `rule` says how texts become vectors; it is None of a version
    of an old pipeline, whose graph alone knows. `version` is 0 for a model that has no number yet.
    """

    def __init__(
        self, version: int, labels: list[str], limits: np.ndarray | None, rule: TextRule | None, computing: Computing
    ) -> None:
        self.version, self.labels, self.limits, self.rule = version, labels, limits, rule
        self._computing, self._attribution = computing, Attribution(computing.weights)

    @classmethod
    def open(cls, folder: Path, version: int = 0) -> "PublishedModel":
        """Open the model whose files are in a local folder, which is not needed any more afterwards.

        Raises CorruptArtifact if a file cannot be read or does not fit the others, or if an answer is not a
        distribution over the tags, or where posts have several tags not a probability for each.
        """
        with _as_corrupt():
            labels, limits = read_lines(folder / "assets" / LABELS), thresholds.of_model(folder)
            rule = TextRule.of_model(folder)
            model = cls(version, labels, limits, rule, _computing(folder, rule, len(labels), limits is not None))
            try:
                model._refuse_bad_answers()
            except BaseException:
                model.close()
                raise
            return model

    @property
    def is_light(self) -> bool:
        """Whether a few posts are answered in less time than it takes to hand them to a thread."""
        return self._computing.is_light

    @property
    def vector_size(self) -> int:
        """How many numbers a vector has."""
        return len(self._computing.weights.posts_kernel)

    def answer(self, texts: Sequence[str | bytes]) -> Answers:
        """Decide what the texts get; bytes are UTF-8. What is no Unicode in them counts as unknown characters."""
        posts = [text.encode(errors="replace") if isinstance(text, str) else text for text in texts]
        return self._decided(self._computing.probabilities(posts))

    def answer_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, Answers]]:
        """Yield each batch, in order, with the answers to its column `post`; threads compute a few of them ahead."""

        def answered(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Answers]:
            return batch, self._decided(self._computing.of_column(batch.column("post")))

        return in_order(answered, batches, THREADS)

    def from_vectors(self, vectors: np.ndarray) -> Answers:
        """Decide what posts with these vectors get: float32 [posts, vocabulary_size]."""
        return self._decided(self._computing.from_vectors(vectors))

    def words_for(self, post: bytes, label: int) -> list[tuple[str, float]]:
        """The words of the post that add most to the label's logit, and how much, the strongest first."""
        if self.rule is None:
            return []
        columns, sums = self._attribution.contributions(self._computing.vector(post), label)
        best = [at for at in np.argsort(-sums, kind="stable")[:WORDS] if sums[at] > 0 and columns[at] > 0]
        words = self.rule.vocabulary.words
        return [(words[int(columns[at]) - 1].as_py(), float(sums[at])) for at in best]

    def close(self) -> None:
        """Free the memory of the model, which must not be asked any more."""
        self._computing.close()

    def _decided(self, probabilities: np.ndarray) -> Answers:
        return Answers.of(self.version, self.labels, probabilities, self.limits)

    def _refuse_bad_answers(self) -> None:
        """Raise CorruptArtifact where answers to a few texts of the model's own words are no probabilities."""
        texts = example_texts(self.rule.vocabulary) if self.rule else [""]
        shape, limits = (len(texts), len(self.labels)), self.limits
        probabilities = self._computing.probabilities([text.encode() for text in texts])
        are_probabilities = probabilities.shape == shape and bool(((probabilities >= 0) & (probabilities <= 1)).all())
        if are_probabilities and limits is None:
            are_probabilities = np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)
        if not are_probabilities or (limits is not None and len(limits) != len(self.labels)):
            raise CorruptArtifact("the model cannot be opened: its answers are not probabilities")


def _computing(folder: Path, rule: TextRule | None, tags: int, several: bool) -> Computing:
    """What computes the model's probabilities: its weights, or where it has no file of them its SavedModel."""
    file = folder / weights_file.FILE
    if rule is None or not file.exists():
        from pipeline.published.saved_model import SavedModel  # imports TensorFlow

        return SavedModel(folder, rule)
    if rule.vocabulary.words.to_pylist() != read_lines(folder / "assets" / VOCABULARY_FILE):
        raise CorruptArtifact("the model cannot be opened: its graph and its text rule have different words")
    return Arrays(rule, Weights.read(file, columns=rule.size, tags=tags), several=several)


@contextmanager
def _as_corrupt() -> Iterator[None]:
    """Raise CorruptArtifact in place of an error of any other kind, because a file may hold anything."""
    try:
        yield
    except CorruptArtifact:
        raise
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise CorruptArtifact(f"the model cannot be opened: {type(error).__name__}: {why}") from error
