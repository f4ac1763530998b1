"""A source opened as a file of bytes, and the faults of files and servers as errors of ours."""

import gzip
import io
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from tempfile import TemporaryFile
from typing import IO, Any

import fsspec
import httpx

from pipeline import progress
from pipeline.errors import BadInput, Unavailable
from pipeline.sources import ssrf_guard
from pipeline.sources.blocks import BUFFER, corrupt, shown, too_large

TIMEOUT = httpx.Timeout(60, connect=15)

MAY_RECOVER = {408, 425, 429}
"""Answers of HTTP below 500 that ask to come back later."""


LONGEST_DOWNLOAD = 12 * 3600
"""Seconds. A server that sends a byte a minute would otherwise hold a run for ever."""


def bounded(file: Any, name: str, max_bytes: int) -> io.BufferedReader:
    """The file's bytes, and BadInput once more than `max_bytes` were read of them."""
    return io.BufferedReader(_Bounded(file, name, max_bytes), BUFFER)


@contextmanager
def on_disk(file: io.BufferedReader, name: str, max_bytes: int) -> Iterator[io.BufferedReader]:
    """The file itself if it is one of this machine's, else a copy: a connection is of no use in another process."""
    try:
        file.fileno()
    except (OSError, AttributeError):
        with TemporaryFile() as copy:
            shutil.copyfileobj(bounded(file, name, max_bytes), copy, BUFFER)
            copy.seek(0)
            yield io.BufferedReader(copy, BUFFER)
    else:
        yield file


class _Bounded(io.RawIOBase):
    def __init__(self, file: Any, name: str, max_bytes: int) -> None:
        self._file, self._name, self._most, self._read = file, name, max_bytes, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)
        self._read += count
        if self._read > self._most:
            raise too_large(self._name, self._most)
        return count


@contextmanager
def opened(source: str, max_bytes: int, allowed: tuple[str, ...] | None = None) -> Iterator[io.BufferedReader]:
    """The source's bytes; a URL of http(s) is downloaded whole first, into a temporary file.

    The source itself was found allowed before; where it leads to is checked on the way, if `allowed` is not None.
    """
    remote = re.match("https?://", source, re.IGNORECASE)
    found: AbstractContextManager[Any] = _download(source, max_bytes, allowed) if remote else _file(source)
    with found as file, io.BufferedReader(file, BUFFER) as buffered:
        yield buffered


def _file(source: str) -> IO[bytes]:
    try:
        if "://" not in source:
            return open(os.path.expanduser(source), "rb")
        filesystem, path = fsspec.url_to_fs(source)
        return filesystem.open(path, "rb")  # type: ignore[no-any-return]
    except ImportError as error:
        raise BadInput(f"{shown(source)} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise BadInput(f"{shown(source)} cannot be opened ({shown(str(error))}); correct the source") from error
    except OSError:
        raise
    except Exception as error:  # each backend has exceptions of its own: no credentials, no route, no such region
        raise Unavailable(
            f"{shown(source)} could not be opened ({type(error).__name__}); check access to it and try again"
        ) from error


@contextmanager
def _download(url: str, max_bytes: int, allowed: tuple[str, ...] | None) -> Iterator[IO[bytes]]:
    """The body in a temporary file, which is gone afterwards in any case."""
    with TemporaryFile() as file, _client(allowed) as client:
        try:
            headers = {"Accept-Encoding": "identity"}
            with client.stream("GET", url, headers=headers) as response:
                _check_status(response, shown(url))
                _save(response, file, shown(url), max_bytes)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise BadInput(f"{shown(url)} cannot be fetched ({type(error).__name__}); correct the URL") from error
        except httpx.HTTPError as error:
            fault = str(error) if isinstance(error, httpx.ConnectError) else type(error).__name__
            raise Unavailable(f"{shown(url)} could not be fetched ({fault}); try again later") from error
        file.seek(0)
        yield file


def _client(allowed: tuple[str, ...] | None) -> httpx.Client:
    if allowed is None:
        return httpx.Client(timeout=TIMEOUT, follow_redirects=True)
    return ssrf_guard.client(allowed, TIMEOUT)


def _check_status(response: httpx.Response, name: str) -> None:
    answer = f"{name} answered {response.status_code} {response.reason_phrase}".rstrip()
    if response.is_server_error or response.status_code in MAY_RECOVER:
        raise Unavailable(f"{answer}; try again later")
    if not response.is_success:
        raise BadInput(f"{answer}; correct the URL or the access to it")


def _save(response: httpx.Response, file: IO[bytes], name: str, max_bytes: int) -> None:
    """Bytes as they came, undecoded, so that Content-Length can be checked.

    Unavailable if there are fewer, or they take too long; BadInput if there are more than `max_bytes`.
    """
    length = response.headers.get("Content-Length", "")
    total, received = int(length) if length.isdecimal() else None, 0
    end = time.monotonic() + LONGEST_DOWNLOAD
    with progress.track("download", "bytes", total) as advance:
        try:
            for chunk in response.iter_raw():  # as they come: gathered, a slow server's would never be seen
                received += len(chunk)
                if max(received, total or 0) > max_bytes:
                    raise too_large(name, max_bytes)
                if time.monotonic() > end:
                    raise Unavailable(f"{name} was not fetched within {LONGEST_DOWNLOAD:,} seconds; try again later")
                file.write(chunk)
                advance(len(chunk))
        except (httpx.RemoteProtocolError, httpx.ReadError):  # so httpx tells of a connection closed too early
            received = response.num_bytes_downloaded
            if total is None:
                raise
    if total is not None and received < total:
        raise Unavailable(f"{name} ended after {received:,} of {total:,} bytes; try again later")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Faults of files, wherever in reading they show, as errors of ours."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:  # BadGzipFile is an OSError: keep it before those
        raise corrupt(name, f"gzip cannot unpack it ({error})") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"there is no {name}; correct the source") from error
    except IsADirectoryError as error:
        raise BadInput(f"{name} is a folder; name one file in it") from error
    except PermissionError as error:
        raise BadInput(f"{name} may not be read; give this user permission to read it") from error
    except OSError as error:
        fault = error.strerror or type(error).__name__
        raise Unavailable(f"{name} could not be read ({fault}); try again") from error
