"""Folders and small documents on any fsspec filesystem; nothing here relies on a rename across objects.

A document is whole or absent to every reader: on a local disk it is written beside its place and moved there, elsewhere
one `pipe_file` is one object. A folder has no such moment, so whoever writes one writes a document last, and whoever
reads one reads that document first.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import BadInput, CorruptArtifact, Unavailable
from pipeline.files import FileEntry, digest, files


class Store:
    """The tree under one fsspec URL. Paths are relative to it, with `/`.

    Every method raises Unavailable where the filesystem does not answer.
    """

    def __init__(self, url: str) -> None:
        """Raises BadInput for a protocol that is unknown or whose package is not installed."""
        self.url = url.rstrip("/") or url
        try:
            self.fs, self.root = fsspec.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise BadInput(
                f"store {url!r} cannot be used: {str(error).rstrip('.')}; set TAGGER_STORE to another"
            ) from None

    def path(self, path: str) -> str:
        """The path as the filesystem names it."""
        return f"{self.root.rstrip('/')}/{path}"

    def shown(self, path: str) -> str:
        """The path as a person may copy it."""
        return self.path(path) if isinstance(self.fs, LocalFileSystem) else self.fs.unstrip_protocol(self.path(path))

    def read(self, path: str) -> dict[str, Any] | None:
        """The JSON document, or None where there is none."""
        with self._answering(path):
            self.fs.invalidate_cache()
            try:
                return json.loads(self.fs.cat_file(self.path(path)))  # type: ignore[no-any-return]
            except FileNotFoundError:
                return None

    def write(self, path: str, document: dict[str, Any]) -> None:
        """Put the JSON document in its place, whole."""
        data = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
        with self._answering(path):
            self._put(data, self.path(path))

    def _put(self, data: bytes, target: str) -> None:
        self.fs.makedirs(self.fs._parent(target), exist_ok=True)
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(target, data)
            return
        beside = f"{target}.{uuid.uuid4().hex}.writing"
        try:
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
        finally:
            Path(beside).unlink(missing_ok=True)

    def upload(self, folder: Path, path: str, *, last: str | None = None) -> None:
        """Copy the local folder's files to `path`, the file named `last` after all others."""
        with self._answering(path):
            for name in sorted(files(folder), key=lambda name: (name == last, name)):
                target = self.path(f"{path}/{name}")
                self.fs.makedirs(self.fs._parent(target), exist_ok=True)
                self.fs.put_file(str(folder / name), target)

    def download(self, path: str, entries: dict[str, FileEntry], folder: Path) -> None:
        """Copy the files listed from `path` into the local folder; CorruptArtifact where a file's digest differs."""
        with self._answering(path):
            for name, entry in entries.items():
                local = folder / name
                local.parent.mkdir(parents=True, exist_ok=True)
                self.fs.get_file(self.path(f"{path}/{name}"), str(local))
                if digest(local) != entry.sha256:
                    raise CorruptArtifact(
                        f"{self.shown(path)}/{name} is not the file that was written there ({entry.bytes} bytes, "
                        f"sha256 {entry.sha256[:12]}): run the stage that made it again"
                    )

    def names(self, path: str) -> list[str]:
        """What the folder holds, sorted; empty where there is no such folder."""
        with self._answering(path):
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(self.path(path), detail=False)
            except FileNotFoundError:
                return []
            return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    @contextmanager
    def _answering(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cause = error.strerror or str(error) or type(error).__name__
            raise Unavailable(
                f"store: {self.shown(path)} cannot be read or written ({cause}); "
                "see that the store is there, writable and not full, then run the stage again"
            ) from error
