"""The gate: what a candidate must show, alone and beside the live model, to be published."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binomtest

from pipeline.settings import Settings

CHANCE = 0.05
"""McNemar's p-value from which on a difference is said to be chance."""

RECALL_DROP = 0.1
"""How far one tag's recall may fall below the champion's before the pass is one with reservations."""


@dataclass(frozen=True)
class Scores:
    """A model on the test posts: which it tagged rightly (bool [posts]), and the recall of each tag it was asked.

    `unasked` are the tags of which there is no test post.
    """

    name: str
    right: np.ndarray
    recall: dict[str, float]
    unasked: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """The share of test posts tagged rightly."""
        return float(self.right.mean())

    def told(self) -> dict[str, Any]:
        """The figures, as JSON can say them."""
        worst = min(self.recall, key=self.recall.__getitem__)
        return {
            "name": self.name,
            "accuracy": round(self.accuracy, 6),
            "worst_tag": worst,
            "worst_recall": round(self.recall[worst], 6),
        }


@dataclass(frozen=True)
class Incomparable:
    """A champion that cannot be asked about these test posts, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Absent:
    """No champion to be measured by, and why not."""

    why: str


@dataclass(frozen=True)
class Decision:
    """The verdict, passed or failed, with what it rests on. `comparison` is None where there was no champion."""

    verdict: str
    reasons: list[str]
    warnings: list[str]
    comparison: dict[str, Any] | None


@dataclass
class _Findings:
    against: list[str] = field(default_factory=list)
    reservations: list[str] = field(default_factory=list)


def decide(candidate: Scores, champion: Scores | Incomparable | Absent, settings: Settings) -> Decision:
    """Hold the candidate against the thresholds and, on the same test posts, against the champion."""
    found = _Findings()
    _alone(candidate, settings, found)
    comparison = None
    if isinstance(champion, Absent):
        found.reservations.append(champion.why)
    elif isinstance(champion, Incomparable):
        comparison = {"champion": champion.name, "incomparable": champion.why}
        _object(found, settings, f"the live model, {champion.name}, cannot be compared ({champion.why})")
    else:
        comparison = compare(candidate, champion)
        _beside(candidate, champion, comparison, settings, found)
    return Decision("failed" if found.against else "passed", found.against, found.reservations, comparison)


def compare(candidate: Scores, champion: Scores) -> dict[str, Any]:
    """The two on the same posts; the p-value is McNemar's exact test, two-sided, on the posts where they differ.

    (McNemar 1947; exact form: the binomial test of one share of the discordant pairs against one half.)
    """
    gained = int((candidate.right & ~champion.right).sum())
    lost = int((champion.right & ~candidate.right).sum())
    p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return {
        "champion": champion.told(),
        "difference": round(candidate.accuracy - champion.accuracy, 6),
        "gained": gained,
        "lost": lost,
        "p_value": float(f"{p_value:.3g}"),
        "more_than_chance": bool(p_value < CHANCE),
    }


def _alone(candidate: Scores, settings: Settings, found: _Findings) -> None:
    accuracy, told = candidate.accuracy, candidate.told()
    if settings.min_accuracy is None:
        found.against.append(
            f"accuracy {accuracy:.4f} is held against no threshold, which is not a pass: set min_accuracy"
        )
    elif accuracy < settings.min_accuracy:
        found.against.append(f"accuracy {accuracy:.4f} on the test posts is below min_accuracy {settings.min_accuracy}")
    if candidate.unasked:
        count, some = len(candidate.unasked), ", ".join(f"{tag!r:.60}" for tag in candidate.unasked[:5])
        found.reservations.append(f"no test post bears {count} of the tags, so their recall is not known: {some}")
    if told["worst_recall"] < settings.min_tag_recall:
        found.against.append(
            f"recall {told['worst_recall']:.4f} of tag {told['worst_tag']!r} is below min_tag_recall "
            f"{settings.min_tag_recall}"
        )


def _beside(
    candidate: Scores, champion: Scores, comparison: dict[str, Any], settings: Settings, found: _Findings
) -> None:
    fall = -comparison["difference"]
    chance = "more than chance" if comparison["more_than_chance"] else "may be chance"
    told = (
        f"accuracy {candidate.accuracy:.4f} is {fall:.4f} below the {champion.accuracy:.4f} of the live model, "
        f"{champion.name}, on the same posts (p = {comparison['p_value']:g}, {chance})"
    )
    if fall > settings.max_regression:
        _object(found, settings, f"{told}, more than max_regression {settings.max_regression}")
    elif fall > 0:
        found.reservations.append(told)
    for tag, recall in candidate.recall.items():
        if round(champion.recall[tag] - recall, 6) > RECALL_DROP:
            found.reservations.append(f"recall of tag {tag!r} fell from {champion.recall[tag]:.4f} to {recall:.4f}")


def _object(found: _Findings, settings: Settings, objection: str) -> None:
    """What speaks against the candidate beside the champion, unless the run is forced."""
    if settings.force_reason:
        found.reservations.append(f"{objection}; forced: {settings.force_reason}")
    else:
        found.against.append(objection)
