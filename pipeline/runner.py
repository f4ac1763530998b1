"""Run one stage of one run: fetch its inputs, give it an empty folder, commit what it left there."""

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import partial
from pipeline.errors import BadInput, CorruptArtifact, GateNotPassed, StageOutOfOrder, Unavailable
from pipeline.registry import Card, Registry
from pipeline.runs import Manifest, Record, Run
from pipeline.stages import CHAMPION, RESUME, STAGES

log = logging.getLogger(__name__)


def run_stage(stage: str, run: Run) -> dict[str, Any]:
    """Run the stage, and return its summary; for export also the version that is published.

    Raises StageOutOfOrder where an input is missing or stale, Unavailable where a disk or the store fails, and whatever
    TaggerError the stage refuses with. Only a gate's refusal leaves files: they are the evidence.
    """
    settings = run.existing().settings
    inputs = run.inputs(STAGES[stage])
    with TemporaryDirectory(prefix=f"tagger-{stage}-") as scratch:
        folders = {name: Path(scratch, "inputs", name) for name in inputs}
        for name, manifest in inputs.items():
            run.fetch(manifest, folders[name])
        if stage == "evaluate":
            folders |= _champion(run, Path(scratch, "inputs", CHAMPION))
        folders |= _left_over(run, stage, inputs, Path(scratch, "inputs", RESUME))
        out = Path(scratch, "out")
        out.mkdir()
        refusal: GateNotPassed | None = None
        _forget_peak_memory()
        start = time.monotonic()
        try:
            with partial.kept_by(lambda folder, step: run.keep(stage, folder, step, inputs)):
                summary = asdict(import_module(f"pipeline.stages.{stage}").run(folders, out, settings))
        except GateNotPassed as error:
            refusal, summary = error, error.evidence
        except OSError as error:
            raise Unavailable(
                f"{stage}: the disk under {scratch} failed ({error.strerror or error}); "
                "see that it is not full, or point TMPDIR at another, then run the stage again"
            ) from error
        seconds = time.monotonic() - start
        if summary:
            manifest = run.commit(stage, out, inputs=inputs, summary=summary, seconds=seconds, peak_mib=_peak_memory())
            run.forget(stage)
        if refusal:
            raise refusal
        log.info("%s of run %s is complete after %.1f s", stage, run.name, seconds)
        return summary | _published(run, inputs, manifest, out) if stage == "export" else summary


def _left_over(run: Run, stage: str, inputs: Mapping[str, Manifest], folder: Path) -> dict[str, Path]:
    """What an earlier try of the stage kept before it was cut off, as one more input; nothing where that is damaged."""
    try:
        return {RESUME: folder} if run.resume(stage, inputs, folder) else {}
    except CorruptArtifact as error:
        log.warning("%s begins anew: %s", stage, error)
        return {}


def _champion(run: Run, folder: Path) -> dict[str, Path]:
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


def _published(run: Run, inputs: Mapping[str, Manifest], exported: Manifest, folder: Path) -> dict[str, Any]:
    """Publish what export left: a stage knows no store, so this is the runner's."""
    evaluation, training = inputs["evaluate"].summary, inputs["train"].summary
    record = run.existing()
    card = Card(
        version=record.version,
        run=run.name,
        data=record.created.astimezone(UTC).isoformat(),
        path=run.attempt(exported),
        checkpoint=training["checkpoint"],
        accuracy=evaluation["accuracy"],
        macro_f1=evaluation["macro_f1"],
        tags=evaluation["tags"],
        invented=inputs["ingest"].summary["invented"],
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        files=exported.files,
    )
    registry = Registry(run.store)
    _refuse_outrun(registry, evaluation, record)
    card = registry.publish(card, folder, forced=record.settings.force_reason or "")
    live = registry.live()
    log.info("version %d is published, accuracy %.4f", card.version, card.accuracy)
    if live != card.version:
        log.warning("version %d stays live: its data is newer than that of version %d", live, card.version)
    return {"version": card.version, "accuracy": card.accuracy, "live": live == card.version}


def _refuse_outrun(registry: Registry, evaluation: dict[str, Any], record: Record) -> None:
    """A verdict holds against the model it was reached against: not once another has gone live."""
    live = registry.live()
    if live not in {evaluation["champion"], record.version}:
        raise StageOutOfOrder(
            f"version {live} went live since this run was compared with {evaluation['champion'] or 'no model'}: "
            f"run evaluate of run {record.run} again, then export"
        )


def _forget_peak_memory() -> None:
    """Linux keeps the peak since it was last reset; elsewhere, and in a locked-down container, none is reported."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        log.debug("the peak of resident memory cannot be reset here")


def _peak_memory() -> float | None:
    """MiB of resident memory at the most since _forget_peak_memory."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return round(int(found[1]) / 1024, 1) if found else None
