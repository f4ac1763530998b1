"""Publishes the model that export left, unless it is live already or a person took it down."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.checks.verdict import action_of
from pipeline.errors import GateNotPassed
from pipeline.files import FileEntry
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.run.work import Work
from pipeline.stages import model_card
from pipeline.stages.plan import FIRST, JUDGES, LEARNS
from pipeline.store.manifest import Manifest, warnings_of
from pipeline.store.notes import PUBLISHED, Publication
from pipeline.store.runs import Run

log = logging.getLogger(__name__)


def publish(work: Work, exported: Manifest) -> dict[str, Any]:
    """Publish the exported model as _publish does, and note in the run which version it is.

    So it is known afterwards that the run was exported, and that the registry had this version.
    """
    summary = _publish(work, exported)
    noted = Publication(version=summary["version"], at=datetime.now(UTC))
    work.run.store.write(f"{work.run.path}/{PUBLISHED}", noted.to_dict())
    return summary


def _publish(work: Work, exported: Manifest) -> dict[str, Any]:
    """Publish the exported model, and return its version for the summary. Publishing it again changes nothing.

    Without the setting `publish` nothing is published, and the version is None.

    A model that is live already, byte for byte, is not published again, unless its files are damaged; the model card,
    which says what each was compared with, does not count. A model that a person took down is not published again,
    unless the run forces `withdrawn`. Who approved the model, and why, goes into the registry's log.

    Raises GateNotPassed if the gate or the installation leaves the decision to a person, and nobody has approved the
    result of evaluate that the model is published by.
    """
    if not work.settings.publish:
        log.info("nothing is published, because the run's setting publish is false")
        accuracy = work.inputs[JUDGES].summary["accuracy"]
        return {"version": None, "accuracy": accuracy, "live": False, "warnings": warnings_of(work.inputs)}
    # Of the very result that the card is made of: the stage may be run again at any time.
    evaluated = work.inputs[JUDGES]
    approval = work.run.approval(evaluated)
    if approval is None and (work.needs_approval or action_of(evaluated.summary) == "ask"):
        raise GateNotPassed(unapproved(work.run, evaluated))
    registry = Registry(work.run.store)
    version = registry.live()
    served = registry.card(version) if version is not None else None
    if served and _is_live_already(work, served, exported):
        registry.reconcile()
        log.info("nothing is published: version %d is live already and is the same model", served.version)
        return _summary(served, served.version)
    card = _card(work, exported)
    down = registry.taken_down(card)
    if down and not work.settings.forced("withdrawn"):
        withdrawn, by_hand = down
        log.warning(
            "version %s stays live: this is the same model as version %d, which %s took down on %s (%s); to make it "
            "live again, promote it or start a run with force=withdrawn and a force_reason",
            *(version, withdrawn.version, by_hand.by, by_hand.at[:10], by_hand.reason),
        )
        return _summary(withdrawn, version)
    settings = work.settings
    forced = f"forced {settings.force}: {settings.force_reason}" if settings.force else ""
    event = registry.publish(
        card,
        compared_with=evaluated.summary["champion"],
        forced=forced if settings.forced("newer") else "",
        approved_by=approval.by if approval else "",
        reason=(approval.why if approval else "") or forced,
    )
    card = card.model_copy(update={"version": event.version})
    log.info("version %d is published, accuracy %.4f", card.version, card.accuracy)
    live = registry.live()
    if event.live != card.version:
        log.warning("version %d stays live: %s", event.live, event.reason)
    elif live != card.version:
        log.warning("version %d went live, but version %d has replaced it since", card.version, live)
    return _summary(card, live)


def asks_person(run: Run) -> bool:
    """Whether the gate could not tell and leaves it to a person whether the run's model is published."""
    evaluated = run.manifest(JUDGES)
    return evaluated is not None and action_of(evaluated.summary) == "ask"


def unapproved(run: Run, evaluated: Manifest) -> str:
    """The sentence for a model that waits for a person, who may approve this result of evaluate."""
    why = f"TAGGER_APPROVAL is on for run {run.name}"
    if action_of(evaluated.summary) == "ask":
        why = f"the gate cannot tell whether the model of run {run.name} is worse than the live one"
    return (
        f"{why}, and nobody has approved this result, so nothing is published: read its report, then `tagger approve "
        f"{run.name} --evaluated {evaluated.attempt} --reason WHY` and run export again"
    )


def _is_live_already(work: Work, served: Card, exported: Manifest) -> bool:
    """Whether the live version has the same files, but for the model card, and all of them are whole."""
    same = _without_card(served.files) == _without_card(exported.files)
    return same and not any(work.run.store.faults(served.path, served.files))


def _without_card(files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    return {name: entry for name, entry in files.items() if name != model_card.FILE}


def _card(work: Work, exported: Manifest) -> Card:
    record, inputs = work.record, work.inputs
    evaluation = inputs[JUDGES].summary
    return Card(
        version=record.first_version,
        run=work.run.name,
        data=record.created.astimezone(UTC).isoformat(),
        path=exported.path,
        checkpoint=inputs[LEARNS].summary["checkpoint"],
        accuracy=evaluation["accuracy"],
        macro_f1=evaluation["macro_f1"],
        tags=evaluation["tags"],
        synthetic=inputs[FIRST].summary["synthetic"],
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        files=exported.files,
        warnings=warnings_of(inputs),
    )


def _summary(card: Card, live: int | None) -> dict[str, Any]:
    facts = {"version": card.version, "accuracy": card.accuracy, "live": live == card.version}
    return facts | {"warnings": card.warnings}
