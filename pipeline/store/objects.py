"""Reads and writes folders of files, and small JSON documents, on any fsspec filesystem.

A file is complete or absent to every reader: on a local disk it is written under another name and then renamed, and on
an object store a put is atomic. A folder is not atomic, so its writer writes a document about it last, and its readers
read that document first. Local writes are synced before a call returns, so even a power cut leaves no document
without the files that it names.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import BadInput, CorruptArtifact, Forbidden, TaggerError, Unavailable
from pipeline.files import FileEntry, digest, files
from pipeline.store import object_store, signatures
from pipeline.store.documents import Kind, decode, encode
from pipeline.store.durable import WRITING, place_new, placed, sync_folder

LONGEST_SHOWN = 200
"""Characters of a path that a message shows."""

ABSENT = (FileNotFoundError, NotADirectoryError)
FULL = {errno.ENOSPC, errno.EDQUOT}

PLACE = "place"
"""The field of a document with the path that it was written to, so that it is not taken for another one."""

PERMANENT = {
    errno.EROFS: "give this user permission to read and write it",
    errno.EEXIST: "see that no file is in the place of one of its folders",
    errno.ENOTDIR: "see that no file is in the place of one of its folders",
    errno.EISDIR: "see that no folder is in its place",
    errno.ENAMETOOLONG: "start a run with a shorter name",
    errno.ENOSYS: "use a server that supports this call (on S3: If-None-Match), or a local disk",
    errno.ENOTSUP: "set TAGGER_STORE or --store to a disk that has hard links, or to an object store",
}
"""Errors of a disk that a retry cannot help, and what to do about each."""

MAKE_AGAIN = "restore it, or make the run or version that it belongs to again"


class Store:
    """The folder at one fsspec URL. Paths are relative to it, with `/`.

    Every method raises Unavailable if the filesystem fails and a retry may help, Forbidden if a retry cannot help, and
    BadInput if the store's bucket does not exist.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """Open the filesystem; `options` are passed to it by fsspec.

        Raises BadInput if the protocol is unknown or not installed, or if the URL holds another one.
        """
        self.url = url.rstrip("/") or url
        self.outermost = self
        if "::" in url:
            raise BadInput(
                f"store {url!r} cannot be used: '::' in it would make fsspec open another place than the "
                "one that it names; set TAGGER_STORE or --store to one without '::'"
            )
        try:
            # Listings are not cached, because other processes write to the store.
            self.fs, self.root = fsspec.url_to_fs(url, use_listings_cache=False, **options)
        except (ValueError, ImportError) as error:
            raise BadInput(
                f"store {url!r} cannot be used: {str(error).rstrip('.')}; set TAGGER_STORE to another"
            ) from None

    def within(self, path: str) -> "Store":
        """The store in a folder of this one."""
        inner = copy(self)
        inner.url, inner.root = f"{self.url.rstrip('/')}/{path}", self.path(path)
        return inner

    @property
    def prefix(self) -> str:
        """Where the store is in the one that it is part of, as signatures have it."""
        return signatures.place_of(self.root)

    def path(self, path: str) -> str:
        """The full path, as the filesystem takes it; BadInput if it is not below the store."""
        if "\0" in path or (path and {"", ".", ".."} & set(path.split("/"))):
            shown = path[:LONGEST_SHOWN]
            raise BadInput(f"{shown!r} is not a path in the store {self.url}: correct the name in it")
        return f"{self.root.rstrip('/')}/{path}"

    def display_path(self, path: str) -> str:
        """The full path, or the URL if the store is remote, as messages show it."""
        return self.path(path) if isinstance(self.fs, LocalFileSystem) else self.fs.unstrip_protocol(self.path(path))

    def require(self) -> Self:
        """The store itself, if it exists; BadInput if the folder or bucket does not exist or is empty."""
        with self._answering(""):
            try:
                entries = self.fs.ls(self.root, detail=True)
            except ABSENT as error:
                self._refuse_missing_bucket(error)
                raise BadInput(
                    f"there is no store at {self.url}: see that --store or TAGGER_STORE names the right place, or make "
                    "one there with `tagger run`"
                ) from None
            if [(str(about["name"]), about["type"]) for about in entries] == [(self.root, "file")]:
                raise BadInput(f"the store {self.url} is a file: name a folder by --store or TAGGER_STORE")
        return self

    def read(self, path: str) -> dict[str, Any] | None:
        """The JSON document, None if there is none.

        Raises CorruptArtifact if its content was changed, or if keys are trusted and none of them has signed it.
        """
        data = self.read_bytes(path)
        return None if data is None else self.opened(path, data)

    def load(self, path: str, kind: type[Kind]) -> Kind | None:
        """The document of this kind; None if there is none. Raises as `read` and as Document.parse."""
        document = self.read(path)
        return kind.parse(document, self.display_path(path)) if document else None

    def opened(self, path: str, data: bytes, cure: str = MAKE_AGAIN) -> dict[str, Any]:
        """The document that `sealed` made these bytes of, checked as `read` does."""
        try:
            document = self._placed(path, decode(data))
        except ValueError:
            shown = self.display_path(path)
            raise CorruptArtifact(f"{shown} is not the document that was written there: {cure}") from None
        return signatures.unsigned(self.prefix + path, document, self.display_path(path))

    def _placed(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """The document without its place; CorruptArtifact if it was written to another one."""
        place = document.pop(PLACE, "")
        # A store in a folder of another may be opened by its own URL. Earlier releases stored no place.
        if place and not f"/{self.path(path)}".endswith(f"/{place}"):
            shown = self.display_path(path)
            raise CorruptArtifact(
                f"{shown} is a document that was written to {place}: restore the one that belongs here"
            )
        return document

    def sealed(self, path: str, document: dict[str, Any]) -> bytes:
        """The bytes of a document, with its place, and its signature if there is a key to sign with."""
        place = self.prefix + path
        return encode(signatures.signed(place, document, self.display_path(path)) | {PLACE: place})

    def sign(self, path: str) -> bool:
        """Sign the document that is there; False if the file is no document of a store.

        Raises CorruptArtifact if keys are trusted, and the document has a signature which is none of theirs.
        """
        with self._answering(path):
            try:
                found = self._placed(path, decode(self.fs.cat_file(self.path(path))))
            except ValueError:
                return False
            if signatures.FIELD in found:
                found = signatures.unsigned(self.prefix + path, found, self.display_path(path))
            self._put(self.sealed(path, found), self.path(path))
        return True

    def read_bytes(self, path: str, most: int | None = None) -> bytes | None:
        """The content of a file, unchecked; None if there is none. CorruptArtifact if it has more than `most` bytes."""
        with self._answering(path):
            try:
                if most is not None and (size := self.fs.size(self.path(path))) > most:
                    raise CorruptArtifact(
                        f"{self.display_path(path)} has {size:,} bytes, and no file there is written with more than "
                        f"{most:,}: restore or remove it"
                    )
                found: bytes = self.fs.cat_file(self.path(path))
            except ABSENT as error:
                self._refuse_missing_bucket(error)
                return None
        return found

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file that no document names; readers see the old or the new one, never a mixture."""
        with self._answering(path):
            self._put(data, self.path(path))

    def exists(self, path: str) -> bool:
        """Whether the document or file exists."""
        return path.rpartition("/")[-1] in self.names(path.rpartition("/")[0])

    def write(self, path: str, document: dict[str, Any]) -> None:
        """Write the JSON document; readers see the old or the new one, never a mixture."""
        with self._answering(path):
            self._put(self.sealed(path, document), self.path(path))

    def _put_file(self, file: Path, target: str) -> None:
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.put_file(str(file), target)
            return
        with placed(target, os.replace) as unfinished:
            self.fs.put_file(str(file), unfinished)

    def _put(self, data: bytes, target: str) -> None:
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(target, data)
            return
        with placed(target, os.replace) as unfinished:
            Path(unfinished).write_bytes(data)

    def create(self, path: str, document: dict[str, Any]) -> bool:
        """Write the JSON document unless there is one already; returns whether it was written."""
        with self._answering(path):
            data, target = self.sealed(path, document), self.path(path)
            try:
                self._put_new(data, target)
            except FileExistsError:
                return False
        return True

    def _put_new(self, data: bytes, target: str) -> None:
        if not isinstance(self.fs, LocalFileSystem):
            object_store.put_new(self.fs, target, data)
            return
        with placed(target, place_new) as unfinished:
            Path(unfinished).write_bytes(data)

    def upload(self, folder: Path, path: str, names: Iterable[str] | None = None) -> None:
        """Copy the local folder's files to `path`: those in `names`, in that order, or all."""
        with self._answering(path):
            for name in files(folder) if names is None else names:
                self._put_file(folder / name, self.path(f"{path}/{name}"))

    def download(self, path: str, entries: dict[str, FileEntry], folder: Path) -> None:
        """Copy the listed files from `path` into the local folder; CorruptArtifact if one is missing or changed."""
        with self._answering(path):
            for name, entry in entries.items():
                full = self.path(f"{path}/{name}")  # judges the name before it is one of a local file
                local = folder / name
                local.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self.fs.get_file(full, str(local))
                except FileNotFoundError as error:
                    self._refuse_missing_bucket(error)
                    raise CorruptArtifact(
                        f"{self.display_path(path)}/{name} is gone: run the stage that made it again"
                    ) from None
                except OSError as error:
                    if error.errno in FULL:  # the local disk is full, not the store
                        raise Unavailable(
                            f"{folder} is full ({error.strerror}); trying again can help: make room there, or point "
                            "TMPDIR at another disk"
                        ) from error
                    raise
                if digest(local) != entry.sha256:
                    raise CorruptArtifact(
                        f"{self.display_path(path)}/{name} is not the file that was written there "
                        f"({entry.bytes} bytes, sha256 {entry.sha256[:12]}): run the stage that made it again"
                    )

    def faults(self, path: str, entries: dict[str, FileEntry]) -> Iterator[str | None]:
        """Check the listed files under `path`: yields for each what is wrong with it, or None."""
        for name, entry in entries.items():
            with self._answering(path):
                try:
                    with self.fs.open(self.path(f"{path}/{name}"), "rb") as file:
                        found = hashlib.file_digest(file, "sha256").hexdigest()
                except ABSENT as error:
                    self._refuse_missing_bucket(error)
                    yield f"{self.display_path(path)}/{name} is gone"
                    continue
            yield (
                None if found == entry.sha256 else f"{self.display_path(path)}/{name} has other bytes than were written"
            )

    def sizes(self, path: str) -> dict[str, int]:
        """The size in bytes of every file under `path`, by its name relative to `path`."""
        return {name: size for name, size in self.tree(path).items() if not name.endswith("/")}

    def tree(self, path: str) -> dict[str, int]:
        """Every file and folder under `path`, by its name relative to `path`, from one call of the filesystem.

        The value is a file's size in bytes. A folder's name ends with a slash, and its value is 0.
        """
        top = self.path(path).rstrip("/") + "/"
        with self._answering(path):
            try:
                found = self.fs.find(top.rstrip("/"), detail=True, withdirs=True)
            except ABSENT as error:
                self._refuse_missing_bucket(error)
                return {}
        tree = dict[str, int]()
        for full, about in found.items():
            is_folder = about["type"] == "directory"
            name = str(full).rstrip("/").removeprefix(top) + "/" * is_folder
            if f"{full}/" != top and not name.endswith(WRITING):
                tree[name] = 0 if is_folder else int(about["size"])
        return tree

    def unfinished(self, before: datetime) -> Iterator[tuple[str, int]]:
        """The files on a local disk that a process was writing before that time and did not finish, with their sizes.

        An object store shows no file that is not complete.
        """
        if not isinstance(self.fs, LocalFileSystem):
            return
        with self._answering(""):
            for path in Path(self.root).rglob(f"*{WRITING}"):
                with suppress(FileNotFoundError):  # it has been finished meanwhile
                    about = path.stat()
                    if about.st_mtime < before.timestamp():
                        yield path.relative_to(self.root).as_posix(), about.st_size

    def remove(self, path: str) -> None:
        """Remove a file or a folder; do nothing if it does not exist."""
        full = self.path(path)
        with self._answering(path):
            try:
                if isinstance(self.fs, LocalFileSystem):
                    self.fs.rm(full, recursive=True)
                    sync_folder(os.path.dirname(full))
                else:
                    object_store.remove(self.fs, full)
            except FileNotFoundError as error:
                self._refuse_missing_bucket(error)

    def names(self, path: str) -> list[str]:
        """The names of the files and folders in the folder, sorted; empty if it does not exist."""
        return [_last(name) for name in self._list(path, detail=False) if not str(name).endswith(WRITING)]

    def folders(self, path: str) -> list[str]:
        """The names of the folders in the folder, sorted; empty if it does not exist."""
        return [_last(about["name"]) for about in self._list(path, detail=True) if about["type"] == "directory"]

    def _list(self, path: str, *, detail: bool) -> list[Any]:
        with self._answering(path):
            try:
                found = self.fs.ls(self.path(path), detail=detail)
            except ABSENT as error:
                self._refuse_missing_bucket(error)
                return []
        return sorted(found, key=lambda entry: str(entry["name"] if detail else entry))

    def _refuse_missing_bucket(self, error: BaseException) -> None:
        """Raise BadInput if it is the bucket that is missing: object stores raise the same error as for an object."""
        if object_store.answer_of(error)[1] == "NoSuchBucket":
            raise self._no_bucket() from error

    def _no_bucket(self) -> BadInput:
        return BadInput(
            f"the store {self.url} is in a bucket that is not there: create the bucket, or set TAGGER_STORE or --store "
            "to another"
        )

    @contextmanager
    def _answering(self, path: str) -> Iterator[None]:
        """Raise the filesystem's errors as Unavailable or Forbidden, with `path` in the sentence."""
        try:
            yield
        except TaggerError:
            raise
        except Exception as error:
            if isinstance(self.fs, LocalFileSystem) and not isinstance(error, OSError):
                raise
            # Reads handle a missing object themselves, and errors about a missing local file have its name.
            remote = not isinstance(self.fs, LocalFileSystem)
            if remote and isinstance(error, FileNotFoundError) and not error.filename:
                raise self._no_bucket() from error
            # A remote filesystem raises the errors of its client library, which are all about the store or the network.
            cause = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
            place = f"store: {self.display_path(path)} cannot be read or written ({cause})"
            if cure := _cure_of_permanent(error):
                raise Forbidden(f"{place}; trying again cannot help: {cure}") from error
            raise Unavailable(
                f"{place}; trying again can help: check that the store is reachable and not full",
                then="run the stage again",
            ) from error


def _cure_of_permanent(error: Exception) -> str | None:
    """What to do about an error that a retry cannot help; None if a retry may help."""
    # By name, because they are botocore's, which need not be installed.
    if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}:
        return "set the store's keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name TAGGER_STORE_CONNECTION"
    if isinstance(error, PermissionError):
        return PERMANENT[errno.EROFS]
    return PERMANENT.get(getattr(error, "errno", None) or 0)


def _last(name: str) -> str:
    return str(name).rstrip("/").rsplit("/", 1)[-1]
