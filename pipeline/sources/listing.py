"""Lists the files of a folder, or those that a pattern matches, on a disk or in an object store."""

from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import fsspec

from pipeline.errors import BadInput, Unavailable
from pipeline.source_policy import display, is_url

JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SUFFIXES = (".csv", ".csv.gz", ".parquet", *JSON_LINES)
"""The names' ends of the files that are read of a folder, such as that of a Hugging Face dataset."""

NO_SUCH_SUFFIX = "has no file that ends in .csv, .jsonl, .ndjson, .parquet"
NO_MATCH = "does not exist, and matches no file as a pattern"


def listed(place: str) -> list[str]:
    """The files of a folder, with those in folders below it, or those that a pattern matches, by their names.

    A URL is a folder if it ends in a slash. Of a folder, hidden files and those with other suffixes are left out.
    Raises BadInput where there is none, and Unavailable where the object store does not answer.
    """
    files = _objects(place) if is_url(place) else _paths(Path(place).expanduser())
    if not files:
        raise BadInput(f"{display(place)} {NO_SUCH_SUFFIX if _is_folder(place) else NO_MATCH}: correct the source")
    return sorted(files)


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


def _paths(path: Path) -> list[str]:
    if path.is_dir():
        found = [file for file in path.rglob("*") if _wanted(file.relative_to(path).as_posix())]
    else:
        found = [Path(name) for name in glob(str(path), recursive=True)]
    return [str(file) for file in found if file.is_file()]


def _objects(url: str) -> list[str]:
    with backend_errors(url):
        filesystem, path = fsspec.url_to_fs(url, use_listings_cache=False)
        if url.endswith("/"):
            start = path.rstrip("/") + "/"
            found = [name for name in filesystem.find(path) if _wanted(name.removeprefix(start))]
        else:
            found = [name for name, about in filesystem.glob(path, detail=True).items() if about["type"] == "file"]
        return [filesystem.unstrip_protocol(name) for name in found]


def _wanted(name: str) -> bool:
    """Whether a file of a folder is to be read, by its path from there: neither it nor a folder above it is hidden."""
    return name.lower().endswith(SUFFIXES) and not any(part.startswith((".", "_")) for part in name.split("/"))
