"""An append-only log in a store: one document for each entry, and a copy of all entries in one document.

The copy is a cache, so that three calls read a long log. It is used only if the log's entries begin with the same names
and its last entry equals the log's. If it is absent, outdated or damaged, the entries themselves are read.
"""

import hashlib
import json
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
            if fault := self._broken(names):
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

    def fault(self) -> str | None:
        """How the copy differs from the log, in a sentence; None if it does not, or is only outdated or absent."""
        with suppress(CorruptArtifact):  # a document that cannot be read is named as such
            names = self.names()
            self._read |= {name: entry for name in names if (entry := self.store.read(f"{self.folder}/{name}"))}
            if broken := self._broken(names):
                return broken
        cure = "remove it, the next entry writes it again"
        try:
            copied = self._document()
        except CorruptArtifact:
            return f"{self.store.display_path(self.copy)} is damaged: {cure}"
        for name, entry in copied.items():
            there = self.store.read(f"{self.folder}/{name}")
            if there is None:
                return (
                    f"{self.store.display_path(self.folder)}/{name} is gone, though "
                    f"{self.store.display_path(self.copy)} has a copy of it: restore it"
                )
            if there != entry:
                copy, folder = self.store.display_path(self.copy), self.store.display_path(self.folder)
                return f"{copy} differs from {folder}: {cure}"
        return None

    def _broken(self, names: list[str]) -> str | None:
        """Where an entry that has been read is not the next of the one before it, in a sentence."""
        before: Entry | None = None
        for number, name in enumerate(names, 1):
            entry, folder = self._read.get(name), self.store.display_path(self.folder)
            if name != f"{number:08d}.json" or entry is None:
                return f"{folder}/{number:08d}.json is gone: restore it"
            if "previous" in entry and entry["previous"] != (digest_of(before) if before else ""):
                return f"{folder}/{name} follows another entry than the one before it: restore {folder}"
            before = entry
        return None

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
