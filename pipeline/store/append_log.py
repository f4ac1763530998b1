"""An append-only log in a store: one document for each entry, and a copy of all entries in one document.

The copy is a cache, so that three calls read a long log. It is used only if the log's entries begin with the same names
and its last entry equals the log's. If it is absent, outdated or damaged, the entries themselves are read.
"""

from typing import Any

from pipeline.errors import CorruptArtifact
from pipeline.store.documents import FORMAT
from pipeline.store.objects import Store

Entry = dict[str, Any]


class AppendLog:
    """A log in one folder of a store. An entry is `<folder>/<number>.json`, created once and never changed."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder, self.copy = store, folder, f"{folder}.json"
        self._read = dict[str, Entry]()
        self._copy_was_read = False

    def entries(self) -> list[Entry]:
        """Every entry, oldest first. Entries that this object has read before are not read again."""
        names = self.names()
        if names and not self._copy_was_read:
            self._read |= self._copied(names)
            self._copy_was_read = True
        for name in names:
            if name not in self._read and (entry := self.store.read(f"{self.folder}/{name}")):
                self._read[name] = entry
        return [self._read[name] for name in names if name in self._read]

    def names(self) -> list[str]:
        """The file names of the entries, oldest first."""
        return [name for name in self.store.names(self.folder) if name.endswith(".json")]

    def append(self, number: int, entry: Entry) -> bool:
        """Add the entry under its number, one more than the last; False if another process has added that number."""
        name = f"{number:08d}.json"
        path = f"{self.folder}/{name}"
        # If an object store's response is lost, its client retries, and then finds the entry that it has just written.
        if not self.store.create(path, entry) and self.store.read(path) != entry:
            return False
        self._read[name] = entry
        self.store.write(self.copy, {"format": FORMAT, "entries": dict(sorted(self._read.items()))})
        return True

    def fault(self) -> str | None:
        """How the copy differs from the log, in a sentence; None if it does not, or is only outdated or absent."""
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
