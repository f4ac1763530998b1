"""Helpers for local files: names, sizes and digests of a folder's files, text files, and temporary folders."""

import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

SCRATCH, LOCKED = "tagger-", ".locked"
"""How the names of temporary folders begin, and how those end that their process keeps locked."""

ABANDONED_SECONDS = 86_400.0
"""Age from which a temporary folder that is not locked, such as one of an earlier release, is abandoned."""


@dataclass(frozen=True)
class FileEntry:
    """The size of a file in bytes, and the sha256 of its content."""

    bytes: int
    sha256: str


def files(folder: Path) -> list[str]:
    """The names of all files under a local folder, relative to it, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def digest(path: Path) -> str:
    """The sha256 of a local file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entries(folder: Path) -> dict[str, FileEntry]:
    """The size and digest of every file under a local folder, by name."""
    return {n: FileEntry((folder / n).stat().st_size, digest(folder / n)) for n in files(folder)}


def write_lines(path: Path, lines: list[str]) -> None:
    """Write one entry on each line. Entries must not contain a line feed; other line ends are kept."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def read_lines(path: Path) -> list[str]:
    """Read the entries that write_lines wrote."""
    return path.read_bytes().decode().split("\n")[:-1]


def user_cache() -> Path:
    """The folder of what this user's commands remember: under XDG_CACHE_HOME, or ~/.cache if that is not set."""
    above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(above), "stackoverflow-tagger").absolute()


@contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """Give a temporary folder with this word in its name, and remove it at the end.

    The process keeps it locked, so another process knows that one which is not locked was left by a killed process.
    """
    _remove_abandoned_once()
    while True:
        temporary = TemporaryDirectory(prefix=f"{SCRATCH}{what}-", suffix=LOCKED)
        descriptor = os.open(temporary.name, os.O_RDONLY)
        with suppress(OSError):  # a filesystem without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.path.isdir(temporary.name):
            break
        os.close(descriptor)  # another process took it for an abandoned one before it was locked
    try:
        with temporary:
            yield Path(temporary.name)
    finally:
        os.close(descriptor)


def remove_abandoned() -> None:
    """Remove the temporary folders that killed processes of this user left."""
    for folder in Path(gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(OSError):
            about = folder.lstat()
            may_be_abandoned = folder.name.endswith(LOCKED) or about.st_mtime < time.time() - ABANDONED_SECONDS
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and may_be_abandoned:
                _remove_unless_locked(folder)


_remove_abandoned_once = cache(remove_abandoned)


def _remove_unless_locked(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
