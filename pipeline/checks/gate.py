"""The gate: decides whether a candidate may be published, by thresholds and by comparison with the live model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.checks.comparison import CONFIDENCE, Coverage, interval, judge, mcnemar, posts_to_settle
from pipeline.checks.verdict import Action, Verdict
from pipeline.settings import Settings
from pipeline.settings.run import Objection

RECALL_DROP = 0.1
"""How far one tag's recall may fall below the champion's without a warning."""

TAGS_NAMED = 5
"""How many tags a sentence names."""


@dataclass(frozen=True)
class Scores:
    """The candidate's results on the test posts.

    `correct`, bool [posts], says which posts it tagged correctly, where posts have several tags with exactly theirs;
    `recall` and `support`, the number of test posts, are by tag; a tag that no test post has is in `untested`, and its
    recall is unknown. `macro_f1` is the mean of all tags' F1 scores.
    """

    name: str
    correct: np.ndarray
    recall: dict[str, float]
    untested: tuple[str, ...] = ()
    macro_f1: float = 0.0
    support: dict[str, int] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """The share of test posts tagged correctly."""
        return float(self.correct.mean())

    def to_dict(self) -> dict[str, Any]:
        """Accuracy and worst recall, for decision.json."""
        return {"name": self.name, "accuracy": round(self.accuracy, 6)} | _worst(self.recall)


@dataclass(frozen=True)
class Champion:
    """The live model's answers to the same test posts, those among them that count, and the tags that it knows.

    `correct` and `compared` are bool [posts]; both recalls are by tag, on the posts that are compared. `is_candidate`
    says that the live model is the candidate itself, trained again from the same posts and settings.
    """

    name: str
    correct: np.ndarray
    compared: np.ndarray
    coverage: Coverage
    recall: dict[str, float]
    candidate_recall: dict[str, float]
    new_tags: Sequence[str] = ()
    lost_tags: Sequence[str] = ()
    is_candidate: bool = False


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
    """The gate's verdict, what is done because of it, its reasons, and warnings.

    The action follows from the verdict, or if that is "cannot tell" from the setting when_unsure. `comparison` is None
    where there was no champion.
    """

    verdict: Verdict
    action: Action
    reasons: list[str]
    warnings: list[str]
    comparison: dict[str, Any] | None


class _Findings:
    """What was found against the candidate so far: reasons to fail it, and warnings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reasons: list[str] = []
        self.warnings: list[str] = []

    def object(self, objection: Objection, sentence: str) -> None:
        """Add a reason to fail the candidate, or only a warning if this objection is forced."""
        if reason := self.settings.forced(objection):
            self.warnings.append(f"{sentence}; forced: {reason}")
        else:
            self.reasons.append(sentence)


def decide(candidate: Scores, champion: Champion | Incomparable | Absent, settings: Settings) -> Decision:
    """Compare the candidate with the thresholds and, on posts that are new to both, with the champion.

    The setting `force` overrides objections by name, never a threshold.
    """
    findings = _Findings(settings)
    _check_thresholds(candidate, findings)
    _check_recall(candidate, findings)
    comparison = None
    unsure = None
    if isinstance(champion, Absent):
        findings.warnings.append(champion.why)
    elif isinstance(champion, Incomparable):
        comparison = {"champion": champion.name, "incomparable": champion.why}
        findings.object(
            "incomparable", f"the live model, {champion.name}, cannot be compared with this one ({champion.why})"
        )
    else:
        comparison = compare(candidate, champion)
        _check_tags(candidate, champion, findings)
        unsure = _check_difference(champion, comparison, findings)
    return _decision(findings, unsure, comparison)


def _decision(findings: _Findings, unsure: str | None, comparison: dict[str, Any] | None) -> Decision:
    """The decision, where `unsure` says why the comparison cannot tell, None if it can."""
    settings, reasons, warnings = findings.settings, findings.reasons, findings.warnings
    if unsure and (forced := settings.forced("regression")):
        warnings.append(f"{unsure}; forced: {forced}")
        unsure = None
    if reasons:
        if unsure:
            warnings.append(unsure)
        return Decision("failed", "keep", reasons, warnings, comparison)
    if unsure is None:
        return Decision("passed", "publish", reasons, warnings, comparison)
    stated = reasons if settings.when_unsure == "keep" else warnings
    stated.append(f"{unsure} (when_unsure={settings.when_unsure})")
    return Decision("cannot tell", settings.when_unsure, reasons, warnings, comparison)


def compare(candidate: Scores, champion: Champion) -> dict[str, Any]:
    """The comparison for decision.json; without figures if no test post counts."""
    coverage, compared = champion.coverage, champion.compared
    facts = {
        "coverage": coverage.sentence(),
        **asdict(coverage),
        "new_tags": list(champion.new_tags),
        "lost_tags": list(champion.lost_tags),
    }
    if not coverage.compared:
        return facts | {"champion": {"name": champion.name}}
    ours, theirs = candidate.correct[compared], champion.correct[compared]
    gained, lost, p_value, more_than_chance = mcnemar(ours, theirs)
    low, high = interval(gained, lost, coverage.compared)
    theirs_accuracy = {"name": champion.name, "accuracy": round(float(theirs.mean()), 6)}
    return facts | {
        "champion": theirs_accuracy | _worst(champion.recall),
        "candidate_accuracy": round(float(ours.mean()), 6),
        "difference": round((gained - lost) / coverage.compared, 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "confidence": CONFIDENCE,
        "gained": gained,
        "lost": lost,
        "p_value": p_value,
        "more_than_chance": more_than_chance,
    }


def _worst(recall: dict[str, float]) -> dict[str, Any]:
    worst = min(recall, key=recall.__getitem__)
    return {"worst_tag": worst, "worst_recall": round(recall[worst], 6)}


def _check_thresholds(candidate: Scores, findings: _Findings) -> None:
    settings, accuracy, figures = findings.settings, candidate.accuracy, candidate.to_dict()
    if settings.min_accuracy is None:
        findings.reasons.append(
            f"min_accuracy is not set, so no model can pass: set it (the accuracy of this one is {accuracy:.4f})"
        )
    elif accuracy < settings.min_accuracy:
        findings.reasons.append(
            f"accuracy {accuracy:.4f} on the test posts is below min_accuracy {settings.min_accuracy}"
        )
    if figures["worst_recall"] < settings.min_tag_recall:
        findings.reasons.append(
            f"recall {figures['worst_recall']:.4f} of tag {figures['worst_tag']!r} is below min_tag_recall "
            f"{settings.min_tag_recall}"
        )
    if candidate.macro_f1 < settings.min_macro_f1:
        findings.reasons.append(
            f"macro F1 {candidate.macro_f1:.4f} on the test posts is below min_macro_f1 {settings.min_macro_f1}"
        )


def _check_recall(candidate: Scores, findings: _Findings) -> None:
    """Warn of tags whose recall is unknown, and of those that the candidate never finds."""
    if candidate.untested:
        findings.warnings.append(
            f"{len(candidate.untested)} of the tags occur in no test post, so their recall is unknown: "
            f"{_listed(candidate.untested)}"
        )
    missed = [tag for tag, recall in candidate.recall.items() if not recall]
    if missed:
        posts = sum(candidate.support.get(tag, 0) for tag in missed)
        findings.warnings.append(
            f"recall 0: this model finds no test post of {len(missed)} of its tags, which are those of {posts:,} test "
            f"posts ({posts / len(candidate.correct):.2%}): {_listed(missed)}"
        )


def _check_tags(candidate: Scores, champion: Champion, findings: _Findings) -> None:
    """Object to tags that are lost and not retired, and name the new ones with their recall."""
    lost = [tag for tag in champion.lost_tags if tag not in findings.settings.retired]
    if lost:
        findings.object(
            "tags",
            f"this model does not know {len(lost)} of the tags of the live model, {champion.name}: {_listed(lost)}; "
            "if they are to go, name them in retired_tags",
        )
    for tag in champion.new_tags[:TAGS_NAMED]:
        recall = f"recall {candidate.recall[tag]:.4f}" if tag in candidate.recall else "its recall is unknown"
        findings.warnings.append(
            f"tag {_shown(tag)} is new, so the live model was not asked about it: {recall} on "
            f"{candidate.support.get(tag, 0):,} test posts"
        )
    if len(champion.new_tags) > TAGS_NAMED:
        findings.warnings.append(f"{len(champion.new_tags) - TAGS_NAMED} more tags are new")


def _check_difference(champion: Champion, comparison: dict[str, Any], findings: _Findings) -> str | None:
    """Object to a loss of accuracy, warn of smaller ones; return a sentence if the comparison cannot tell."""
    settings, coverage = findings.settings, champion.coverage
    if champion.is_candidate:
        return None
    if not coverage.learned_is_known:
        findings.warnings.append(
            f"the live model, {champion.name}, does not say all posts that it learned, because it, or a model whose "
            "weights it began from, is of an earlier release: if it learned test posts that are compared, the "
            "comparison favours it"
        )
    if settings.max_regression < 1 and coverage.compared < settings.min_compared_posts:
        return (
            f"it cannot be told whether this model is worse than the live one, {champion.name}: {coverage.sentence()}, "
            f"and min_compared_posts is {settings.min_compared_posts:,}"
        )
    if "difference" not in comparison:
        return None
    _check_fallen_recall(champion, findings)
    difference, low, high = (comparison[name] for name in ("difference", "low", "high"))
    measured = (
        f"accuracy {comparison['candidate_accuracy']:.4f}, that of the live model, {champion.name}, "
        f"{comparison['champion']['accuracy']:.4f}; difference {difference:+.4f}, {CONFIDENCE:.0%} interval {low:+.4f} "
        f"to {high:+.4f}; {coverage.sentence()}"
    )
    verdict = judge(difference, low, high, settings.max_regression)
    if verdict == "cannot tell":
        enough = posts_to_settle(comparison["gained"], comparison["lost"], coverage.compared, settings.max_regression)
        return (
            f"it cannot be told whether this model is worse than the live one by more than max_regression "
            f"{settings.max_regression}, or not worse at all: {measured}; about {enough:,} such posts would settle it"
        )
    if verdict == "failed":
        findings.object(
            "regression",
            f"this model is worse than the live one by more than max_regression {settings.max_regression}: {measured}",
        )
    elif difference < 0:
        findings.warnings.append(f"this model is a little worse than the live one: {measured}")
    return None


def _check_fallen_recall(champion: Champion, findings: _Findings) -> None:
    for tag, recall in champion.candidate_recall.items():
        before = champion.recall[tag]
        if round(before - recall, 6) > RECALL_DROP:
            findings.warnings.append(f"recall of tag {_shown(tag)} fell from {before:.4f} to {recall:.4f}")


def _listed(tags: Sequence[str]) -> str:
    more = f" and {len(tags) - TAGS_NAMED:,} more" if len(tags) > TAGS_NAMED else ""
    return ", ".join(map(_shown, tags[:TAGS_NAMED])) + more


def _shown(tag: str) -> str:
    return f"{tag!r:.60}"
