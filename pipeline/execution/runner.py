"""Run one stage of one run: fetch its inputs, give it an empty folder, commit what it left there."""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from pipeline import checkpoints, tf_config
from pipeline.errors import CorruptArtifact, GateNotPassed, StageOutOfOrder, Unavailable
from pipeline.execution import cache, champion, cluster_worker
from pipeline.settings import Settings
from pipeline.stages.plan import CHAMPION, RESUME, STAGES
from pipeline.store.runs import PARTIAL, PARTS, Manifest, Run

log = logging.getLogger(__name__)


def run_stage(stage: str, run: Run) -> dict[str, Any]:
    """Run the stage, and return its summary; for export also the version that is published.

    Where an earlier run has done the very same work, its files become this run's. Where parts of the stage have been
    done by run_part, they are put together. In a cluster's process that is not the chief, train only takes part, and
    leaves nothing; the summary then says `replica`.

    Raises BadInput where such a process is asked for another stage, StageOutOfOrder where an input is missing or stale,
    Unavailable where a disk or the store fails, and whatever TaggerError the stage refuses with. Only a gate's refusal
    leaves files: they are the evidence.
    """
    place = cluster_worker.place_in(stage)
    settings = run.existing().settings
    inputs = run.inputs(STAGES[stage])
    beside = champion.data_beside(run, inputs) if stage == "vectorize" else {}
    source = cache.state(settings.source) if stage == "ingest" else None
    under = cache.keys(run, stage, inputs, settings) if settings.reuse else []
    manifest = cache.find(run.store, stage, under)
    if place:
        if not manifest:
            with _disk(stage, gettempdir()):
                cluster_worker.take_part(run, inputs, settings, place)
        return {"rows": 0, "replica": str(place)}
    if not (manifest and _taken_over(run, manifest, under, beside)):
        manifest = _worked(run, stage, inputs, settings, beside)
        if stage != "ingest" or cache.state(settings.source) == source:
            cache.remember(run.store, manifest, under)
    run.forget(stage)
    summary = manifest.summary | beside
    return summary | champion.publish(run, inputs, manifest) if stage == "export" else summary


def _taken_over(run: Run, manifest: Manifest, under: list[str], beside: dict[str, Any]) -> bool:
    """Make the earlier manifest this run's; False where retention may have been removing its files meanwhile.

    Retention takes the note away before it asks which runs name the files: either it sees this run, or this run that
    the note is gone.
    """
    run.adopt(replace(manifest, summary=manifest.summary | beside))
    if cache.noted(run.store, manifest.stage, under) is None:
        return False
    log.info("%s of run %s is that of run %s: same data, settings and code", manifest.stage, run.name, manifest.run)
    return True


def run_part(stage: str, run: Run, index: int) -> dict[str, Any]:
    """Do the part of the stage that belongs to one shard of the posts, for run_stage to gather.

    Raises as run_stage does.
    """
    settings = run.existing().settings
    inputs = run.inputs(STAGES[stage])
    if settings.reuse and cache.noted(run.store, stage, cache.keys(run, stage, inputs, settings)):
        return {"part": index, "rows": 0}  # run_stage sees whether it is whole, and else does all of it
    with _disk(stage, gettempdir()), TemporaryDirectory(prefix=f"tagger-{stage}-") as scratch:
        folders = _inputs(run, inputs, Path(scratch, "inputs"), shard=(index, settings.shards))
        out = Path(scratch, "out")
        out.mkdir()
        summary = asdict(_module(stage).part(folders, out, settings))
        run.keep(stage, f"{PARTS}/{index}", out, inputs)
    return {"part": index} | summary


def _module(stage: str) -> Any:
    return import_module(f"pipeline.stages.{stage}")


def _shard(ingested: Manifest, index: int, shards: int) -> list[str]:
    """The file of the shard; StageOutOfOrder where ingest made more of them or fewer."""
    files = sorted(name for name in ingested.files if name.startswith("posts/"))
    if len(files) != shards or index >= shards:
        raise StageOutOfOrder(
            f"shard {index} of {shards} is not there, the posts are in {len(files)}: TAGGER_SHARDS was changed since "
            "the run began; start a new run"
        )
    return [files[index]]


def _worked(
    run: Run, stage: str, inputs: Mapping[str, Manifest], settings: Settings, beside: dict[str, Any]
) -> Manifest:
    """Do the stage's work in a scratch folder and commit it."""
    with _disk(stage, gettempdir()), TemporaryDirectory(prefix=f"tagger-{stage}-") as scratch:
        top, out = Path(scratch, "inputs"), Path(scratch, "out")
        out.mkdir()
        parts = _parts(run, stage, inputs, settings, top / PARTS)
        folders = {} if parts else _fetched(run, stage, inputs, top)
        refusal: GateNotPassed | None = None
        _forget_peak_memory()
        start, cpu = time.monotonic(), _cpu_seconds()
        try:
            name = cluster_worker.KEPT if tf_config.here() else PARTIAL
            with checkpoints.kept_by(lambda folder, step: run.keep(stage, name, folder, inputs)):
                module = _module(stage)
                done = module.gather(parts, out, settings) if parts else module.run(folders, out, settings)
                summary = asdict(done) | beside
        except GateNotPassed as error:
            refusal, summary = error, error.evidence
        seconds, cpu = time.monotonic() - start, _cpu_seconds() - cpu
        if summary:
            peak, cpu = _peak_memory(), round(cpu, 3)
            manifest = run.commit(
                stage, out, inputs=inputs, summary=summary, seconds=seconds, peak_mib=peak, cpu_seconds=cpu
            )
        if refusal:
            run.forget(stage)
            raise refusal
        log.info("%s of run %s is complete after %.1f s", stage, run.name, seconds)
        return manifest


@contextmanager
def _disk(stage: str, scratch: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"{stage}: the disk under {scratch} failed ({error.strerror or error}); "
            "see that it is not full, or point TMPDIR at another, then run the stage again"
        ) from error


def _inputs(
    run: Run, inputs: Mapping[str, Manifest], top: Path, shard: tuple[int, int] | None = None
) -> dict[str, Path]:
    """Local folders with the stages' files; of the posts all, or one shard of so many."""
    folders = {name: top / name for name in inputs}
    for name, manifest in inputs.items():
        names = _shard(manifest, *shard) if shard is not None and name == "ingest" else None
        run.fetch(manifest, folders[name], names)
    return folders


def _fetched(run: Run, stage: str, inputs: Mapping[str, Manifest], top: Path) -> dict[str, Path]:
    """Local folders with the stage's inputs, and with the two that are no stage's where there are such."""
    folders = _inputs(run, inputs, top)
    if stage == "evaluate":
        folders |= champion.champion(run, top / CHAMPION)
    return folders | _left_over(run, stage, inputs, top / RESUME)


def _parts(run: Run, stage: str, inputs: Mapping[str, Manifest], settings: Settings, top: Path) -> list[Path]:
    """What run_part has left for the stage, fetched: of every shard, or nothing where there is none.

    Raises StageOutOfOrder where some are missing.
    """
    if not STAGES[stage].parts or settings.shards == 1:
        return []
    folders = [top / str(index) for index in range(settings.shards)]
    there = [run.resume(stage, f"{PARTS}/{index}", inputs, folder) for index, folder in enumerate(folders)]
    if any(there) and not all(there):
        done = run.manifest(stage)
        if done and done.inputs == {name: manifest.digest for name, manifest in inputs.items()}:
            return []  # the try before was cut off while it removed them
        raise StageOutOfOrder(
            f"part {there.index(False)} of {stage} of run {run.name} is not done, or its inputs were made anew since: "
            "run it first"
        )
    return folders if any(there) else []


def _left_over(run: Run, stage: str, inputs: Mapping[str, Manifest], folder: Path) -> dict[str, Path]:
    """What an earlier try of the stage kept before it was cut off, as one more input; nothing where that is damaged."""
    try:
        return {RESUME: folder} if run.resume(stage, PARTIAL, inputs, folder) else {}
    except CorruptArtifact as error:
        log.warning("%s begins anew: %s", stage, error)
        return {}


def _cpu_seconds() -> float:
    """The cores' time of this process so far, and of those it has started and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


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
