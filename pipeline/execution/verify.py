"""Is everything in the store what was written there? Every file of every manifest and card, by its sha256."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline import progress
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.execution import cache
from pipeline.registry.card import Card
from pipeline.registry.registry import CARDS, LOG, Registry
from pipeline.registry.serving_dir import path_of
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import PARTIAL, PARTS, Run, every_run


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
        for run in every_run(store):
            yield from _run(run)
        yield from _log(store)
        for stage in STAGES:
            yield from (_readable(store, path) for path in _documents(store, f"{cache.FOLDER}/{stage}"))
        for version in _versions(store):
            yield from _version(store, version)
        yield from _served(store)
    elif name in {run.name for run in every_run(store)}:
        yield from _run(Run(store, name))
    elif name.isdecimal() and int(name) in _versions(store):
        yield from _version(store, int(name))
    else:
        raise BadInput(f"{store.url} holds neither a run nor a version named {name!r}: see `tagger runs` and `models`")


def _run(run: Run) -> Iterator[str | None]:
    """run.json, and of each stage what its manifest names and what an unfinished try has kept."""
    begun = False
    for stage in STAGES:
        fault = _readable(run.store, f"{run.path}/{stage}/manifest.json")
        yield fault
        if fault is None and (manifest := run.manifest(stage)):
            begun = True
            yield from _cured(run.store.faults(run.attempt(manifest), manifest.files), f"run {stage} again")
        yield from _kept(run, stage)
    path = f"{run.path}/run.json"
    lost = begun and not run.store.exists(path)
    yield f"{run.store.shown(path)} is gone: restore it, or start a new run" if lost else _readable(run.store, path)


def _kept(run: Run, stage: str) -> Iterator[str | None]:
    """The checkpoint of a try that has not ended, and the parts that wait to be gathered."""
    names = [f"{PARTS}/{name}" for name in run.store.names(f"{run.path}/{stage}/{PARTS}")]
    for name in [f"{PARTIAL}.json", *names]:
        path = f"{run.path}/{stage}/{name}"
        if name.endswith(".json") and run.store.exists(path):
            yield (fault := _readable(run.store, path))
            if fault is None and (kept := run.kept(stage, name.removesuffix(".json"))):
                yield from _cured(run.store.faults(*kept), f"run {stage} again")


def _documents(store: Store, folder: str) -> Iterator[str]:
    return (f"{folder}/{name}" for name in store.names(folder))


def _log(store: Store) -> Iterator[str | None]:
    """Each entry, and that none is missing before the last."""
    names = [name for name in store.names(LOG) if name.endswith(".json")]
    for number, name in enumerate(names, 1):
        path = f"{LOG}/{name}"
        yield _readable(store, path)
        if name != f"{number:08d}.json":
            yield f"{store.shown(LOG)}/{number:08d}.json is gone, so what was live then is not known: restore it"
            return


def _versions(store: Store) -> list[int]:
    """Those that have a card, or an entry in the log."""
    names = (name.removesuffix(".json") for name in store.names(CARDS))
    versions = {int(name) for name in names if name.isdecimal()}
    with suppress(CorruptArtifact):  # named already, as a document
        versions |= {event.version for event in Registry(store).events()}
    return sorted(versions)


def _version(store: Store, version: int) -> Iterator[str | None]:
    """The card, the files it names, and the watched folder's copy where there is one."""
    path, registry = f"{CARDS}/{version}.json", Registry(store)
    if not store.exists(path):
        yield f"{store.shown(path)} is gone, though the log names version {version}: restore it"
        return
    yield (fault := _readable(store, path))
    card = None if fault else registry.card(version)
    if card and not registry.let_go(version):
        yield from _cured(store.faults(card.path, card.files), "it can be served no more, publish another")
    if card and store.names(path_of(version)):
        yield from _copy(store, card)


def _copy(store: Store, card: Card) -> Iterator[str | None]:
    cure = f"`tagger promote {card.version}` puts it right where that version is live, else remove the folder"
    yield from _cured(store.faults(path_of(card.version), card.files), cure)
    for name in store.sizes(path_of(card.version)).keys() - card.files.keys():
        yield f"{store.shown(path_of(card.version))}/{name} belongs to no published version: remove it"


def _served(store: Store) -> Iterator[str | None]:
    """The live version must be in the watched folder, whole, and nothing withdrawn above it."""
    with suppress(CorruptArtifact):  # named already, as a document
        yield Registry(store).disagreement()


def _cured(faults: Iterator[str | None], cure: str) -> Iterator[str | None]:
    return (fault and f"{fault}: {cure}" for fault in faults)


def _readable(store: Store, path: str) -> str | None:
    try:
        store.read(path)
    except CorruptArtifact as error:
        return str(error)
    return None
