"""Begins a training from a published model's weights, whose words and tags are matched by name."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.checks import thresholds
from pipeline.data import LABELS
from pipeline.data.text_rule import EXTRA, RULE
from pipeline.data.vocabulary import VOCABULARY_FILE
from pipeline.data.weights import Weights
from pipeline.errors import BadInput
from pipeline.files import read_lines
from pipeline.model import checkpoint, serving

CURE = "or set warm_start=none"


@dataclass(frozen=True)
class WarmStart:
    """The version whose weights a training began from: its words that are kept, new ones, and lost ones."""

    version: int
    words_kept: int
    words_new: int
    words_lost: int


@dataclass(frozen=True)
class Initial:
    """A version's weights, and what their rows stand for."""

    version: int
    words: list[str]
    tags: list[str]
    weights: Weights

    @classmethod
    def read(cls, version: int, saved_model: Path, *, vector_mode: str, several: bool = False) -> "Initial":
        """Read a version's SavedModel.

        Raises BadInput where it cannot be read, has other kinds of vectors, or only one of the two, it and the run, is
        for posts with `several` tags.
        """
        try:
            weights = checkpoint.weights_of_model(saved_model)
            words, tags = (read_lines(saved_model / "assets" / name) for name in (VOCABULARY_FILE, LABELS))
            rule = json.loads((saved_model / EXTRA / RULE).read_text())
        except (serving.ERRORS, OSError, ValueError) as error:
            raise BadInput(
                f"warm_start=live: version {version}, which is live, cannot be read ({type(error).__name__}): run "
                f"`tagger verify {version}`, {CURE}"
            ) from error
        if rule["vector_mode"] != vector_mode:
            raise BadInput(
                f"warm_start=live: version {version}, which is live, reads vectors of the mode {rule['vector_mode']}, "
                f"and this run makes {vector_mode}: set vector_mode={rule['vector_mode']}, {CURE}"
            )
        if several != (thresholds.of_model(saved_model) is not None):
            raise BadInput(
                f"warm_start=live: version {version}, which is live, gives a post {'one tag' if several else 'several'}"
                f", and this run's model {'several' if several else 'one'}: {CURE.removeprefix('or ')}"
            )
        return cls(version, words, tags, weights)

    def kept(self, words: list[str], columns: int) -> WarmStart:
        """What is kept of the version in a network of so many columns, whose words these are."""
        kept = len(self._places(words, columns))
        known, own = min(len(words), columns - 1), min(len(self.words), len(self.weights.posts_kernel) - 1)
        return WarmStart(self.version, kept, known - kept, own - kept)

    def _places(self, words: list[str], columns: int) -> list[tuple[int, int]]:
        """The column of each word that the version knows, too: in a network of so many columns, and in its own."""
        # Column 0 stands for unknown words, so that of word i is i + 1.
        own = {word: column for column, word in enumerate(self.words, 1) if column < len(self.weights.posts_kernel)}
        return [(column, own[word]) for column, word in enumerate(words, 1) if word in own and column < columns]

    def put_into(self, model: Any, words: list[str], tags: list[str]) -> None:
        """Set the weights of the Keras model's layers for the words and tags that the version knows, too.

        `words` and `tags` are this run's. What is new keeps the weights that it was drawn. Raises BadInput where the
        hidden layers differ in size.
        """
        kernel, _ = model.get_layer("posts").get_weights()
        units = len(self.weights.posts_bias)
        if kernel.shape[1] != units:
            raise BadInput(
                f"warm_start=live: version {self.version}, which is live, has hidden_units={units}, and this run "
                f"{kernel.shape[1]}: set them equal, {CURE}"
            )
        for new, old in self._places(words, len(kernel)):
            kernel[new] = self.weights.posts_kernel[old]
        model.get_layer("posts").set_weights([kernel, self.weights.posts_bias])
        outputs, bias = model.get_layer("labels").get_weights()
        places = {tag: column for column, tag in enumerate(self.tags)}
        for column, tag in enumerate(tags):
            if tag in places:
                outputs[:, column] = self.weights.labels_kernel[:, places[tag]]
                bias[column] = self.weights.labels_bias[places[tag]]
        model.get_layer("labels").set_weights([outputs, bias])
