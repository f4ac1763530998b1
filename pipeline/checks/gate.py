"""The gate: decides whether a candidate may be published, by thresholds and by comparison with the live model."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binomtest

from pipeline.settings import Settings

SIGNIFICANCE = 0.05
"""A difference with a p-value of this or more is reported as possibly due to chance."""

RECALL_DROP = 0.1
"""How far one tag's recall may fall below the champion's without a warning."""


@dataclass(frozen=True)
class Scores:
    """A model's results on the test posts.

    `correct`, bool [posts], says which posts it tagged correctly, where posts have several tags with exactly theirs;
    `recall` is by tag, `macro_f1` the mean of all tags' F1 scores; `untested` are the tags that no test post has, so
    their recall is unknown.
    """

    name: str
    correct: np.ndarray
    recall: dict[str, float]
    untested: tuple[str, ...] = ()
    macro_f1: float = 0.0

    @property
    def accuracy(self) -> float:
        """The share of test posts tagged correctly."""
        return float(self.correct.mean())

    def to_dict(self) -> dict[str, Any]:
        """Accuracy and worst recall, for decision.json."""
        worst = min(self.recall, key=self.recall.__getitem__)
        return {
            "name": self.name,
            "accuracy": round(self.accuracy, 6),
            "worst_tag": worst,
            "worst_recall": round(self.recall[worst], 6),
        }


@dataclass(frozen=True)
class Incomparable:
    """A live model that cannot be compared with the candidate, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Absent:
    """There is no live model to compare with; `why` becomes a warning."""

    why: str


@dataclass(frozen=True)
class Decision:
    """The gate's verdict, `passed` or `failed`, with its reasons; `comparison` is None where there was no champion."""

    verdict: str
    reasons: list[str]
    warnings: list[str]
    comparison: dict[str, Any] | None


@dataclass
class _Findings:
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def decide(candidate: Scores, champion: Scores | Incomparable | Absent, settings: Settings) -> Decision:
    """Compare the candidate with the thresholds and, on the same test posts, with the champion.

    A `force_reason` overrides the champion, never a threshold.
    """
    found = _Findings()
    _check_thresholds(candidate, settings, found)
    _check_f1(candidate, settings, found)
    comparison = None
    if isinstance(champion, Absent):
        found.warnings.append(champion.why)
    elif isinstance(champion, Incomparable):
        comparison = {"champion": champion.name, "incomparable": champion.why}
        _add_objection(
            found, settings, f"the live model, {champion.name}, cannot be compared with this one ({champion.why})"
        )
    else:
        comparison = compare(candidate, champion)
        _check_regression(candidate, champion, comparison, settings, found)
    return Decision("failed" if found.reasons else "passed", found.reasons, found.warnings, comparison)


def mcnemar(one: np.ndarray, other: np.ndarray) -> tuple[int, int, float, bool]:
    """Compare which posts two models tag correctly, bool [posts] each, by McNemar's exact test.

    That is the binomial test of one half on the posts that only one of the two tags correctly (McNemar 1947). Returns
    how many only the first does, how many only the other, the two-sided p-value, and whether that is below
    SIGNIFICANCE.
    """
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return gained, lost, float(f"{p_value:.3g}"), bool(p_value < SIGNIFICANCE)


def compare(candidate: Scores, champion: Scores) -> dict[str, Any]:
    """Compare two models on the same posts; see mcnemar."""
    gained, lost, p_value, more_than_chance = mcnemar(candidate.correct, champion.correct)
    return {
        "champion": champion.to_dict(),
        "difference": round(candidate.accuracy - champion.accuracy, 6),
        "gained": gained,
        "lost": lost,
        "p_value": p_value,
        "more_than_chance": more_than_chance,
    }


def _check_thresholds(candidate: Scores, settings: Settings, found: _Findings) -> None:
    accuracy, figures = candidate.accuracy, candidate.to_dict()
    if settings.min_accuracy is None:
        found.reasons.append(
            f"min_accuracy is not set, so no model can pass: set it (the accuracy of this one is {accuracy:.4f})"
        )
    elif accuracy < settings.min_accuracy:
        found.reasons.append(f"accuracy {accuracy:.4f} on the test posts is below min_accuracy {settings.min_accuracy}")
    if candidate.untested:
        count, some = len(candidate.untested), ", ".join(f"{tag!r:.60}" for tag in candidate.untested[:5])
        found.warnings.append(f"{count} of the tags occur in no test post, so their recall is unknown: {some}")
    if figures["worst_recall"] < settings.min_tag_recall:
        found.reasons.append(
            f"recall {figures['worst_recall']:.4f} of tag {figures['worst_tag']!r} is below min_tag_recall "
            f"{settings.min_tag_recall}"
        )


def _check_f1(candidate: Scores, settings: Settings, found: _Findings) -> None:
    if candidate.macro_f1 < settings.min_macro_f1:
        found.reasons.append(
            f"macro F1 {candidate.macro_f1:.4f} on the test posts is below min_macro_f1 {settings.min_macro_f1}"
        )


def _check_regression(
    candidate: Scores, champion: Scores, comparison: dict[str, Any], settings: Settings, found: _Findings
) -> None:
    fall = -comparison["difference"]
    chance = "more than chance" if comparison["more_than_chance"] else "may be chance"
    sentence = (
        f"accuracy {candidate.accuracy:.4f} is {fall:.4f} below the {champion.accuracy:.4f} of the live model, "
        f"{champion.name}, on the same posts (p = {comparison['p_value']:g}, {chance})"
    )
    if fall > settings.max_regression:
        _add_objection(found, settings, f"{sentence}, more than max_regression {settings.max_regression}")
    elif fall > 0:
        found.warnings.append(sentence)
    for tag, recall in candidate.recall.items():
        if round(champion.recall[tag] - recall, 6) > RECALL_DROP:
            found.warnings.append(f"recall of tag {tag!r} fell from {champion.recall[tag]:.4f} to {recall:.4f}")


def _add_objection(found: _Findings, settings: Settings, objection: str) -> None:
    """Add a reason to fail the candidate, or only a warning if the run is forced."""
    if settings.force_reason:
        found.warnings.append(f"{objection}; forced: {settings.force_reason}")
    else:
        found.reasons.append(objection)
