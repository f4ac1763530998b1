"""What the checks of a verification have in common: each yields faults, and none keeps others from being made."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from pipeline.errors import TaggerError
from pipeline.files import FileEntry
from pipeline.store.manifest import MANIFEST
from pipeline.store.objects import Store
from pipeline.store.runs import Run

Faults = Iterator[str | None]
"""The outcome of each check: its fault in a sentence, or None."""


def guarded(checks: Faults) -> Faults:
    """The checks; an error that ends them is a fault, and the checks after them are made all the same."""
    try:
        yield from checks
    except TaggerError as error:
        yield str(error)


def documents(store: Store, folder: str, names: Iterable[str], which: re.Pattern[str]) -> Faults:
    """Check that each document is the one that was written there."""
    for name in names:
        if which.fullmatch(name):
            yield from guarded(_document(store, f"{folder}/{name}"))


def _document(store: Store, path: str) -> Faults:
    store.read(path)
    yield None


def files(store: Store, folder: str, entries: Mapping[str, FileEntry], cure: str) -> Faults:
    """Check that each of these files is the one that was written there; `cure` ends the sentence."""
    for name, entry in entries.items():
        faults = store.faults(folder, {name: entry})
        yield from guarded(fault and f"{fault}: {cure}" for fault in faults)


def sources(run: Run, stages: Iterable[str], names: Collection[str]) -> Faults:
    """Check that the manifests of these stages are there, because something was made from them."""
    for stage in stages:
        yield lost(run, f"{stage}/{MANIFEST}", names, f"restore it, or run {stage} again")


def lost(run: Run, name: str, names: Collection[str], cure: str) -> str | None:
    """The sentence about a document of the run that must be there and is not; `names` were there before."""
    path = f"{run.path}/{name}"
    if name in names or run.store.exists(path):
        return None
    return f"{run.store.display_path(path)} is gone: {cure}"
