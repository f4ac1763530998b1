"""Puts runs beside each other: settings that differ, scores, and whether a difference may be chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from pipeline.checks.comparison import SIGNIFICANCE, mcnemar
from pipeline.data import posts
from pipeline.errors import BadInput
from pipeline.files import scratch_folder
from pipeline.report import figures, html
from pipeline.report.facts import Facts
from pipeline.report.runs import SCORES
from pipeline.settings import Settings
from pipeline.store.runs import Run


@dataclass(frozen=True)
class Difference:
    """A run against the first one, on the same test posts: how many it alone tags correctly, and the first one alone.

    `corrected` is the p-value for as many `comparisons` with the first run as were made, and `more_than_chance` goes by
    it. `why_not` says why the two cannot be compared; then the numbers mean nothing.
    """

    run: str
    difference: float = 0.0
    gained: int = 0
    lost: int = 0
    p_value: float = 1.0
    corrected: float = 1.0
    comparisons: int = 1
    more_than_chance: bool = False
    why_not: str = ""

    def sentence(self, first: str) -> str:
        """The difference in a sentence for a person."""
        if self.why_not:
            return f"{self.run} is not compared with {first} post by post: {self.why_not}"
        chance = "more than chance" if self.more_than_chance else "may be chance"
        correction = ""
        if self.comparisons > 1:
            correction = f", {self.corrected:.3g} corrected for {self.comparisons} comparisons by Holm's method"
        return (
            f"{self.run} against {first}: accuracy {self.difference:+.4f}; {self.gained:,} test posts gained, "
            f"{self.lost:,} lost; {chance} (McNemar's exact test, p = {self.p_value:.3g}{correction})"
        )


@dataclass(frozen=True)
class Comparison:
    """Several evaluated runs, the first of which the others are compared with."""

    runs: Sequence[Facts]
    differences: Sequence[Difference]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Comparison":
        """Read them from the store; BadInput if there are fewer than two, or if one has not been evaluated."""
        if len({run.name for run in runs}) < max(2, len(runs)):
            raise BadInput("compare needs two runs or more, each named once: `tagger runs` lists them")
        found = [Facts.of(run) for run in runs]
        for each in found:
            if not each.evaluation:
                raise BadInput(f"run {each.run.name} has not been evaluated, so there is nothing to compare")
        return cls(found, _differences(found))

    @property
    def settings(self) -> dict[str, list[Any]]:
        """Each setting in which the runs differ, with its value in each run."""
        dumped = [each.record.settings.model_dump(mode="json") for each in self.runs]
        values = {name: [each[name] for each in dumped] for name in Settings.model_fields}
        return {name: each for name, each in values.items() if any(value != each[0] for value in each)}

    @property
    def coverage(self) -> list[str]:
        """On which test posts each run was compared with the model that was live; empty where there was none."""
        return [each.coverage for each in self.runs]

    @property
    def scores(self) -> dict[str, list[float]]:
        """Each figure of evaluation.json that says how good a model is, in each run."""
        return {name: [each.evaluation[name] for each in self.runs] for name in SCORES}

    @property
    def seconds(self) -> list[float]:
        """How long each run's training took."""
        return [each.manifests["train"].seconds for each in self.runs]

    @property
    def recall(self) -> dict[str, list[float | None]]:
        """The recall of each tag in each run, None where a run does not know the tag."""
        tags = sorted({tag for each in self.runs for tag in each.evaluation["per_tag"]})
        per_tag: list[Mapping[str, Any]] = [each.evaluation["per_tag"] for each in self.runs]
        return {tag: [each[tag]["recall"] if tag in each else None for each in per_tag] for tag in tags}

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "runs": [each.run.name for each in self.runs],
            "verdicts": [each.evaluation["verdict"] for each in self.runs],
            "coverage": self.coverage,
            "settings": self.settings,
            "scores": self.scores,
            "training_seconds": self.seconds,
            "recall": self.recall,
            "against_the_first": [vars(each) for each in self.differences],
        }

    def render(self) -> str:
        """The comparison as one HTML page."""
        curves = {each.run.name: each.summaries["train"].get("curve", []) for each in self.runs}
        drawn = figures.learning_curves({name: curve for name, curve in curves.items() if curve})
        return html.render("compare", compared=self, drawn=Markup(drawn))  # noqa: S704 - drawn from numbers


def _differences(runs: Sequence[Facts]) -> list[Difference]:
    """Compare each run but the first with the first, where both were tested on the same posts."""
    first, *others = runs
    correct = {
        each.run.name: _correct(each)
        for each in runs
        if each.decision["test_posts_sha256"] == first.decision["test_posts_sha256"]
    }
    return corrected_for_several(
        [
            _difference(each.run.name, correct[each.run.name], correct[first.run.name])
            if each.run.name in correct
            else Difference(each.run.name, why_not="they were tested on different posts")
            for each in others
        ]
    )


def _difference(name: str, these: np.ndarray, first: np.ndarray) -> Difference:
    gained, lost, p_value, _ = mcnemar(these, first)
    difference = round(float(these.mean() - first.mean()), 6)
    return Difference(name, difference, gained, lost, p_value)


def corrected_for_several(differences: Sequence[Difference]) -> list[Difference]:
    """Correct the p-values by Holm's method, so that all of them together err as seldom as one (Holm 1979).

    The smallest of n p-values is multiplied by n, the next by n - 1, and so on; none becomes smaller than one before.
    """
    tested = sorted((each for each in differences if not each.why_not), key=lambda each: each.p_value)
    corrected = dict[str, float]()
    largest = 0.0
    for place, each in enumerate(tested):
        largest = max(largest, min(1.0, each.p_value * (len(tested) - place)))
        corrected[each.run] = largest
    return [
        each
        if each.why_not
        else replace(
            each,
            corrected=corrected[each.run],
            comparisons=len(tested),
            more_than_chance=corrected[each.run] < SIGNIFICANCE,
        )
        for each in differences
    ]


def _correct(facts: Facts) -> np.ndarray:
    """Whether the run's model tagged each test post correctly: bool [posts]."""
    manifest = facts.manifests["evaluate"]
    with scratch_folder("compare") as scratch:
        facts.run.files.fetch(manifest, scratch, [name for name in manifest.files if name.startswith("predictions/")])
        batches = posts.batches(scratch, "predictions", ["label", "predicted"])
        return posts.correct(pa.Table.from_batches(list(batches)))
