"""Publishes the model that export left, unless it is live already or a person took it down."""

import logging
from datetime import UTC, datetime
from typing import Any

from pipeline.execution.work import Work
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.store.manifest import Manifest, warnings_of

log = logging.getLogger(__name__)


def publish(work: Work, exported: Manifest) -> dict[str, Any]:
    """Publish the exported model, and return its version for the summary. Publishing it again changes nothing.

    Without the setting `publish` nothing is published, and the version is None.

    A model that is live already, byte for byte, is not published again, unless its files are damaged. A model that a
    person took down is not published again, unless the run has a force_reason. Who approved the model, and why, goes
    into the registry's log.
    """
    if not work.settings.publish:
        log.info("nothing is published, because the run's setting publish is false")
        accuracy = work.inputs["evaluate"].summary["accuracy"]
        return {"version": None, "accuracy": accuracy, "live": False, "warnings": warnings_of(work.inputs)}
    registry, forced = Registry(work.run.store), work.settings.force_reason or ""
    version = registry.live()
    served = registry.card(version) if version is not None else None
    if served and served.files == exported.files and not any(work.run.store.faults(served.path, served.files)):
        registry.reconcile()
        log.info("nothing is published: version %d is live already and is the same model", served.version)
        return _summary(served, served.version)
    card = _card(work, exported)
    down = registry.taken_down(card)
    if down and not forced:
        withdrawn, by_hand = down
        log.warning(
            "version %s stays live: this is the same model as version %d, which %s took down on %s (%s); to make it "
            "live again, promote it or start a run with force_reason",
            *(version, withdrawn.version, by_hand.by, by_hand.at[:10], by_hand.reason),
        )
        return _summary(withdrawn, version)
    approval = work.run.approval()
    event = registry.publish(
        card,
        compared_with=work.inputs["evaluate"].summary["champion"],
        forced=forced,
        approved_by=approval.by if approval else "",
        reason=approval.why if approval else "",
    )
    log.info("version %d is published, accuracy %.4f", card.version, card.accuracy)
    live = registry.live()
    if event.live != card.version:
        log.warning("version %d stays live: %s", event.live, event.reason)
    elif live != card.version:
        log.warning("version %d went live, but version %d has replaced it since", card.version, live)
    return _summary(card, live)


def _card(work: Work, exported: Manifest) -> Card:
    record, inputs = work.record, work.inputs
    evaluation = inputs["evaluate"].summary
    return Card(
        version=record.version,
        run=work.run.name,
        data=record.created.astimezone(UTC).isoformat(),
        path=work.run.attempt(exported),
        checkpoint=inputs["train"].summary["checkpoint"],
        accuracy=evaluation["accuracy"],
        macro_f1=evaluation["macro_f1"],
        tags=evaluation["tags"],
        synthetic=inputs["ingest"].summary["synthetic"],
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        files=exported.files,
        warnings=warnings_of(inputs),
    )


def _summary(card: Card, live: int | None) -> dict[str, Any]:
    facts = {"version": card.version, "accuracy": card.accuracy, "live": live == card.version}
    return facts | {"warnings": card.warnings}
