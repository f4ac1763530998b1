"""Opens a source as a file of bytes, and turns errors of files and servers into BadInput or Unavailable."""

import gzip
import io
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from tempfile import TemporaryFile
from typing import IO, Any

import fsspec
import httpx

from pipeline.errors import BadInput, Unavailable
from pipeline.progress import Track
from pipeline.source_policy import display, is_url
from pipeline.sources import ssrf_guard
from pipeline.sources.blocks import BUFFER, corrupt, too_large
from pipeline.sources.listing import backend_errors
from pipeline.sources.source import Kind, Source

TIMEOUT = httpx.Timeout(60, connect=15)

MAY_RECOVER = {408, 425, 429}
"""HTTP status codes below 500 after which a retry can succeed."""

LONGEST_DOWNLOAD = 12 * 3600
"""Seconds after which a download is given up: a server that sends a byte a minute would never end it."""


def bounded(file: Any, name: str, max_bytes: int) -> io.BufferedReader:
    """Wrap the file so that reading more than `max_bytes` bytes of it raises BadInput."""
    return io.BufferedReader(_Bounded(file, name, max_bytes), BUFFER)


@contextmanager
def on_disk(file: io.BufferedReader, name: str, max_bytes: int) -> Iterator[io.BufferedReader]:
    """The file itself if it is a local one, else a local copy: another process cannot read a network connection."""
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
    """A file that raises BadInput after `max_bytes` bytes."""

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
def opened(source: Source, max_bytes: int, track: Track) -> Iterator[io.BufferedReader]:
    """Open the source for reading; an HTTP source is downloaded to a temporary file first.

    For a restricted source, every redirect and every address connected to is checked.
    """
    web = source.kind is Kind.HTTP
    found: AbstractContextManager[Any] = (
        _download(source.place, max_bytes, source.allowed, track) if web else _file(source.place)
    )
    with found as file, io.BufferedReader(file, BUFFER) as buffered:
        yield buffered


def _file(source: str) -> IO[bytes]:
    with backend_errors(source):
        if not is_url(source):
            return open(os.path.expanduser(source), "rb")
        filesystem, path = fsspec.url_to_fs(source)
        return filesystem.open(path, "rb")  # type: ignore[no-any-return]


@contextmanager
def _download(url: str, max_bytes: int, allowed: tuple[str, ...] | None, track: Track) -> Iterator[IO[bytes]]:
    """Download the URL into a temporary file, which is removed on leaving the context."""
    with TemporaryFile() as file, _client(allowed) as client:
        try:
            headers = {"Accept-Encoding": "identity"}
            with client.stream("GET", url, headers=headers) as response:
                _check_status(response, display(url))
                _save(response, file, display(url), max_bytes, track)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise BadInput(f"{display(url)} cannot be fetched ({type(error).__name__}); correct the URL") from error
        except httpx.HTTPError as error:
            fault = str(error) if isinstance(error, httpx.ConnectError) else type(error).__name__
            raise Unavailable(f"{display(url)} could not be fetched ({fault}); try again later") from error
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


def _save(response: httpx.Response, file: IO[bytes], name: str, max_bytes: int, track: Track) -> None:
    """Write the response's body to the file, undecoded, so that its length can be compared with Content-Length.

    Raises Unavailable if it is shorter or takes too long, and BadInput if it is longer than `max_bytes`.
    """
    length = response.headers.get("Content-Length", "")
    total, received = int(length) if length.isdecimal() else None, 0
    end = time.monotonic() + LONGEST_DOWNLOAD
    with track("download", "bytes", total) as advance:
        try:
            for chunk in response.iter_raw():  # without a chunk size, for which a slow server would have to be waited
                received += len(chunk)
                if max(received, total or 0) > max_bytes:
                    raise too_large(name, max_bytes)
                if time.monotonic() > end:
                    raise Unavailable(f"{name} did not download within {LONGEST_DOWNLOAD:,} seconds; try again later")
                file.write(chunk)
                advance(len(chunk))
        except (httpx.RemoteProtocolError, httpx.ReadError):  # httpx, of a connection that was closed too early
            received = response.num_bytes_downloaded
            if total is None:
                raise
    if total is not None and received < total:
        raise Unavailable(f"{name} ended after {received:,} of {total:,} bytes; try again later")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn errors of reading a file into BadInput, or into Unavailable where a retry can succeed."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:  # before OSError, of which BadGzipFile is one
        raise corrupt(name, f"gzip cannot unpack it ({error})") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"{name} does not exist: correct the source") from error
    except IsADirectoryError as error:
        raise BadInput(f"{name} is a folder: choose one file in it") from error
    except PermissionError as error:
        raise BadInput(f"{name} cannot be read: give this user permission to read it") from error
    except OSError as error:
        fault = error.strerror or type(error).__name__
        raise Unavailable(f"{name} could not be read ({fault}); try again") from error
