"""Verifies that the store's documents and files are the bytes that were written, by their sha256."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadInput, CorruptArtifact
from pipeline.execution import cache
from pipeline.files import scratch_folder
from pipeline.progress import Track, log_lines
from pipeline.registry.card import Card
from pipeline.registry.cards import CARDS
from pipeline.registry.registry import LOG, Registry
from pipeline.registry.series import SERIES, Series
from pipeline.registry.serving_dir import path_of
from pipeline.stages.plan import STAGES
from pipeline.store import signatures
from pipeline.store.manifest import MANIFEST
from pipeline.store.notes import APPROVED, REFUSED
from pipeline.store.objects import Store
from pipeline.store.runs import CHECKPOINT, PAGE, RECORD, REPORT, SHARDS, Run, every_run


@dataclass(frozen=True)
class Verified:
    """The result: how many files and documents were read, and each fault in a sentence."""

    files: int
    faults: list[str]


def verify(store: Store, name: str | None = None, track: Track = log_lines) -> Verified:
    """Check the run or version of this name, or the whole store; BadInput if there is no such run or version."""
    count, faults = 0, list[str]()
    with track("verify", "files", None) as advance:
        for fault in _checks(store, name):
            count += 1
            advance(1)
            if fault:
                faults.append(fault)
    return Verified(count, faults)


def _checks(store: Store, name: str | None) -> Iterator[str | None]:
    """Check each file and document, and yield its fault or None."""
    if name is None:
        for run in every_run(store):
            yield from _run(run)
        yield from _log(store)
        yield from _series(store)
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
        raise BadInput(
            f"{store.url} holds neither a run nor a version named {name!r}: `tagger runs` and `tagger models` list them"
        )


def _run(run: Run) -> Iterator[str | None]:
    """Check run.json, and for each stage the manifest, its files, and the unfinished work."""
    begun = False
    for stage in STAGES:
        fault = _readable(run.store, f"{run.path}/{stage}/{MANIFEST}")
        yield fault
        if fault is None and (manifest := run.manifest(stage)):
            begun = True
            yield from _cured(run.store.faults(run.attempt(manifest), manifest.files), f"run {stage} again")
        yield from _unfinished(run, stage)
    yield from _report(run)
    path = f"{run.path}/{RECORD}"
    lost = begun and not run.store.exists(path)
    yield (
        f"{run.store.display_path(path)} is gone: restore it, or start a new run"
        if lost
        else _readable(run.store, path)
    )


def _report(run: Run) -> Iterator[str | None]:
    """Check the run's report and the note why it was refused, if there are any."""
    yield _readable(run.store, f"{run.path}/{REFUSED}")
    yield _readable(run.store, f"{run.path}/{APPROVED}")
    if run.store.exists(f"{run.path}/{REPORT}/{PAGE}.json"):
        yield (fault := _readable(run.store, f"{run.path}/{REPORT}/{PAGE}.json"))
        if fault is None and (saved := run.saved(REPORT, PAGE)):
            yield from _cured(run.store.faults(saved.path, saved.files), f"`tagger report {run.name}` makes it again")


def _unfinished(run: Run, stage: str) -> Iterator[str | None]:
    """Check the saved checkpoint of a stage, and its shards' results that are not gathered yet."""
    names = [f"{SHARDS}/{name}" for name in run.store.names(f"{run.path}/{stage}/{SHARDS}")]
    for name in [f"{CHECKPOINT}.json", *names]:
        path = f"{run.path}/{stage}/{name}"
        if name.endswith(".json") and run.store.exists(path):
            yield (fault := _readable(run.store, path))
            if fault is None and (saved := run.saved(stage, name.removesuffix(".json"))):
                yield from _cured(run.store.faults(saved.path, saved.files), f"run {stage} again")


def _documents(store: Store, folder: str) -> Iterator[str]:
    return (f"{folder}/{name}" for name in store.names(folder))


def _log(store: Store) -> Iterator[str | None]:
    """Check each entry of the log, and that none is missing before the last."""
    names = [name for name in store.names(LOG) if name.endswith(".json")]
    for number, name in enumerate(names, 1):
        path = f"{LOG}/{name}"
        yield _readable(store, path)
        if name != f"{number:08d}.json":
            missing = f"{store.display_path(LOG)}/{number:08d}.json"
            yield f"{missing} is gone, so it is not known which version was live then: restore it"
            return
    with suppress(CorruptArtifact):  # named already, as a document
        yield Registry(store).log.fault()


def _series(store: Store) -> Iterator[str | None]:
    """Check each observation of the series, and the copy of them."""
    yield from (_readable(store, path) for path in _documents(store, SERIES) if path.endswith(".json"))
    with suppress(CorruptArtifact):  # named already, as a document
        yield Series(store).log.fault()


def _versions(store: Store) -> list[int]:
    """The versions that have a card, or an entry in the log."""
    names = (name.removesuffix(".json") for name in store.names(CARDS))
    versions = {int(name) for name in names if name.isdecimal()}
    with suppress(CorruptArtifact):  # named already, as a document
        versions |= {event.version for event in Registry(store).events()}
    return sorted(versions)


def _version(store: Store, version: int) -> Iterator[str | None]:
    """Check the card, its files, and their copy in the serving directory if there is one."""
    path, registry = f"{CARDS}/{version}.json", Registry(store)
    try:
        card = registry.card(version)
    except CorruptArtifact as error:
        yield str(error)
        return
    yield None if card else f"{store.display_path(path)} is gone, though the log names version {version}: restore it"
    if card and not registry.collected(version):
        yield from _cured(store.faults(card.path, card.files), "this version cannot be served again, publish another")
        yield _signature(registry, card)
    if card and store.names(path_of(version)):
        yield from _copy(store, card)


def _signature(registry: Registry, card: Card) -> str | None:
    """What is wrong with the signature of the version's files; None if nothing is, or if no key is trusted."""
    if not signatures.keys().trusted:
        return None
    with scratch_folder("verify") as scratch:
        try:
            registry.fetch(card.version, Path(scratch, str(card.version)))
        except CorruptArtifact as error:
            return str(error)
    return None


def _copy(store: Store, card: Card) -> Iterator[str | None]:
    cure = f"`tagger promote {card.version}` fixes it if that version is live, otherwise remove the folder"
    yield from _cured(store.faults(path_of(card.version), card.files), cure)
    for name in store.sizes(path_of(card.version)).keys() - card.files.keys():
        yield f"{store.display_path(path_of(card.version))}/{name} belongs to no published version: remove it"


def _served(store: Store) -> Iterator[str | None]:
    """Check that the serving directory holds the live version, complete, and no withdrawn version above it."""
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
