"""An append-only log in a store: one document for each entry, and a copy of all entries in one document.

The copy is a cache, so that three calls read a long log. It is used only if the log's entries begin with the same names
and its last entry equals the log's. If it is absent, outdated or damaged, the entries themselves are read.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pipeline.errors import CorruptArtifact, Unavailable
from pipeline.store import heads, signatures
from pipeline.store.documents import FORMAT
from pipeline.store.objects import Store

Entry = dict[str, Any]


def digest_of(entry: Entry) -> str:
    """sha256 of an entry, as the next one holds it."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


class AppendLog:
    """A log in one folder of a store. An entry is `<folder>/<number>.json`, created once and never changed."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder, self.copy = store, folder, f"{folder}.json"
        self._read = dict[str, Entry]()
        self._copy_was_read = False

    def entries(self) -> list[Entry]:
        """Every entry, oldest first. Entries that this object has read before are not read again."""
        place = self.store.display_path(self.folder)
        # Before the entries are listed, for another process may add one, and remember it, right after that.
        known = heads.known(place) if signatures.keys().trusted else None
        names = self.names()
        if names and not self._copy_was_read:
            self._read |= self._copied(names)
            self._copy_was_read = True
        for name in names:
            if name not in self._read and (entry := self.store.read(f"{self.folder}/{name}")):
                self._read[name] = entry
        entries = [self._read[name] for name in names if name in self._read]
        if known:
            if fault := next(self._breaks(names), None):
                raise CorruptArtifact(fault)
            heads.refuse_cut_off(place, [digest_of(entry) for entry in entries], known)
        return entries

    def names(self) -> list[str]:
        """The file names of the entries, oldest first."""
        return [name for name in self.store.names(self.folder) if name.endswith(".json")]

    def append(self, number: int, entry: Entry) -> Entry | None:
        """Add the entry under its number, one more than the last; None if another process has added that number.

        The entry, which is returned, also holds the digest of the one before it, as `previous`.
        """
        name, last = f"{number:08d}.json", f"{number - 1:08d}.json"
        before = self._read.get(last) or self.store.read(f"{self.folder}/{last}")
        entry = entry | {"previous": digest_of(before) if before else ""}
        path = f"{self.folder}/{name}"
        # If an object store's response is lost, its client retries, and then finds the entry that it has just written.
        if not self.store.create(path, entry) and self.store.read(path) != entry:
            return None
        self._read[name] = entry
        with suppress(Unavailable):  # the entry counts without it
            self.store.write(self.copy, {"format": FORMAT, "entries": dict(sorted(self._read.items()))})
        return entry

    def readable(self) -> dict[str, Entry]:
        """Every entry that can be read, by its file name, whether or not it follows the one before it."""
        for name in self.names():
            with suppress(CorruptArtifact):
                if entry := self.store.read(f"{self.folder}/{name}"):
                    self._read[name] = entry
        return self._read

    def faults(self) -> Iterator[str]:
        """What is wrong with the log and its copy, in sentences, except that an entry cannot be read.

        A copy that is outdated or absent is not a fault.
        """
        self.readable()
        names = self.names()
        yield from self._breaks(names)
        copy, folder = self.store.display_path(self.copy), self.store.display_path(self.folder)
        cure = "remove it, the next entry writes it again"
        try:
            copied = self._document()
        except CorruptArtifact:
            yield f"{copy} is damaged: {cure}"
            return
        for name, entry in copied.items():
            if name not in names:
                yield f"{folder}/{name} is gone, though {copy} has a copy of it: restore it"
            elif self._read.get(name, entry) != entry:
                yield f"{copy} differs from {folder}: {cure}"
                return

    def _breaks(self, names: list[str]) -> Iterator[str]:
        """Where an entry is missing, or is not the next of the one before it, in sentences."""
        folder, there = self.store.display_path(self.folder), set(names)
        last = int(names[-1].partition(".")[0]) if names else 0
        before: Entry | None = None
        for number in range(1, last + 1):
            name = f"{number:08d}.json"
            entry = self._read.get(name)
            if name not in there:
                yield f"{folder}/{name} is gone: restore it"
            previous = digest_of(before) if before else ""
            # Where one of the two is missing or damaged, nothing is known of their order.
            known = entry is not None and (before is not None or number == 1)
            if known and entry and entry.get("previous", previous) != previous:
                yield f"{folder}/{name} follows another entry than the one before it: restore {folder}"
            before = entry

    def _copied(self, names: list[str]) -> dict[str, Entry]:
        """The entries that the copy holds; none if it is not a copy of this log."""
        try:
            copied = self._document()
        except CorruptArtifact:
            return {}
        if not copied or list(copied) != names[: len(copied)]:
            return {}
        last = next(reversed(copied))
        return copied if self.store.read(f"{self.folder}/{last}") == copied[last] else {}

    def _document(self) -> dict[str, Entry]:
        copy = self.store.read(self.copy) or {}
        entries: dict[str, Entry] = copy.get("entries", {}) if copy.get("format") == FORMAT else {}
        return entries
