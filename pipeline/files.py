"""Helpers for local files: the names, sizes and digests of a folder's files, and text files of one entry a line."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


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
