"""Rows of recorded posts that wait to be written, in files of limited size; bounded in rows and bytes."""

import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pipeline.store.forgotten import Row

FILE_BYTES = 4 * 2**20
"""A file is begun for rows with which another would have more bytes; those of one request are in one file."""

BYTES = 32 * 2**20
ROWS = 10_000
"""Bytes and rows that may wait; beyond them none is taken."""

ROW_BYTES = 1500
"""Bytes of memory that a row takes besides its text."""


@dataclass
class _File:
    rows: list[Row] = field(default_factory=list)
    bytes: int = 0


class Buffer:
    """The rows of one folder. They may be added by one thread while another one writes those before them."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._open: str | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(len(file.rows) for file in list(self._files.values()))

    def add(self, rows_for: Callable[[str], list[Row]], texts: Iterable[str | None]) -> str | None:
        """Add the rows with these texts, which `rows_for` makes for a file; its name, or None where too much waits."""
        sizes = [ROW_BYTES + (0 if text is None else sys.getsizeof(text)) for text in texts]
        size = sum(sizes)
        with self._lock:
            waiting = sum(file.bytes for file in self._files.values())
            if len(self) + len(sizes) > ROWS or waiting + size > BYTES:
                return None
            if self._open is None or self._files[self._open].bytes + size > FILE_BYTES:
                self._open = uuid.uuid4().hex
                self._files[self._open] = _File()
            file = self._files[self._open]
            file.rows += rows_for(self._open)
            file.bytes += size
            return self._open

    def rows(self, name: str) -> list[Row]:
        """The rows that wait for the file."""
        file = self._files.get(name)
        return list(file.rows) if file else []

    def closed(self) -> list[tuple[str, list[Row]]]:
        """All files and their rows, the oldest first. Rows that come from now on go to other files."""
        with self._lock:
            self._open = None
            return [(name, file.rows) for name, file in self._files.items()]

    def remove(self, name: str) -> None:
        """Remove a file, which was written."""
        with self._lock:
            del self._files[name]
