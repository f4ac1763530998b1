"""Runs one stage of one run: fetches its inputs, calls it with an empty folder, and commits what it left there.

`run_stage` is the whole story; the functions after it are in the order in which it calls them.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from pipeline import tf_config
from pipeline.errors import BadInput, ExportRefused, GateNotPassed, TrainingFailed, Unavailable
from pipeline.files import scratch_folder
from pipeline.integrations.mlflow import mirror
from pipeline.progress import OnEpoch, SaveCheckpoint, Track, log_lines, no_report
from pipeline.run import cache_keys, cluster_worker, inputs, measure
from pipeline.run.drift_check import check_drift
from pipeline.run.publication import publish
from pipeline.run.reporting import make_report
from pipeline.run.work import Work
from pipeline.stages import accounting
from pipeline.store import cache
from pipeline.store.manifest import Manifest
from pipeline.store.needs import needing
from pipeline.store.run_files import CHECKPOINT, SHARDS
from pipeline.store.runs import Run

log = logging.getLogger(__name__)

REFUSALS = (BadInput, GateNotPassed, TrainingFailed, ExportRefused)
"""The errors by which a stage says that this run cannot go on, whoever tries it again."""


def run_stage(
    name: str,
    run: Run,
    track: Track = log_lines,
    on_epoch: OnEpoch = no_report,
    *,
    needs_approval: bool = False,
) -> dict[str, Any]:
    """Do the stage as _run_stage does; if it refuses the run, note why, and make the report of the run.

    With `needs_approval` a model is published only if a person approved it.
    """
    with _noting_refusals(name, run):
        return _run_stage(Work.of(name, run, track, on_epoch, needs_approval=needs_approval))


@contextmanager
def _noting_refusals(name: str, run: Run) -> Iterator[None]:
    """If the stage refuses the run, refuse it in the store, too. Meanwhile garbage collection keeps the run."""
    try:
        with needing(run.store, run.path):
            yield
    except REFUSALS as error:
        if run.record():
            refuse(run, name, str(error), error.evidence)
        raise


def refuse(run: Run, stage: str, why: str, evidence: Mapping[str, Any] | None = None) -> None:
    """Note that the run was refused by the stage or before it, make its report, and copy it to MLflow."""
    run.refuse(stage, why, evidence)
    make_report(run)
    mirror(run)


def _run_stage(work: Work) -> dict[str, Any]:
    """Run the stage, or take its result from the cache, and return its summary.

    The summary has also what the checks before the stage and the steps after it report. If run_shard has done the stage
    shard by shard, the results are gathered. In a process that is not the chief of its TF_CONFIG cluster, the stage
    takes part in the chief's work and leaves nothing; the summary then names the process as `worker`. What on_epoch
    raises after an epoch of the training ends the stage, which then leaves nothing.

    Raises BadInput in such a process for a stage that a cluster does not do, StageOutOfOrder if an input is missing or
    stale, Unavailable if a disk or the store fails, and every TaggerError that the stage itself raises. The files of a
    failed stage are kept only after GateNotPassed, as evidence.
    """
    name, run = work.stage.name, work.run
    place = cluster_worker.place_in(work.stage)
    report = _check_before(work)
    state_before = _source_state(work)
    keys = cache_keys.of(work) if work.settings.reuse else []
    cached = cache.find(run.store, name, keys)
    if place:
        return _take_part(work, place, done=cached is not None)
    if cached and _adopt(work, cached, keys, report):
        manifest = cached
        if "warnings" not in report:
            _log_warnings(cached.summary)
    else:
        manifest = _do(work, report)
        if _source_state(work) == state_before:  # else it is not known which of the two states was read
            cache.store(run.store, manifest, keys)
    run.files.discard(name)
    run.withdraw_refusal(name)
    summary = manifest.summary | report
    if account := accounting.sentence(summary):
        log.info("%s of run %s: %s", name, run.name, account)
    if work.stage.publishes:
        summary |= publish(work, manifest)
    # A stage from the cache takes a quarter of a second, and a report three times as long: `tagger report` makes it.
    if work.stage.makes_report and manifest.run == run.name:
        make_report(run)
    if work.stage.mirrors:
        mirror(run)
    return summary


def run_shard(name: str, run: Run, index: int, track: Track = log_lines) -> dict[str, Any]:
    """Do the stage for one shard of the posts, and save the result for run_stage to gather; refusals as in run_stage.

    Raises what run_stage raises.
    """
    with _noting_refusals(name, run):
        work = Work.of(name, run, track)
        _check_before(work)
        if work.settings.reuse and cache.lookup(run.store, name, cache_keys.of(work)):
            # run_stage checks the cached files, and does the whole stage if they are damaged.
            return {"shard": index, "rows": 0}
        with _scratch(name) as scratch:
            folders, out = inputs.fetch_for_shard(work, index, scratch / "inputs"), _empty(scratch / "out")
            done = _module(name).run_shard(folders, out, work.settings, work.context())
            run.files.save(name, f"{SHARDS}/{index}", out, work.inputs)
        return {"shard": index} | asdict(done)


def _check_before(work: Work) -> dict[str, Any]:
    """Do the check that comes before the stage, if any, and return what it adds to the stage's summary."""
    report = check_drift(work) if work.stage.checks_drift else {}
    _log_warnings(report)
    return report


def _log_warnings(summary: Mapping[str, Any]) -> None:
    """Log the warnings of what was not done by a stage, which logs its own."""
    for warning in summary.get("warnings", []):
        log.warning("warning: %s", warning)


def _source_state(work: Work) -> object:
    """The state of source and feedback, to notice a change while they are read; None for a stage that reads neither."""
    return (work.source.state(), cache_keys.feedback_of(work)) if work.stage.reads_source else None


def _take_part(work: Work, place: tf_config.Place, *, done: bool) -> dict[str, Any]:
    """Take part in the chief's work, unless that is done already."""
    if not done:
        with _scratch(work.stage.name) as scratch:
            cluster_worker.take_part(work, place, scratch)
    return {"rows": 0, "worker": str(place)}


def _adopt(work: Work, cached: Manifest, keys: list[str], report: dict[str, Any]) -> bool:
    """Make an earlier run's result this run's; False if garbage collection may be removing its files.

    Garbage collection evicts a cache entry before it looks which runs use the files. So either it sees that this run
    uses them, or this run sees that the entry is gone.
    """
    work.run.adopt(cached.model_copy(update={"summary": cached.summary | report}))
    if cache.lookup(work.run.store, cached.stage, keys) is None:
        return False
    log.info("%s of run %s is that of run %s: same data, settings and code", cached.stage, work.run.name, cached.run)
    return True


def _do(work: Work, report: dict[str, Any]) -> Manifest:
    """Call the stage in a scratch folder, and commit what it left, even if it raises GateNotPassed."""
    name, run = work.stage.name, work.run
    with _scratch(name) as scratch:
        shards = inputs.fetch_shard_results(work, scratch / "inputs" / SHARDS)
        folders = {} if shards else inputs.fetch(work, scratch / "inputs")
        out, context = _empty(scratch / "out"), work.context(_save_checkpoint(work))
        refusal: GateNotPassed | None = None
        usage_since_start = measure.start()
        try:
            if shards:
                done = _module(name).gather(shards, out, work.settings, context)
            else:
                done = _module(name).run(folders, out, work.settings, context)
            summary = asdict(done) | report
        except GateNotPassed as error:
            refusal, summary = error, error.evidence
        usage = usage_since_start()
        if summary:
            manifest = run.commit(name, out, inputs=work.inputs, summary=summary, **asdict(usage))
    if refusal:
        run.files.discard(name)
        raise refusal
    log.info("%s of run %s is complete after %.1f s", name, run.name, usage.seconds)
    return manifest


def _save_checkpoint(work: Work) -> SaveCheckpoint:
    """Save a checkpoint in the store: for a retry of the stage, or for the evaluator of this process's cluster."""
    name = cluster_worker.FOR_EVALUATOR if tf_config.here() else CHECKPOINT
    return lambda folder, step: work.run.files.save(work.stage.name, name, folder, work.inputs)


def _module(name: str) -> Any:
    return import_module(f"pipeline.stages.{name}")


@contextmanager
def _scratch(stage: str) -> Iterator[Path]:
    """Give a temporary folder for the stage's work; an OSError in it is raised as Unavailable."""
    try:
        with scratch_folder(stage) as scratch:
            yield scratch
    except OSError as error:
        raise Unavailable(
            f"{stage}: the disk under {gettempdir()} failed ({error.strerror or error}); "
            "make sure that it is not full, or set TMPDIR to a folder on another disk",
            then="run the stage again",
        ) from error


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder
