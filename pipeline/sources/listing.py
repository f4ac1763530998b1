"""Lists the files of a folder, or those that a pattern matches, on a disk or in an object store.

What should be read and cannot be is an error, such as a link that leads nowhere; what is not read because of its name
is counted. Links are followed, and a file or folder to which several names lead is read once.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple

import fsspec

from pipeline.errors import BadInput, Unavailable
from pipeline.source_policy import checked, display, is_url

JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SUFFIXES = (".csv", ".csv.gz", ".parquet", *JSON_LINES)
"""The names' ends of the files that are read of a folder, such as that of a Hugging Face dataset."""

OBJECT_STORES = ("s3://", "s3a://", "gs://", "gcs://", "abfs://", "az://")

ENDS = ".csv, .jsonl, .ndjson, .parquet"
NO_SUCH_SUFFIX = f"has no file that ends in {ENDS}"
NO_MATCH = "does not exist, and matches no file as a pattern"

HIDDEN = (".", "_")
"""How the names of files and folders begin that are not read of a folder; a pattern leaves out only the first."""


@dataclass(frozen=True)
class Listing:
    """The files to read, by their names, and sentences about what is not read."""

    files: list[str]
    warnings: tuple[str, ...] = ()


class Entry(NamedTuple):
    """What a folder holds under a name: a file or a folder, or a link to one, or something that cannot be read."""

    link: bool
    name: str
    path: str
    real: str
    folder: bool = False
    fault: str = ""


Entries = Callable[[str], list[Entry]]
"""A function that lists a folder, links last."""


def listed(place: str, allowed: tuple[str, ...] | None = None) -> Listing:
    """The files of a folder, with those in folders below it, or those that a pattern matches.

    A URL is a folder if it ends in a slash. With `allowed`, no folder is looked into whose real path is not in one of
    these. Raises BadInput where there is no file, and where a name to be read or looked into leads to nothing that can
    be; Unavailable where the object store does not answer.
    """
    try:
        with backend_errors(place):
            listing = _of_url(place) if is_url(place) else _of_path(place, allowed)
    except (FileNotFoundError, NotADirectoryError):
        listing = Listing([])
    if not listing.files:
        kind = NO_SUCH_SUFFIX if _is_folder(place) else NO_MATCH
        raise BadInput(f"{display(place)} {kind}: correct the source")
    return listing


def is_several(url: str) -> bool:
    """Whether the URL names a folder, or is a pattern; of its signs only * counts, because names have the others."""
    return "::" not in url and (url.endswith("/") or "*" in url)


@contextmanager
def backend_errors(place: str) -> Iterator[None]:
    """Turn what fsspec and its packages raise, besides OSError, into BadInput or Unavailable."""
    try:
        yield
    except ImportError as error:
        raise BadInput(f"{display(place)} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise BadInput(f"{display(place)} cannot be opened ({display(str(error))}); correct the source") from error
    except (OSError, BadInput):
        raise
    except Exception as error:  # each fsspec backend raises exceptions of its own
        raise Unavailable(
            f"{display(place)} could not be opened ({type(error).__name__}): check access to it and try again"
        ) from error


def _is_folder(place: str) -> bool:
    return place.endswith("/") if is_url(place) else Path(place).expanduser().is_dir()


def _of_path(place: str, allowed: tuple[str, ...] | None) -> Listing:
    path, entries = os.path.expanduser(place), partial(_on_disk, allowed)
    if os.path.isdir(path):
        return _of_folder(place, _below(path, os.path.realpath(path), entries))
    return _of_pattern(place, path, entries)


def _of_url(url: str) -> Listing:
    filesystem, path = fsspec.url_to_fs(url, use_listings_cache=False)
    entries = partial(_in_store, filesystem)
    if not url.endswith("/"):
        listing = _of_pattern(url, path, entries)
    elif url.startswith(OBJECT_STORES):
        listing = _of_folder(url, _below_at_once(path, filesystem))
    else:
        listing = _of_folder(url, _below(path, path, entries))
    return replace(listing, files=[filesystem.unstrip_protocol(path) for path in listing.files])


def _on_disk(allowed: tuple[str, ...] | None, folder: str) -> list[Entry]:
    """List a folder of this machine; BadInput where it may not be read."""
    if allowed is not None:
        checked(folder, allowed)
    try:
        with os.scandir(folder or ".") as scanned:
            return sorted(_entry(each.name, os.path.join(folder, each.name)) for each in scanned)
    except PermissionError as error:
        raise BadInput(f"{folder} is a folder that cannot be read: give this user permission to read it") from error


def _entry(name: str, path: str) -> Entry:
    """What the name leads to."""
    link, real = os.path.islink(path), os.path.realpath(path)
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        return Entry(link, name, path, real, fault="cannot be read: give this user permission to read it")
    except OSError:  # no such file, or a circle of links
        return Entry(link, name, path, real, fault="is a link that leads nowhere: fix it or remove it")
    fault = "" if S_ISDIR(mode) or S_ISREG(mode) else "is neither a file nor a folder: remove it"
    return Entry(link, name, path, real, S_ISDIR(mode), fault)


def _in_store(filesystem: Any, folder: str) -> list[Entry]:
    """List a folder of an object store, or of another filesystem of fsspec."""
    paths = [(about["name"].rstrip("/"), about["type"]) for about in filesystem.ls(folder, detail=True)]
    return sorted(
        Entry(False, path.rpartition("/")[2], path, path, folder=kind == "directory")
        for path, kind in paths
        if path != folder.rstrip("/")  # an object that marks the folder
    )


def _of_folder(place: str, below: Iterable[Entry]) -> Listing:
    """Those files below the folder that are read, by their suffixes."""
    files, others = list[Entry](), list[Entry]()
    for entry in below:
        (files if entry.name.lower().endswith(SUFFIXES) else others).append(entry)
    why = f"of a folder only those that end in {ENDS} are"
    return Listing(_named_once(files), _not_read("file", f"of {display(place)}", others, why))


def _of_pattern(place: str, pattern: str, entries: Entries) -> Listing:
    """The files that the pattern matches, in which the part ** stands for any number of folders."""
    parts = pattern.split("/")
    first = next((at for at, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts) - 1)
    start = "/".join(parts[:first]) or "/" * pattern.startswith("/")
    matching = list(_matching_below(start, parts[first:], entries))
    folders = [entry for entry in matching if entry.folder and "**" not in parts]
    warnings = _not_read("folder", f"that {display(place)} matches", folders, "a pattern names files")
    return Listing(_named_once(entry for entry in matching if not entry.folder), warnings)


def _named_once(files: Iterable[Entry]) -> list[str]:
    """The names of the files, sorted; of several names of a file only the first, which is a link only if all are."""
    names = dict[str, str]()
    for entry in files:
        names.setdefault(entry.real, entry.path)
    return sorted(names.values())


def _not_read(kind: str, which: str, entries: list[Entry], why: str) -> tuple[str, ...]:
    """A sentence about files or folders that are not read, with an example; none where there are none."""
    if not entries:
        return ()
    example = min(entry.name for entry in entries)
    count, verb = (f"1 {kind}", "is") if len(entries) == 1 else (f"{len(entries):,} {kind}s", "are")
    return (f"{count} {which} {verb} not read, because {why}; one is {example!r:.80}",)


def _below(top: str, real: str, entries: Entries) -> Iterator[Entry]:
    """The files of the folder and of those below it."""
    for content in _folders(top, real, entries, HIDDEN):
        yield from (entry for entry in content if not entry.folder and not entry.name.startswith(HIDDEN))


def _below_at_once(top: str, filesystem: Any) -> Iterator[Entry]:
    """The same of an object store, by one request for each thousand objects."""
    start = top.rstrip("/") + "/"
    for path, about in filesystem.find(top, detail=True).items():
        parts = path.removeprefix(start).split("/")
        if about["type"] == "file" and parts[-1] and not any(part.startswith(HIDDEN) for part in parts):
            yield Entry(False, parts[-1], path, path)


def _folders(top: str, real: str, entries: Entries, hidden: str | tuple[str, ...]) -> Iterator[list[Entry]]:
    """What is in the folder, and in each one below it that is not hidden.

    A folder is listed once, even if links lead to it or in a circle; those that only links lead to come last.
    """
    folders, links, seen = [(top, real)], deque[tuple[str, str]](), set[str]()
    while folders or links:
        path, real = folders.pop() if folders else links.popleft()
        if real in seen:
            continue
        seen.add(real)
        content = entries(path)
        yield content
        for entry in content:
            if not entry.name.startswith(hidden) and _sound(entry).folder:
                (links if entry.link else folders).append((entry.path, entry.real))


def _matching_below(folder: str, parts: list[str], entries: Entries) -> Iterator[Entry]:
    """What below the folder has a path that matches the parts of a pattern."""
    if parts[0] != "**":
        yield from _matching(entries(folder), parts, entries)
        return
    rest = parts[1:] or ["*"]
    while rest[0] == "**" and len(rest) > 1:
        rest = rest[1:]
    for content in _folders(folder, os.path.realpath(folder), entries, "."):
        yield from _matching(content, rest, entries)


def _matching(content: list[Entry], parts: list[str], entries: Entries) -> Iterator[Entry]:
    """Those of the entries, or what is below them, whose paths match the parts of a pattern."""
    part, *rest = parts
    for entry in content:
        if not fnmatchcase(entry.name, part) or (entry.name.startswith(".") and not part.startswith(".")):
            continue
        if not rest:
            yield _sound(entry)
        elif _sound(entry).folder:
            yield from _matching_below(entry.path, rest, entries)


def _sound(entry: Entry) -> Entry:
    """The entry; BadInput where it cannot be read."""
    if entry.fault:
        raise BadInput(f"{display(entry.path)} {entry.fault}")
    return entry
