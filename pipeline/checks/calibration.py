"""Calibration: whether a model that gives its tag a probability of 0.8 is right in four cases out of five."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The posts whose tag has a probability from `above` (exclusive) to `to`, and how often these tags are right."""

    above: float
    to: float
    posts: int
    probability: float | None  # mean; None if there is no such post
    accuracy: float | None


def calibration(probability: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """Compare the probabilities of the predicted tags, float [posts], with how often these are right, bool [posts].

    `expected_error` is the expected calibration error with BINS bins of equal width (Guo et al. 2017, On Calibration of
    Modern Neural Networks): the mean over all posts of the difference between the probability and the accuracy of
    their bin. `reliability` lists the bins.
    """
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, BINS - 1)
    bins = []
    for at in range(BINS):
        chosen = place == at
        mean, accuracy = (
            round(float(each[chosen].mean()), 6) if chosen.any() else None for each in (probability, correct)
        )
        bins.append(Bin(round(float(edges[at]), 2), round(float(edges[at + 1]), 2), int(chosen.sum()), mean, accuracy))
    gaps = sum(each.posts * abs((each.probability or 0.0) - (each.accuracy or 0.0)) for each in bins)
    return {"expected_error": round(gaps / max(len(correct), 1), 6), "reliability": [asdict(each) for each in bins]}
