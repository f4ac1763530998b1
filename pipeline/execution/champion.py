"""What a run has to do with the live model: its data and its answers are held against it, and it may be replaced."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import BadInput, CorruptArtifact
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.stages.plan import CHAMPION, FREQUENT
from pipeline.store.runs import Manifest, Run, warnings_of

log = logging.getLogger(__name__)

SAME = {"tag_drift": 0.0, "word_drift": 0.0, "unknown_words": 0.0, "length_change": 1.0}
"""pipeline.checks.drift's figures where the data are those that the live model was trained on."""


def champion(run: Run, folder: Path) -> dict[str, Path]:
    """The live model as one more input of evaluate, or nothing where none is live.

    Where its files are lost, the folder holds its card only, and the stage says that it cannot be compared.
    """
    registry = Registry(run.store)
    live = registry.live_before(run.existing().version)
    if live is None:
        return {}
    folder.mkdir(parents=True)
    card = registry.card(live)
    (folder / "card.json").write_text(json.dumps({"version": live} if card is None else asdict(card)))
    try:
        registry.fetch(live, folder / "model")
    except (BadInput, CorruptArtifact) as error:
        log.warning("the live model cannot be fetched: %s", error)
    return {CHAMPION: folder}


def data_beside(run: Run, inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    """The run's data beside that of the live model: figures, and reservations; BadInput above a limit.

    Invented posts are no measure for real ones, nor the other way about.
    """
    registry, record = Registry(run.store), run.existing()
    version = registry.live_before(record.version)
    card = registry.card(version) if version is not None else None
    if card is None or card.invented != inputs["ingest"].summary["invented"]:
        return {"drift": None, "warnings": []}
    lineage = Run(run.store, card.run)
    trained_on = lineage.manifests()
    if all(stage in trained_on and trained_on[stage].digest == inputs[stage].digest for stage in inputs):
        return {"drift": {"live": version} | SAME, "warnings": []}
    # The DAG file imports this module, and is parsed without Arrow.
    from pipeline.checks import drift

    with TemporaryDirectory(prefix="tagger-drift-") as scratch:
        folders = Path(scratch, "now"), Path(scratch, "then")
        try:
            now = drift.Corpus.of(*_words(run, inputs, FREQUENT, folders[0]))
            then = drift.Corpus.of(*_words(lineage, trained_on, ".", folders[1]))
        except (KeyError, CorruptArtifact) as error:
            log.warning("what the live model was trained on cannot be read: %s", error)
            return {"drift": None, "warnings": [f"what the live model, version {version}, was trained on is lost"]}
    figures = asdict(drift.measure(now, then))
    cure = (
        "nothing is trained and the live model stays; mend the source, or if its posts are right so, raise the limit "
        "or start a run with force_reason"
    )
    warnings = drift.judge(figures, record.settings, cure, record.settings.force_reason)
    for warning in warnings:
        log.warning("with reservations: %s", warning)
    return {"drift": {"live": version} | figures, "warnings": warnings}


def _words(run: Run, manifests: Mapping[str, Manifest], words: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """The summary of the run's ingest, and the folder `words` of its fit_vocabulary, fetched alone."""
    fitted = manifests["fit_vocabulary"]
    listed = {name: entry for name, entry in fitted.files.items() if Path(name).parent == Path(words)}
    run.store.download(run.attempt(fitted), listed, folder)
    return manifests["ingest"].summary, folder / words


def publish(run: Run, inputs: Mapping[str, Manifest], exported: Manifest) -> dict[str, Any]:
    """Publish what export left: a stage knows no store. Done twice it is the same.

    What is live already, to the byte, is not published once more; nor is, unless forced, what was taken down by hand.
    """
    registry, forced = Registry(run.store), run.existing().settings.force_reason or ""
    version = registry.live()
    served = registry.card(version) if version is not None else None
    if served and served.files == exported.files:
        registry.reconcile()
        log.info("version %d is live, and is this very model", served.version)
        return _told(served, served.version)
    card = _card(run, inputs, exported)
    down = registry.taken_down(card)
    if down and not forced:
        withdrawn, by_hand = down
        log.warning(
            "version %s stays live: this is the very model of version %d, which %s took down on %s (%s); to bring it "
            "back, promote it or give a force_reason",
            *(version, withdrawn.version, by_hand.by, by_hand.at[:10], by_hand.reason),
        )
        return _told(withdrawn, version)
    event = registry.publish(card, beside=inputs["evaluate"].summary["champion"], forced=forced)
    log.info("version %d is published, accuracy %.4f", card.version, card.accuracy)
    for warning in card.warnings:
        log.warning("with reservations: %s", warning)
    live = registry.live()
    if event.live != card.version:
        log.warning("version %d stays live: %s", event.live, event.reason)
    elif live != card.version:
        log.warning("version %d was live; since then version %d has taken its place", card.version, live)
    return _told(card, live)


def _card(run: Run, inputs: Mapping[str, Manifest], exported: Manifest) -> Card:
    record, evaluation = run.existing(), inputs["evaluate"].summary
    return Card(
        version=record.version,
        run=run.name,
        data=record.created.astimezone(UTC).isoformat(),
        path=run.attempt(exported),
        checkpoint=inputs["train"].summary["checkpoint"],
        accuracy=evaluation["accuracy"],
        macro_f1=evaluation["macro_f1"],
        tags=evaluation["tags"],
        invented=inputs["ingest"].summary["invented"],
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        files=exported.files,
        warnings=warnings_of(inputs),
    )


def _told(card: Card, live: int | None) -> dict[str, Any]:
    facts = {"version": card.version, "accuracy": card.accuracy, "live": live == card.version}
    return facts | {"warnings": card.warnings}
