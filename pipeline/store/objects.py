"""Folders and small documents on any fsspec filesystem; nothing here relies on a rename across objects.

A file is whole or absent to every reader: on a local disk it is written beside its place and moved there, on an object
store one put is one object. A folder has no such moment, so whoever writes one writes a document last, and whoever
reads one reads that document first.
"""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import BadInput, CorruptArtifact, Forbidden, TaggerError, Unavailable
from pipeline.files import FileEntry, digest, files

UNFINISHED = ".writing"
"""How a local file is named before it is in its place. A process that dies leaves it so, and nobody reads it."""

ABSENT = (FileNotFoundError, NotADirectoryError)
FULL = {errno.ENOSPC, errno.EDQUOT}

NEVER = {
    errno.EROFS: "give this user leave to read and write it",
    errno.EEXIST: "see that no file is in the place of one of its folders",
    errno.ENOTDIR: "see that no file is in the place of one of its folders",
    errno.EISDIR: "see that no folder is in its place",
    errno.ENAMETOOLONG: "start a run with a shorter name",
}
"""What a disk says that it will say again, and the cure."""

PIECE = 2**20
"""Bytes read at once where a file is not needed whole."""


class Store:
    """The tree under one fsspec URL. Paths are relative to it, with `/`.

    Every method raises Unavailable where the filesystem does not answer.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """Options are the filesystem's own, as fsspec takes them.

        Raises BadInput for a protocol that is unknown or whose package is not installed.
        """
        self.url = url.rstrip("/") or url
        try:
            self.fs, self.root = fsspec.url_to_fs(url, **options)
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
                return _document(self.fs.cat_file(self.path(path)))
            except ABSENT:
                return None
            except ValueError:
                raise CorruptArtifact(
                    f"{self.shown(path)} is not the document that was written there: restore it, or make anew what it "
                    "belongs to"
                ) from None

    def exists(self, path: str) -> bool:
        """Whether there is such a document or file."""
        return path.rpartition("/")[-1] in self.names(path.rpartition("/")[0])

    def write(self, path: str, document: dict[str, Any]) -> None:
        """Put the JSON document in its place, whole."""
        with self._answering(path):
            self._put(_json(document), self.path(path))

    def _put_file(self, file: Path, target: str) -> None:
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.put_file(str(file), target)
            return
        with self._beside(target) as beside:
            self.fs.put_file(str(file), beside)
            os.replace(beside, target)

    def _put(self, data: bytes, target: str) -> None:
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(target, data)
            return
        with self._beside(target) as beside:
            _write(beside, data)
            os.replace(beside, target)

    @contextmanager
    def _beside(self, target: str) -> Iterator[str]:
        """The name of a local file to write in the target's folder, so that one call puts it in place."""
        self.fs.makedirs(self.fs._parent(target), exist_ok=True)
        beside = f"{target}.{uuid.uuid4().hex}{UNFINISHED}"
        try:
            yield beside
        finally:
            Path(beside).unlink(missing_ok=True)

    def create(self, path: str, document: dict[str, Any]) -> bool:
        """Put the JSON document in its place, whole, unless there is one already: whether it was put."""
        data, target = _json(document), self.path(path)
        with self._answering(path):
            try:
                self._put_new(data, target)
            except FileExistsError:
                return False
        return True

    def _put_new(self, data: bytes, target: str) -> None:
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(target, data, mode="create")
            return
        with self._beside(target) as beside:
            _write(beside, data)
            os.link(beside, target)

    def upload(self, folder: Path, path: str, names: Iterable[str] | None = None) -> None:
        """Copy the local folder's files to `path`: those named, in the order of their names, or all."""
        with self._answering(path):
            for name in files(folder) if names is None else names:
                self._put_file(folder / name, self.path(f"{path}/{name}"))

    def download(self, path: str, entries: dict[str, FileEntry], folder: Path) -> None:
        """Copy the files listed from `path` into the local folder; CorruptArtifact where a file's digest differs."""
        with self._answering(path):
            for name, entry in entries.items():
                local = folder / name
                local.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self.fs.get_file(self.path(f"{path}/{name}"), str(local))
                except FileNotFoundError:
                    raise CorruptArtifact(
                        f"{self.shown(path)}/{name} is gone: run the stage that made it again"
                    ) from None
                except OSError as error:
                    if error.errno in FULL:  # it was the copy that had no room
                        raise Unavailable(
                            f"{folder} is full ({error.strerror}); trying again can help: make room there, or point "
                            "TMPDIR at another disk"
                        ) from error
                    raise
                if digest(local) != entry.sha256:
                    raise CorruptArtifact(
                        f"{self.shown(path)}/{name} is not the file that was written there ({entry.bytes} bytes, "
                        f"sha256 {entry.sha256[:12]}): run the stage that made it again"
                    )

    def faults(self, path: str, entries: dict[str, FileEntry]) -> Iterator[str | None]:
        """For each of the files under `path` what is wrong with it, or None."""
        for name, entry in entries.items():
            with self._answering(path):
                try:
                    with self.fs.open(self.path(f"{path}/{name}"), "rb") as file:
                        found = _sha256(file)
                except ABSENT:
                    yield f"{self.shown(path)}/{name} is gone"
                    continue
            yield None if found == entry.sha256 else f"{self.shown(path)}/{name} has other bytes than were written"

    def sizes(self, path: str) -> dict[str, int]:
        """Every file under `path` with its size in bytes, by its name relative to it."""
        with self._answering(path):
            self.fs.invalidate_cache()
            try:
                found = self.fs.find(self.path(path), detail=True)
            except ABSENT:
                return {}
            top = f"{self.path(path)}/"
            return {
                str(name).removeprefix(top): int(about["size"])
                for name, about in found.items()
                if not str(name).endswith(UNFINISHED)
            }

    def remove(self, path: str) -> None:
        """Remove a document or a folder; nothing where there is none."""
        with self._answering(path):
            self.fs.invalidate_cache()
            try:
                self.fs.rm(self.path(path), recursive=True)
            except FileNotFoundError:
                return

    def names(self, path: str) -> list[str]:
        """What the folder holds, sorted; empty where there is no such folder."""
        with self._answering(path):
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(self.path(path), detail=False)
            except ABSENT:
                return []
            names = (str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)
            return sorted(name for name in names if not name.endswith(UNFINISHED))

    @contextmanager
    def _answering(self, path: str) -> Iterator[None]:
        try:
            yield
        except TaggerError:
            raise
        except Exception as error:
            if isinstance(self.fs, LocalFileSystem) and not isinstance(error, OSError):
                raise
            # A remote filesystem raises what its client library raises: all of it is the store's fault or the way's.
            cause = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
            place = f"store: {self.shown(path)} cannot be read or written ({cause})"
            cure = _final(error)
            if cure:
                raise Forbidden(f"{place}; trying again cannot help: {cure}") from error
            raise Unavailable(
                f"{place}; trying again can help: see that the store is there and not full, then run the stage again"
            ) from error


def _final(error: Exception) -> str | None:
    """What to do about an error that trying again cannot help; None where it can."""
    if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}:  # botocore's, which may be missing
        return "give the store's keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by TAGGER_STORE_CONNECTION"
    if isinstance(error, PermissionError):
        return NEVER[errno.EROFS]
    return NEVER.get(getattr(error, "errno", None) or 0)


def _json(document: dict[str, Any]) -> bytes:
    """The document with its own digest, in the one form in which it is written."""
    sealed = document | {"sha256": hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()}
    return json.dumps(sealed, indent=2, ensure_ascii=False).encode() + b"\n"


def _document(data: bytes) -> dict[str, Any]:
    """The document that _json wrote; ValueError where one byte of it is another."""
    document: dict[str, Any] = json.loads(data)
    document.pop("sha256", None)
    if _json(document) != data:
        raise ValueError("the document is not as it was written")
    return document


def _write(path: str, data: bytes) -> None:
    """To the disk itself, so that a document outlives the machine's fall."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()
