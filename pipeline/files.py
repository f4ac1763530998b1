"""Local folders: the names, sizes and digests of their files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileEntry:
    """A file of a folder: its size in bytes and the sha256 of its content."""

    bytes: int
    sha256: str


def files(folder: Path) -> list[str]:
    """Names of the files under a local folder, relative to it, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def digest(path: Path) -> str:
    """sha256 of a local file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entries(folder: Path) -> dict[str, FileEntry]:
    """Every file under a local folder with its size and digest."""
    return {n: FileEntry((folder / n).stat().st_size, digest(folder / n)) for n in files(folder)}


def write_lines(path: Path, lines: list[str]) -> None:
    """One entry a line. None may hold a line feed; other line ends are part of an entry."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def read_lines(path: Path) -> list[str]:
    """The entries that write_lines wrote."""
    return path.read_bytes().decode().split("\n")[:-1]
