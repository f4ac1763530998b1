"""Notes that garbage collection has removed a version's files."""

from datetime import UTC, datetime

from pipeline.registry.card import MODEL
from pipeline.store.documents import Document
from pipeline.store.objects import Store

COLLECTED = f"registry/{MODEL}/collected"
FORMERLY_COLLECTED = f"registry/{MODEL}/let_go"
"""Where format 1 had these notes."""


class Collected(Document):
    """A note that garbage collection removed a version's files, with when and why."""

    WHAT = "note of a removal"

    version: int
    at: str
    why: str


def note(store: Store, version: int, why: str) -> None:
    """Note that the version's files are about to be removed, unless that is noted already."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    store.create(paths_of(version)[0], Collected(version=version, at=at, why=why).to_dict())


def withdraw(store: Store, version: int) -> None:
    """Remove the note, because the files are there again."""
    store.remove(paths_of(version)[0])


def versions(store: Store) -> set[int]:
    """The versions of which there is a note."""
    names = [*store.names(COLLECTED), *store.names(FORMERLY_COLLECTED)]
    stems = (name.removesuffix(".json") for name in names)
    return {int(stem) for stem in stems if stem.isdecimal()}


def sentence(store: Store, version: int) -> str | None:
    """Says when the version's files were removed, and why; None if there is no note."""
    for path in paths_of(version):
        if noted := store.load(path, Collected):
            return f"garbage collection removed its files on {noted.at[:10]} ({noted.why})"
    return None


def paths_of(version: int) -> list[str]:
    """Where the note of a version may be; the first is where it is written."""
    return [f"{folder}/{version}.json" for folder in (COLLECTED, FORMERLY_COLLECTED)]
