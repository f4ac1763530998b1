"""Moves the files of a run between its folder in the store and local folders."""

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.files import entries
from pipeline.store.manifest import Manifest, digests
from pipeline.store.notes import Saved
from pipeline.store.objects import Store

CHECKPOINT = "checkpoint"
"""Folder of a stage's last checkpoint, from which a retry resumes."""

SHARDS = "shards"
"""Folder of the results of a stage's shards, by the shard's number, until the stage gathers them."""

REPORT, PAGE = "report", "page"
"""Folder of the run's report, and the name under which its page is saved there."""

CLUSTER = "cluster"
"""The documents by which the processes that train a run together find one another."""

UNFINISHED = (CHECKPOINT, SHARDS, CLUSTER, "partial", "parts")
"""Folders of unfinished work; the last two are the names in format 1."""


class RunFiles:
    """The files of the run whose folder in the store is `path`: the results of its stages, and unfinished work."""

    def __init__(self, store: Store, path: str) -> None:
        self.store, self.path = store, path

    def fetch(self, manifest: Manifest, folder: Path, names: Iterable[str] | None = None) -> None:
        """Copy a stage's files, or those in `names`, into the local folder, and check them against the manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        wanted = manifest.files if names is None else {name: manifest.files[name] for name in names}
        self.store.download(manifest.path, wanted, folder)

    def save(self, stage: str, name: str, folder: Path, inputs: Mapping[str, Manifest], refused: str = "") -> str:
        """Save a piece of a stage's unfinished work, or the run's report: its files, then its document.

        What it replaces is removed at the end. `refused` is the stage that had refused the run when its report was
        made. Returns the folder in the store.
        """
        top = f"{self.path}/{stage}/{name}"
        path, replaced = f"{top}/{uuid.uuid4().hex[:8]}", self.store.names(top)
        saved = Saved(path=path, files=entries(folder), inputs=digests(inputs), refused=refused)
        self.store.upload(folder, path)
        self.store.write(f"{top}.json", saved.to_dict())
        for earlier in replaced:
            self.store.remove(f"{top}/{earlier}")
        return path

    def saved(self, stage: str, name: str) -> Saved | None:
        """The piece of unfinished work that was saved under the name; None if there is none."""
        return self.store.load(f"{self.path}/{stage}/{name}.json", Saved)

    def resume(self, stage: str, name: str, inputs: Mapping[str, Manifest], folder: Path) -> bool:
        """Copy what was saved under the name into the folder; False if nothing was, or from other inputs."""
        saved = self.saved(stage, name)
        if not saved or saved.inputs != digests(inputs):
            return False
        folder.mkdir(parents=True)
        self.store.download(saved.path, saved.files, folder)
        return True

    def discard(self, stage: str) -> None:
        """Remove the stage's unfinished work, its documents first."""
        top = f"{self.path}/{stage}"
        existing = self.store.names(top)
        for name in filter(existing.__contains__, (f"{name}.json" for name in UNFINISHED)):
            self.store.remove(f"{top}/{name}")
        for folder in filter(existing.__contains__, UNFINISHED):
            for name in self.store.names(f"{top}/{folder}"):
                if name.endswith(".json"):
                    self.store.remove(f"{top}/{folder}/{name}")
            self.store.remove(f"{top}/{folder}")
