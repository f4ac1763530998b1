"""Tombstones: notes of which recorded posts are forgotten, which whoever reads or writes recorded posts applies.

A tombstone is written before anything is removed. So whoever writes posts, and looks for tombstones afterwards, either
sees it, or wrote before it, and is seen by whoever wrote it.
"""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import Field

from pipeline.errors import CorruptArtifact
from pipeline.store.documents import Document
from pipeline.store.objects import Store

FOLDER = "feedback/forgotten"

CLOCKS = timedelta(days=1)
"""By how much the clocks of two machines may differ."""


Row = dict[str, Any]
"""A recorded post; what is looked at here are its `id` and `at`, the time of its request."""


def is_of(row: Row, ids: Collection[str], before: datetime | None) -> bool:
    """Whether the post has one of these ids, or ids of requests, or was recorded before the time."""
    name: str = row["id"]
    too_old = before is not None and row["at"] < before
    return too_old or name in ids or name.partition(".")[0] in ids


def note(store: Store, ids: Collection[str], before: datetime | None) -> None:
    """Write the tombstone of the posts that `is_of` chooses."""
    tombstone = Tombstone(at=datetime.now(UTC), ids=sorted(ids), before=before)
    store.write(f"{FOLDER}/{uuid.uuid4().hex}.json", tombstone.to_dict())


class Tombstone(Document):
    """That posts are forgotten: those with these ids, or ids of requests, and those recorded before a time."""

    WHAT = "note of forgotten posts"

    at: datetime
    ids: list[str] = Field(default_factory=list)
    before: datetime | None = None


class Forgotten:
    """All that is forgotten, as far as the tombstones of a store were looked at.

    `before` is the latest limit of age, and `faults` are sentences about the tombstones that cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.faults: list[str] = []
        self.tombstones: dict[str, Tombstone] = {}
        self._ids = set[str]()
        self.before: datetime | None = None

    def look(self) -> bool:
        """Read the tombstones that were written since the last look, and say whether there are any."""
        known = len(self.tombstones)
        self.faults = []
        for name in self.store.names(FOLDER):
            if name in self.tombstones:
                continue
            try:
                if tombstone := self.store.load(f"{FOLDER}/{name}", Tombstone):
                    self.tombstones[name] = tombstone
                    self._ids |= set(tombstone.ids)
            except CorruptArtifact as error:
                self.faults.append(str(error))
        limits = [each.before for each in self.tombstones.values() if each.before]
        # A clock that was wrong for once must not forget posts for ever.
        self.before = max((limit for limit in limits if limit <= datetime.now(UTC)), default=None)
        return len(self.tombstones) > known

    def look_and_check(self) -> None:
        """Look, and raise CorruptArtifact where a tombstone cannot be read, so it is not known what is forgotten."""
        self.look()
        if self.faults:
            raise CorruptArtifact(self.faults[0])

    def has(self, row: Row) -> bool:
        """Whether the post is forgotten."""
        return is_of(row, self._ids, self.before)


def remove_needless(store: Store) -> None:
    """Remove the tombstones whose posts the latest limit of age covers, and earlier limits."""
    forgotten = Forgotten(store)
    forgotten.look()
    before = forgotten.before
    if before is None:
        return
    latest = datetime.now(UTC) + CLOCKS
    for name, tombstone in forgotten.tombstones.items():
        limit = tombstone.before
        if limit and before <= limit <= latest:
            continue
        if limit is None and tombstone.at >= before - CLOCKS:
            continue
        store.remove(f"{FOLDER}/{name}")
