"""Picks the mistakes of a model that a person should read: the commonest confusions, and those it was surest of."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CONFUSIONS, EXAMPLES, SUREST, SLICES = 5, 3, 10, 4


@dataclass(frozen=True)
class Confusion:
    """The model says `predicted` where `true` is right, in `count` posts; `at` are the places of some of them."""

    true: int
    predicted: int
    count: int
    at: list[int]


def confusions(true: np.ndarray, predicted: np.ndarray, probability: np.ndarray) -> list[Confusion]:
    """The CONFUSIONS commonest pairs of a true and another predicted label, each with the EXAMPLES it was surest of.

    `true` and `predicted` are int [posts], `probability` is that of the predicted label, float [posts].
    """
    wrong = np.flatnonzero(true != predicted)
    pairs, inverse, counts = np.unique(
        np.stack([true[wrong], predicted[wrong]], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    found = list[Confusion]()
    for pair in np.argsort(-counts, kind="stable")[:CONFUSIONS]:
        posts = wrong[inverse.ravel() == pair]
        surest_first = posts[np.argsort(-probability[posts], kind="stable")]
        label, said = pairs[pair].tolist()
        found.append(Confusion(label, said, int(counts[pair]), sorted(surest_first[:EXAMPLES].tolist())))
    return found


def surest(correct: np.ndarray, probability: np.ndarray) -> list[int]:
    """The places of the SUREST mistakes, bool [posts], that have the highest probability, the surest first."""
    wrong = np.flatnonzero(~correct)
    return wrong[np.argsort(-probability[wrong], kind="stable")][:SUREST].tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Slice:
    """Posts with a figure from `above` (exclusive) to `to`, how many, and the share that is tagged correctly."""

    above: float
    to: float
    posts: int
    accuracy: float


def slices(figures: np.ndarray, correct: np.ndarray) -> Iterator[Slice]:
    """Accuracy on SLICES equally large slices of the posts by a figure, [posts]; fewer if many have the same figure.

    A slice of the smallest figures starts at the smallest itself: `above` is below it by 1, as lengths need.
    """
    edges = np.unique(np.quantile(figures, np.linspace(0, 1, SLICES + 1), method="higher"))
    above = edges[0].item() - 1
    for to in edges[1:].tolist() or edges.tolist():
        chosen = (figures > above) & (figures <= to)
        yield Slice(above, to, int(chosen.sum()), round(float(correct[chosen].mean()), 6))
        above = to
