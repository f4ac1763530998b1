"""Run one stage of one run: fetch its inputs, give it an empty folder, commit what it left there."""

import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import GateNotPassed, Unavailable
from pipeline.registry import Card, Registry
from pipeline.runs import Manifest, Run
from pipeline.stages import STAGES

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
        out = Path(scratch, "out")
        out.mkdir()
        refusal: GateNotPassed | None = None
        _forget_peak_memory()
        start = time.monotonic()
        try:
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
            run.commit(stage, out, inputs=inputs, summary=summary, seconds=seconds, peak_mib=_peak_memory())
        if refusal:
            raise refusal
        log.info("%s of run %s is complete after %.1f s", stage, run.name, seconds)
        return summary | _published(run, inputs, out) if stage == "export" else summary


def _published(run: Run, inputs: Mapping[str, Manifest], folder: Path) -> dict[str, Any]:
    """Publish what export left: a stage knows no store, so this is the runner's."""
    evaluation, training = inputs["evaluate"].summary, inputs["train"].summary
    card: Card = Registry(run.store).publish(
        folder,
        version=run.existing().version,
        run=run.name,
        checkpoint=training["checkpoint"],
        accuracy=evaluation["accuracy"],
        macro_f1=evaluation["macro_f1"],
        tags=evaluation["tags"],
    )
    log.info("version %d is published, accuracy %.4f", card.version, card.accuracy)
    return {"version": card.version, "accuracy": card.accuracy}


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
    return round(int(found[1]) / 1024, 1) if found and os.name == "posix" else None
