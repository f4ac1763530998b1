"""Copies the inputs of a stage from the store into local folders."""

import logging
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import CorruptArtifact, StageOutOfOrder
from pipeline.run.work import Work
from pipeline.stages.plan import FurtherInput
from pipeline.store.run_files import CHECKPOINT, SHARDS

log = logging.getLogger(__name__)


def fetch(work: Work, top: Path) -> dict[str, Path]:
    """Copy all inputs of the stage to folders under `top`, and return these by the input's name."""
    folders = {name: top / name for name in work.inputs}
    for name, manifest in work.inputs.items():
        work.run.files.fetch(manifest, folders[name])
    for kind in work.stage.further_inputs:
        if FURTHER_INPUTS[kind](work, top / kind):
            folders[kind] = top / kind
    return folders


def fetch_for_shard(work: Work, index: int, top: Path) -> dict[str, Path]:
    """Copy the inputs of one shard's task to folders under `top`: of the input that comes in shards, this one only."""
    # The DAG file imports this module, and is parsed without Arrow.
    from pipeline.data import posts

    folders = {name: top / name for name in work.inputs}
    for name, manifest in work.inputs.items():
        in_shards = name == work.stage.sharded_by
        names = posts.shard_files(manifest.files, index, work.record.deployment.shards) if in_shards else None
        work.run.files.fetch(manifest, folders[name], names)
    return folders


def fetch_shard_results(work: Work, top: Path) -> list[Path]:
    """Copy what run_shard saved for each shard to folders under `top`; empty if the stage was not done shard by shard.

    Raises StageOutOfOrder if the results of some shards are missing.
    """
    name, run = work.stage.name, work.run
    if not work.stage.sharded_by or (count := work.record.deployment.shards) == 1:
        return []
    folders = [top / str(index) for index in range(count)]
    found = [run.files.resume(name, f"{SHARDS}/{index}", work.inputs, folder) for index, folder in enumerate(folders)]
    if all(found):
        return folders
    if not any(found) or _gathered_before(work):
        return []
    raise StageOutOfOrder(
        f"shard {found.index(False)} of {name} of run {run.name} is not done, or its inputs were made again since: "
        "run it first"
    )


def _gathered_before(work: Work) -> bool:
    """Whether the stage is complete, so that an earlier try was interrupted while it removed the shards' results."""
    done = work.run.manifest(work.stage.name)
    return done is not None and done.inputs == {need: manifest.digest for need, manifest in work.inputs.items()}


def _fetch_champion(work: Work, folder: Path) -> bool:
    if work.champion is None:
        return False
    work.champion.fetch(folder)
    return True


def _fetch_warm_start(work: Work, folder: Path) -> bool:
    return work.settings.warm_start == "live" and _fetch_champion(work, folder)


def _fetch_checkpoint(work: Work, folder: Path) -> bool:
    """Copy the checkpoint that an earlier try of the stage saved; False if there is none or it is damaged."""
    try:
        return work.run.files.resume(work.stage.name, CHECKPOINT, work.inputs, folder)
    except CorruptArtifact as error:
        log.warning("%s begins again: %s", work.stage.name, error)
        return False


def _fetch_feedback(work: Work, folder: Path) -> bool:
    # The DAG file imports this module, and is parsed without Arrow.
    from pipeline.run.feedback_source import store_for
    from pipeline.store import feedback

    store = store_for(work.settings, work.source, work.run.store)
    return store is not None and feedback.fetch(store, folder) is not None


FURTHER_INPUTS: dict[FurtherInput, Callable[[Work, Path], bool]] = {
    "champion": _fetch_champion,
    "feedback": _fetch_feedback,
    "resume": _fetch_checkpoint,
    "warm_start": _fetch_warm_start,
}
"""How each further input of a stage is copied to a folder; the function returns whether there is one."""
