"""The probability from which a post gets a tag, where it may have several; picked for each tag on validation posts."""

import json
from pathlib import Path

import numpy as np

from pipeline.data.text_rule import EXTRA

FILE = "thresholds.json"
"""What `train` leaves, and an extra asset of a model that gives a post several tags: a threshold for each label."""

UNPICKED = 0.5
"""The threshold of each tag where there are no validation posts."""

FEW = 10
"""A tag that fewer validation posts have gets the threshold that suits all tags together."""


def chosen(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Which tags each post gets, bool [posts, tags]: those that reach their threshold, or else the most probable one.

    A post without any tag would say nothing, and every post on Stack Overflow has one. `probabilities` are float32
    [posts, tags], and `thresholds` float32 [tags].
    """
    reached: np.ndarray = probabilities >= thresholds
    none = np.flatnonzero(~reached.any(axis=1))
    reached[none, probabilities[none].argmax(axis=1)] = True
    return reached


def first(probabilities: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The most probable of the tags that each post gets: int [posts]."""
    place: np.ndarray = np.where(chosen, probabilities, -1).argmax(axis=1)
    return place


def pick(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The threshold with the highest F1 score of each tag: float32 [tags].

    `probabilities`, float32 [posts, tags], are of posts that the network was not trained on, and `truth`, bool [posts,
    tags], says which tags these have. Picking by tag is the strategy SCut of Yang 2001, A Study on Thresholding
    Strategies for Text Categorization; there, too, rare tags need another one, because it fits them too closely.
    """
    if not len(truth):
        return np.full(truth.shape[1], UNPICKED, np.float32)
    common = _best(probabilities.ravel(), truth.ravel())
    found = [
        _best(probabilities[:, tag], truth[:, tag]) if truth[:, tag].sum() >= FEW else common
        for tag in range(truth.shape[1])
    ]
    return np.array(found, np.float32).round(6)


def plain(limits: np.ndarray) -> list[float]:
    """The thresholds with the digits that float32 has, for JSON."""
    return [float(str(limit)) for limit in limits]


def write(file: Path, limits: np.ndarray) -> None:
    """Write thresholds, float32 [tags], as JSON."""
    file.write_text(json.dumps(plain(limits)))


def read(file: Path) -> np.ndarray:
    """Read what `write` wrote: float32 [tags]."""
    return np.array(json.loads(file.read_text()), np.float32)


def of_model(model: Path) -> np.ndarray | None:
    """A published model's thresholds, float32 [tags]; None if it gives each post one tag."""
    file = model / EXTRA / FILE
    return read(file) if file.exists() else None


def _best(probability: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the highest F1 score, in the middle between two probabilities that occur; UNPICKED if none."""
    if not truth.any():
        return UNPICKED
    order = np.argsort(-probability, kind="stable")
    falling = probability[order].astype(np.float64)
    right = np.cumsum(truth[order])
    f1 = 2 * right / (np.arange(1, len(right) + 1) + right[-1])
    f1[:-1][falling[:-1] == falling[1:]] = -1  # a threshold does not part equal probabilities
    last = int(f1.argmax())
    return float(falling[last : last + 2].mean())
