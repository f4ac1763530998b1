"""Verifies the registry: its log and series, the files of each version, and what is served."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import TaggerError
from pipeline.files import scratch_folder
from pipeline.registry import cards
from pipeline.registry.card import Card
from pipeline.registry.collected import paths_of as notes_of
from pipeline.registry.events import Event
from pipeline.registry.registry import LOG, Registry
from pipeline.registry.series import SERIES
from pipeline.registry.serving_dir import path_of
from pipeline.registry.signing import SIGNATURES
from pipeline.stages.plan import LAST
from pipeline.store import signatures
from pipeline.store.append_log import AppendLog
from pipeline.store.notes import APPROVED
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.faults import Faults, documents, files, guarded, lost, sources

DOCUMENTS = re.compile(r"[^/]+/([^/]+/\d+|[^/]+)\.json")
"""The documents in the folder of the registry."""


def events_of(store: Store) -> list[Event]:
    """The entries of the registry's log that can be read."""
    entries = AppendLog(store, LOG).readable()
    events = list[Event]()
    for name, entry in entries.items():
        with suppress(TaggerError):  # named by the check of the log
            events.append(Event.parse(entry, store.display_path(f"{LOG}/{name}")))
    return events


def versions_of(store: Store, events: Iterable[Event]) -> list[int]:
    """The versions that have a card, or an entry in the log."""
    return sorted({*cards.numbers(store)} | {event.version for event in events})


def check_registry(store: Store, events: list[Event]) -> Faults:
    """Check the log, the series, each version, and what is served."""
    yield from documents(store, "registry", store.sizes("registry"), DOCUMENTS)
    for folder in (LOG, SERIES):
        yield from guarded(AppendLog(store, folder).faults())
    for version in versions_of(store, events):
        yield from guarded(check_version(store, version, events))
    yield from guarded(_served(store, events))


def check_version(store: Store, version: int, events: Iterable[Event]) -> Faults:
    """Check the card, its files with their signature, their copy where they are served, and its run."""
    about = [event for event in events if event.version == version]
    card = cards.card_at(store, version)
    if card is None:
        yield str(cards.lost(store, version))
        return
    yield from guarded(_copy(store, card))
    notes = notes_of(version)
    if any(map(store.exists, notes)):
        return  # garbage collection has removed, or is removing, its files and its run
    if not about:
        cure = f"its publication was interrupted, run export of run {card.run} again, or `tagger gc` to forget it"
        yield from files(store, card.path, card.files, cure)
        return
    yield from guarded(_files(store, card, notes[0]))
    yield from guarded(_signature(store, card))
    yield from guarded(_run_of(store, card, about))


def _files(store: Store, card: Card, note: str) -> Faults:
    cure = "this version cannot be served again, publish another"
    yield from files(store, card.path, card.files, cure)
    if not store.names(card.path):
        yield (
            f"{store.display_path(note)} is gone, or {store.display_path(card.path)}, which garbage "
            "collection has not removed: restore it"
        )


def _signature(store: Store, card: Card) -> Faults:
    """Check the signature of the version's files where keys are trusted, and else that a signed one has it."""
    path = f"{SIGNATURES}/{card.version}.sig"
    if signatures.keys().trusted:
        with scratch_folder("verify") as scratch:
            Registry(store).fetch(card.version, Path(scratch, str(card.version)))
    elif b'"signature"' in (store.read_bytes(cards.path_of(card.version)) or b"") and not store.exists(path):
        yield f"{store.display_path(path)} is gone, though the version is signed: `tagger sign` makes it again"
    yield None


def _copy(store: Store, card: Card) -> Faults:
    """Check the copy of the version's files in the serving directory, if there is one."""
    names = store.sizes(path_of(card.version)).keys()
    if names:
        cure = f"`tagger promote {card.version}` fixes it if that version is live, otherwise remove the folder"
        yield from files(store, path_of(card.version), card.files, cure)
    for name in sorted(names - card.files.keys()):
        yield f"{store.display_path(path_of(card.version))}/{name} belongs to no published version: remove it"


def _run_of(store: Store, card: Card, events: Iterable[Event]) -> Faults:
    """Check that the version's run, unless it was removed, still says that its model was exported and approved."""
    run = Run(store, card.run)
    if names := set(store.sizes(run.path)):
        yield from sources(run, [LAST], names)
        by = f"run {run.name}, approved by "
        if any(event.by.startswith(by) for event in events):
            yield lost(run, APPROVED, names, "restore it")


def _served(store: Store, events: Iterable[Event]) -> Faults:
    """Check that the serving directory holds the live version, complete, and no withdrawn version above it."""
    registry = Registry(store)
    for version in registry.serving.versions().keys() - {event.version for event in events}:
        yield (
            f"{store.display_path(LOG)} does not name version {version}, though it is served from "
            f"{registry.serving.display_path(version)}: restore the log, or remove that folder"
        )
    yield registry.disagreement()
