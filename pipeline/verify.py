"""Is everything in the store what was written there? Every file of every manifest and card, by its sha256."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import progress, reuse
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.registry import CARDS, LOG, Card, Registry, path_of
from pipeline.runs import RUNS, Run
from pipeline.stages import STAGES
from pipeline.store import Store


@dataclass(frozen=True)
class Verified:
    """How many files and documents were read, and each fault in a sentence."""

    files: int
    faults: list[str]


def verify(store: Store, name: str | None = None) -> Verified:
    """Check one run, one version, or all of both; BadInput where there is no such run or version."""
    count, faults = 0, list[str]()
    with progress.track("verify", "files") as advance:
        for fault in _checks(store, name):
            count += 1
            advance(1)
            if fault:
                faults.append(fault)
    return Verified(count, faults)


def _checks(store: Store, name: str | None) -> Iterator[str | None]:
    """One item a file or document: its fault, or None."""
    if name is None:
        for run in store.names(RUNS):
            yield from _run(Run(store, run))
        yield from _documents(store, LOG)
        for stage in STAGES:
            yield from _documents(store, f"{reuse.FOLDER}/{stage}")
        for document in store.names(CARDS):
            yield from _version(store, int(document.removesuffix(".json")))
        yield from _served(store)
    elif name in store.names(RUNS):
        yield from _run(Run(store, name))
    elif name.isdecimal() and f"{name}.json" in store.names(CARDS):
        yield from _version(store, int(name))
    else:
        raise BadInput(f"{store.url} holds neither a run nor a version named {name!r}: see `tagger runs` and `models`")


def _run(run: Run) -> Iterator[str | None]:
    yield _readable(run.store, f"{run.path}/run.json")
    for stage in STAGES:
        fault = _readable(run.store, f"{run.path}/{stage}/manifest.json")
        yield fault
        if fault is None and (manifest := run.manifest(stage)):
            yield from run.store.faults(run.attempt(manifest), manifest.files)


def _documents(store: Store, folder: str) -> Iterator[str | None]:
    yield from (_readable(store, f"{folder}/{name}") for name in store.names(folder))


def _version(store: Store, version: int) -> Iterator[str | None]:
    """The card, the files it names, and the watched folder's copy where there is one."""
    fault = _readable(store, f"{CARDS}/{version}.json")
    yield fault
    card = None if fault else Registry(store).card(version)
    # Retention takes the manifest away first, then the files: a version without it is one that was let go.
    if card and "manifest.json" in store.names(card.path.rpartition("/")[0]):
        yield from store.faults(card.path, card.files)
    if card and store.names(path_of(version)):
        yield from _copy(store, card)


def _copy(store: Store, card: Card) -> Iterator[str | None]:
    yield from store.faults(path_of(card.version), card.files)
    for name in store.sizes(path_of(card.version)).keys() - card.files.keys():
        yield f"{store.shown(path_of(card.version))}/{name} belongs to no published version: remove it"


def _served(store: Store) -> Iterator[str | None]:
    """The live version must be in the watched folder, whole, and nothing withdrawn above it."""
    try:
        yield Registry(store).disagreement()
    except CorruptArtifact:
        return  # named already, as a document


def _readable(store: Store, path: str) -> str | None:
    try:
        store.read(path)
    except CorruptArtifact as error:
        return str(error)
    return None
