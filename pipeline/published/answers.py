"""What a published model answers to posts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.checks import thresholds
from pipeline.data.several_tags import SEPARATOR


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to some posts: the best tag of each, its probability, and all probabilities.

    `tags` are texts, `best` is float32 [posts], `probabilities` float32 [posts, tags], in the order of `labels`. Where
    posts may have several tags, `several` has the text of all that each gets, such as `pandas|python`; else it is None.
    `version` is that of the model that was asked, 0 for one without a number.
    """

    version: int
    labels: list[str]
    tags: list[str]
    best: np.ndarray
    probabilities: np.ndarray
    several: list[str] | None = None

    @classmethod
    def of(cls, version: int, labels: list[str], probabilities: np.ndarray, limits: np.ndarray | None) -> "Answers":
        """Decide what posts with these probabilities get.

        `limits` are the thresholds of a model that gives posts several tags, float32 [tags], else None.
        """
        several = None
        if limits is None:
            first = probabilities.argmax(axis=1)
        else:
            chosen = thresholds.chosen(probabilities, limits)
            first = thresholds.first(probabilities, chosen)
            several = [SEPARATOR.join(labels[label] for label in np.flatnonzero(row)) for row in chosen]
        tags = [labels[label] for label in first.tolist()]
        return cls(version, labels, tags, probabilities[np.arange(len(first)), first], probabilities, several)

    @property
    def given(self) -> list[str]:
        """The tag that each post gets, or the text of all tags that it gets."""
        return self.tags if self.several is None else self.several

    def outputs(self) -> dict[str, Any]:
        """The outputs of the SavedModel's signature serving_default."""
        several = {} if self.several is None else {"tags": self.several}
        return {"tag": self.tags} | several | {"probability": self.best, "probabilities": self.probabilities}

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, part: slice) -> "Answers":
        """The answers to some of the posts."""
        several = None if self.several is None else self.several[part]
        return Answers(self.version, self.labels, self.tags[part], self.best[part], self.probabilities[part], several)
