"""Keeps garbage collection from removing what somebody begins to need at the same moment.

Each side first writes down what it is about to do, and only then looks at what the other side has written. So of two at
once at least one sees the other and gives way, and what is needed is never removed.
"""

import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipeline.errors import TaggerError, Unavailable
from pipeline.store.documents import Document
from pipeline.store.objects import Store

FOLDER = "gc"
NEEDED, COLLECTORS = f"{FOLDER}/needed", f"{FOLDER}/collectors"
"""Folders of the notes of those who need something, and of those of the garbage collections."""

SECONDS = {NEEDED: 7 * 86_400.0, COLLECTORS: 86_400.0}
"""How long a note counts. A process that was killed leaves its note behind."""

REMOVING_SECONDS = 3_600.0
"""How long a garbage collection's note blocks the path that it is removing."""


class Intent(Document):
    """Which paths somebody needs or is removing, and when this was written, in seconds since 1970."""

    WHAT = "intent"

    paths: list[str]
    at: float

    def is_younger(self, seconds: float) -> bool:
        """Whether it was written less than so many seconds ago."""
        return time.time() - self.at < seconds


@contextmanager
def needing(store: Store, *paths: str) -> Iterator[None]:
    """Keep garbage collection from removing these paths; the store may also be one in a folder of another.

    Whoever needs files looks in here whether they are still there. Raises Unavailable if they are being removed.
    """
    whole = store.outermost
    folder = store.root.removeprefix(whole.root).strip("/")
    needed = [f"{folder}/{path}".strip("/") for path in paths]
    name = _new_name(NEEDED)
    _write(whole, name, needed)
    is_left = False
    try:
        for other in _notes(whole, COLLECTORS).values():
            if overlap(other.paths, needed) and other.is_younger(REMOVING_SECONDS):
                raise Unavailable(
                    f"garbage collection is removing {whole.display_path(other.paths[0])}: try again in a minute"
                )
            is_left = True
        yield
    finally:
        # A garbage collection that looked before learns from the note what it must keep, so the note ends by its age.
        if not is_left:
            with suppress(TaggerError):  # what was done is done
                whole.remove(name)


def overlap(some: Collection[str], others: Collection[str]) -> bool:
    """Whether one of the paths is, is in, or has in it one of the others."""
    return any(
        f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/") for path in some for other in others
    )


class Collector:
    """A garbage collection that is going on, as others see it, and what it sees of their needs.

    A context manager: others see it from its beginning to its end.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._name = store, _new_name(COLLECTORS)

    def __enter__(self) -> Self:
        _write(self._store, self._name, [])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(TaggerError):  # what was done is done
            self._store.remove(self._name)

    def needs(self) -> "Needs":
        """What somebody needs now. What they have done already is to be read after this."""
        return Needs(_notes(self._store, NEEDED))

    def may_remove(self, path: str, planned: Collection[str], known: "Needs") -> bool:
        """Tell others that the path is about to be removed.

        False if somebody has begun to need one of the planned paths, which those that are `known` do not.
        """
        own = _write(self._store, self._name, [path])
        begun = Needs(_notes(self._store, NEEDED, known=known.notes))
        # A process that was stopped for long no longer counts for others.
        return not begun.overlap(planned) and own.is_younger(REMOVING_SECONDS / 2)


@dataclass(frozen=True)
class Needs:
    """What somebody needed when a garbage collection looked: their notes, by path."""

    notes: Mapping[str, Intent]

    def overlap(self, paths: Collection[str]) -> bool:
        """Whether somebody needs something of these paths."""
        return any(overlap(note.paths, paths) for note in self.notes.values())


def drop_old(store: Store) -> None:
    """Remove the notes that no longer count."""
    for folder, seconds in SECONDS.items():
        for name, note in _notes(store, folder, every=True).items():
            if not note.is_younger(seconds):
                store.remove(name)


def _new_name(folder: str) -> str:
    return f"{folder}/{uuid.uuid4().hex}.json"


def _write(store: Store, name: str, paths: list[str]) -> Intent:
    note = Intent(paths=paths, at=time.time())
    store.write(name, note.to_dict())
    return note


def _notes(store: Store, folder: str, *, known: Collection[str] = (), every: bool = False) -> dict[str, Intent]:
    """The notes that count, or every one, by path, without those that are known."""
    found = dict[str, Intent]()
    for name in store.names(folder):
        path = f"{folder}/{name}"
        data = None if path in known else store.read_bytes(path)
        if data is not None:
            document = store.opened(path, data, "if no garbage collection is running, remove it")
            note = Intent.parse(document, store.display_path(path))
            if every or note.is_younger(SECONDS[folder]):
                found[path] = note
    return found
