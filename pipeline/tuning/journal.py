"""Stores an Optuna study as a journal of documents in the store, which any number of processes may extend."""

import uuid
from collections.abc import Iterable
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from pipeline.store.documents import FORMAT
from pipeline.store.objects import Store


class Journal(BaseJournalBackend):
    """The journal in one folder of a store. A document holds the operations that were appended together.

    Documents are numbered, created once and never changed, so that the order is the same to all.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder = store, folder
        self.names: list[str] = []
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The operations from this number on, which are read from the store where this object has not read them yet."""
        for name in self.store.names(self.folder)[len(self.names) :]:
            document = self.store.read(f"{self.folder}/{name}")
            assert document is not None  # noqa: S101 - nothing removes it while the tuning lasts
            self.names.append(name)
            self.logs += document["logs"]
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, after those that other processes append at the same time."""
        document = {"format": FORMAT, "id": uuid.uuid4().hex, "logs": logs}
        while True:
            self.read_logs(0)
            path = f"{self.folder}/{len(self.names):08d}.json"
            # If an object store's answer is lost, its client tries again, and finds what it has just written.
            if self.store.create(path, document) or (self.store.read(path) or {}).get("id") == document["id"]:
                return
