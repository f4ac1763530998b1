"""Collects what the store knows of a run, for its report."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.checks.verdict import action_of
from pipeline.data import posts
from pipeline.files import scratch_folder
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.registry.series import Observation, Series
from pipeline.report.runs import card_of
from pipeline.settings import Settings
from pipeline.stages.plan import DECISION, EVALUATION, STAGES
from pipeline.store.manifest import Manifest, warnings_of
from pipeline.store.notes import Refusal
from pipeline.store.runs import Record, Run

REJECTED_SHOWN = 10

OUTCOMES = {"passed": "Passed", "failed": "Refused", "cannot tell": "Cannot tell"}
REFUSED_LATER = {
    "passed": "Passed the gate, but was refused after it",
    "cannot tell": "The gate could not tell, and nobody approved it",
}
"""How the sentence about a run begins, by the gate's verdict; and if the run was refused after the gate let it pass."""


@dataclass(frozen=True)
class Facts:
    """Everything that the report of a run says.

    `evaluation` and `decision` are the documents that evaluate left, empty if it left none; `rejected` counts the
    rejected rows by reason. `champion` is the card of the version that the candidate was compared with, and
    `champion_settings` are those of its run; both None if there is none. `published` is the card of the run's own
    version, None if it published none; `observations` are those of it on newly tagged posts.
    """

    run: Run
    record: Record
    manifests: Mapping[str, Manifest]
    refusal: Refusal | None
    evaluation: Mapping[str, Any]
    decision: Mapping[str, Any]
    rejected: Mapping[str, int]
    champion: Card | None
    champion_settings: Settings | None
    published: Card | None
    observations: Sequence[Observation]

    @classmethod
    def of(cls, run: Run) -> "Facts":
        """Read them from the store; StageOutOfOrder if the run does not exist."""
        record, manifests = run.existing(), run.manifests()
        with scratch_folder("report") as scratch:
            found = [_document(run, manifests.get("evaluate"), name, scratch) for name in (EVALUATION, DECISION)]
            rejected = _rejected(run, manifests.get("ingest"), scratch)
        champion, published = _champion(run, found[1]), published_by(run, manifests)
        trained = Run(run.store, champion.run).record() if champion else None
        return cls(
            run,
            record,
            manifests,
            run.refusal(),
            found[0],
            found[1],
            rejected,
            champion,
            trained.settings if trained else None,
            published,
            observations(run, published),
        )

    @property
    def summaries(self) -> dict[str, dict[str, Any]]:
        """The summary of each complete stage."""
        return {stage: manifest.summary for stage, manifest in self.manifests.items()}

    @property
    def verdict(self) -> str:
        """Whether the run passed, in a sentence with both accuracies."""
        if not self.evaluation:
            return f"Refused: {self.refusal.why}" if self.refusal else "Not evaluated yet."
        outcome = OUTCOMES[self.evaluation["verdict"]]
        if self.refusal and self._may_publish:
            outcome = REFUSED_LATER[self.evaluation["verdict"]]
        accuracy = f"{outcome}: accuracy {self.evaluation['accuracy']:.4f} on {self.evaluation['rows']:,} test posts"
        compared = self.comparison
        if compared is None:
            return f"{accuracy}."
        difference, theirs = f"{compared['difference']:+.4f}", f"{compared['champion']['accuracy']:.4f}"
        if compared.get("compared", self.evaluation["rows"]) == self.evaluation["rows"]:
            return f"{accuracy}, {difference} against the live model's {theirs}."
        ours = f"{compared['candidate_accuracy']:.4f}"
        against = f"its accuracy there is {ours}, {difference} against the live model's {theirs}"
        return f"{accuracy}. It was {compared['coverage']}; {against}."

    @property
    def _may_publish(self) -> bool:
        """Whether the gate lets the model be published, or asks a person."""
        return bool(self.evaluation) and action_of(self.evaluation) != "keep"

    @property
    def passed(self) -> bool | None:
        """Whether the model may be published; None before that is decided."""
        if self.refusal:
            return False
        if not self.evaluation or action_of(self.evaluation) == "ask":
            return None
        return self._may_publish

    @property
    def comparison(self) -> Mapping[str, Any] | None:
        """The comparison with the champion on the same posts; None if there was none, or none was possible."""
        found: Mapping[str, Any] | None = self.decision.get("comparison")
        return found if found and "difference" in found else None

    @property
    def coverage(self) -> str:
        """On which test posts the model was compared with the champion, in a sentence; empty if it was not."""
        comparison = self.decision.get("comparison") or {}
        sentence: str = comparison.get("coverage", "")
        return sentence

    @property
    def reasons(self) -> list[str]:
        """Why the run was refused."""
        stated: list[str] = self.evaluation.get("reasons", [])
        return [*stated, self.refusal.why] if self.refusal and self._may_publish else stated

    @property
    def warnings(self) -> list[str]:
        """The warnings of all stages."""
        return warnings_of(self.manifests)

    @property
    def drift(self) -> Mapping[str, Any]:
        """The figures `drift` and what `changed` most, also of a run that was refused for them; empty if unknown."""
        summary = self.summaries.get("vectorize", {})
        found: Mapping[str, Any] = summary if summary.get("drift") else self.refusal.evidence if self.refusal else {}
        return found if found.get("drift") else {}

    @property
    def changed_settings(self) -> list[tuple[str, Any, Any]]:
        """Each setting that differs from the champion's run, or from the defaults: its name, that value, this one."""
        then = self.champion_settings or Settings()
        names = [name for name in Settings.model_fields if name != "source"]
        pairs = [(name, getattr(then, name), getattr(self.record.settings, name)) for name in names]
        return [(name, old, new) for name, old, new in pairs if old != new]

    @property
    def command(self) -> str:
        """The command that repeats the run on its source."""
        given = self.record.settings.model_dump(mode="json", exclude_defaults=True, exclude={"source", "tuned"})
        sets = "".join(f" --set {shlex.quote(f'{name}={value}')}" for name, value in given.items())
        return f"tagger run --source {shlex.quote(self.record.settings.source)}{sets}"


def _document(run: Run, manifest: Manifest | None, name: str, scratch: Path) -> dict[str, Any]:
    """A JSON file that a stage left; empty if the stage or the file is missing."""
    if manifest is None or name not in manifest.files:
        return {}
    run.files.fetch(manifest, scratch / manifest.stage, [name])
    document: dict[str, Any] = json.loads((scratch / manifest.stage / name).read_text())
    return document


def _rejected(run: Run, manifest: Manifest | None, scratch: Path) -> dict[str, int]:
    """How many rows ingest rejected for each reason, the commonest first, REJECTED_SHOWN at most."""
    if manifest is None or not manifest.summary.get("rejected"):
        return {}

    run.files.fetch(manifest, scratch / "ingest", [name for name in manifest.files if name.startswith("rejected/")])
    counts = dict[str, int]()
    for batch in posts.batches(scratch / "ingest", "rejected", ["reason"]):
        for reason, count in posts.tally(batch.column("reason")).items():
            counts[reason] = counts.get(reason, 0) + count
    return dict(sorted(counts.items(), key=lambda pair: -pair[1])[:REJECTED_SHOWN])


def _champion(run: Run, decision: Mapping[str, Any]) -> Card | None:
    version = decision.get("champion")
    return Registry(run.store).card(version) if version is not None else None


def published_by(run: Run, manifests: Mapping[str, Manifest]) -> Card | None:
    """The card of the version that the run published; None if it published none, or has made another model since."""
    card = card_of(run, manifests)
    return card if card and card.run == run.name else None


def observations(run: Run, card: Card | None) -> list[Observation]:
    """What was observed of the run's version after it went live, newest first."""
    if card is None:
        return []
    return [each for each in Series(run.store).observations() if each.live.version == card.version][::-1]


def lineage(facts: Facts) -> list[tuple[str, str, str, str]]:
    """For each stage the run that made its files, their digest, and what they were made from."""
    found = []
    for stage in STAGES:
        if manifest := facts.manifests.get(stage):
            sources = list(manifest.inputs)
            if begun := manifest.summary.get("warm_start"):
                sources.append(f"weights of version {begun['version']}")
            found.append((stage, manifest.run, manifest.digest, ", ".join(sources)))
    return found
