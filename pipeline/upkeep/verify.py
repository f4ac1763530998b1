"""Verifies that the store's documents and files are those that were written, and that none of them is missing.

A document holds its own sha256 and place; a manifest, a card or a note of unfinished work those of the other files.
What must be there follows from what is there: a manifest names those that it was made from, the log names versions.
Each check is made whatever the others say.
"""

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import BadInput, TaggerError
from pipeline.progress import Track, log_lines
from pipeline.registry.registry import LOG
from pipeline.stages.plan import LAST, STAGES
from pipeline.store import cache, needs, run_index
from pipeline.store.manifest import MANIFEST
from pipeline.store.notes import PUBLISHED, REFUSED, Publication, Saved
from pipeline.store.objects import Store
from pipeline.store.run_files import CHECKPOINT, PAGE, REPORT, SHARDS
from pipeline.store.runs import RECORD, RESULT, TUNING, TUNINGS, Run, every_run
from pipeline.upkeep.faults import Faults, documents, files, guarded, lost, sources
from pipeline.upkeep.verify_registry import (
    check_registry,
    check_version,
    events_of,
    versions_of,
)

SAVED = re.compile(rf"([^/]+)/({CHECKPOINT}|{SHARDS}/[^/]+|{PAGE})\.json")
"""The documents of a run that name a folder which was saved with them: its stage, and its name there."""

OF_RUN = re.compile(r"([^/]+/)?[^/]+\.json|[^/]+/(shards|cluster)/[^/]+\.json")
OF_TUNING = OF_FOLDER = re.compile(r"([^/]+/)?[^/]+\.json")
"""The documents in each of these folders. One of them names every other file that counts."""

FOLDERS = (cache.FOLDER, run_index.BEGUN, needs.FOLDER)
"""Folders of documents beside the runs, which name no files of their own."""


@dataclass(frozen=True)
class Verified:
    """The result: how many files and documents were read, and each fault in a sentence."""

    files: int
    faults: list[str]


def verify(store: Store, name: str | None = None, track: Track = log_lines) -> Verified:
    """Check the run or version of this name, or the whole store.

    Raises BadInput if there is no such run or version.
    """
    count = 0
    faults = dict[str, None]()  # each once, because several checks may read what is damaged
    with track("verify", "files", None) as advance:
        for fault in _checks(store, name):
            count += 1
            advance(1)
            if fault:
                faults[fault] = None
    return Verified(count, list(faults))


def _checks(store: Store, name: str | None) -> Faults:
    events = events_of(store)
    versions = versions_of(store, events)
    if name is None:
        yield from _runs(store, versions)
        yield from guarded(check_registry(store, events))
        for tuning in store.folders(TUNINGS):
            yield from guarded(_tuning(store, f"{TUNINGS}/{tuning}"))
        yield from guarded(_feedback(store))
    elif name in {run.name for run in every_run(store)}:
        yield from guarded(_run(Run(store, name), versions))
    elif name.isdecimal() and int(name) in versions:
        yield from guarded(check_version(store, int(name), events))
    else:
        raise BadInput(
            f"{store.url} holds neither a run nor a version named {name!r}: `tagger runs` and `tagger models` list them"
        )


def _feedback(store: Store) -> Faults:
    """Check the files of recorded posts, and what is noted of them."""
    from pipeline.store import feedback  # imports Arrow

    yield from feedback.faults(store)


def _runs(store: Store, versions: Collection[int]) -> Faults:
    """Check the runs, and the documents beside them."""
    for run in every_run(store):
        yield from guarded(_run(run, versions))
    for folder in FOLDERS:
        yield from documents(store, folder, store.sizes(folder), OF_FOLDER)


def _run(run: Run, versions: Collection[int]) -> Faults:
    """Check every document of the run, the files that these name, and that no document is missing."""
    names = set(run.store.sizes(run.path))
    yield from documents(run.store, run.path, sorted(names), OF_RUN)
    for stage in STAGES:
        if f"{stage}/{MANIFEST}" in names:
            yield from guarded(_stage(run, stage, names))
    for match in filter(None, map(SAVED.fullmatch, sorted(names))):
        yield from guarded(_saved(run, match[1], match[2], names))
    yield from guarded(_said(run, names, versions))


def _stage(run: Run, stage: str, names: Collection[str]) -> Faults:
    """Check the files of a complete stage, and that the run and what it was made from are there."""
    yield lost(run, RECORD, names, "restore it, or start a new run")
    if manifest := run.manifest(stage):
        again = f"run {stage} again"
        yield from files(run.store, manifest.path, manifest.files, again)
        yield from sources(run, manifest.inputs, names)


def _saved(run: Run, stage: str, name: str, names: Collection[str]) -> Faults:
    """Check a saved folder of the run: a checkpoint, a shard's result, or the report."""
    again = f"`tagger report {run.name}` makes it again" if stage == REPORT else f"run {stage} again"
    if saved := run.files.saved(stage, name):
        yield from files(run.store, saved.path, saved.files, again)
        yield from sources(run, saved.inputs, names)
        if stage == REPORT and saved.refused and not _passed_since(run, saved):
            yield lost(run, REFUSED, names, f"restore it, or run {saved.refused} again")


def _passed_since(run: Run, saved: Saved) -> bool:
    """Whether the stage that had refused the run when its report was made has succeeded since."""
    manifest = run.manifest(saved.refused)
    # The files that are exported are the same before and after a person's approval.
    if saved.refused == LAST:
        return manifest is not None
    return (manifest and manifest.digest) != saved.inputs.get(saved.refused)


def _said(run: Run, names: Collection[str], versions: Collection[int]) -> Faults:
    """Check that what the run says of published versions is still true."""
    log = run.store.display_path(LOG)
    if published := run.document(Publication, PUBLISHED):
        yield from sources(run, [LAST], names)
        if published.version not in (None, *versions):
            yield f"{log} does not name version {published.version}, which run {run.name} published: restore it"
    evaluated = run.manifest("evaluate")
    champion = evaluated.summary.get("champion") if evaluated else None
    if champion not in (None, *versions):
        yield f"{log} does not name version {champion}, with which run {run.name} was compared: restore it"


def _tuning(store: Store, path: str) -> Faults:
    """Check the documents of a tuning, the runs of its trials, and that none of these is missing."""
    names = set(store.sizes(path))
    shown = store.display_path(path)
    yield from documents(store, path, sorted(names), OF_TUNING)
    yield from _runs(store.within(f"{path}/trials"), [])
    for name in sorted(_of_tuning(store, path, names) - names):
        yield f"{shown}/{name} is gone: restore it, or remove {shown} and tune again"


def _of_tuning(store: Store, path: str, names: Collection[str]) -> set[str]:
    """The names of documents that the tuning must have, because of those that it has."""
    journal = sum(name.startswith("journal/") for name in names)
    needed = {f"journal/{number:08d}.json" for number in range(journal)}
    if any(name == RESULT or name.startswith(("done/", "trials/")) for name in names):
        needed.add(TUNING)
    result = dict[str, Any]()
    with suppress(TaggerError):  # named already, as a document
        result = store.read(f"{path}/{RESULT}") or {}
    for trial in result.get("trials", []):
        needed.add(f"done/{trial['number']:04d}.json")
        begun = f"trials/runs/trial{trial['number']}"
        # Whoever needs the room may have removed the trials of a tuning that is finished.
        if trial["state"] == "scored" and f"{begun}/{RECORD}" in names:
            needed |= {f"{begun}/train/{MANIFEST}", f"trials/runs/posts/ingest/{MANIFEST}"}
    return needed
