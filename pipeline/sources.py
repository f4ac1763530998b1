"""Posts from a file, a URL or an invented sample, block by block; rows that cannot be used are set aside."""

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import fsspec
import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import posts, progress, sample
from pipeline.errors import BadInput, Unavailable

MALFORMED_QUOTES = "malformed quotes"
WRONG_FIELD_COUNT = "wrong number of fields"
BAD_UTF8 = "bad UTF-8"
EMPTY_POST = "empty post"
EMPTY_TAG = "empty tag"
LINE_BREAK_IN_TAG = "line break in tag"
REASONS = (MALFORMED_QUOTES, WRONG_FIELD_COUNT, BAD_UTF8, EMPTY_POST, EMPTY_TAG, LINE_BREAK_IN_TAG)
"""Why a row is set aside; a row with several faults bears the first of these."""

TEXT_PER_BLOCK = 32 * 2**20
"""Characters (CSV) or bytes (Parquet) after which a block ends before it has posts.ROWS_PER_BATCH rows."""

REJECTED_TEXT = 64 * 2**10
"""Characters of a rejected row that are kept."""

LONGEST_FIELD = 64 * 2**20
"""Characters. A longer CSV field is taken for a quote that was never closed, so that memory stays bounded."""

BUFFER = 2**20
PIECEWISE = {"buffer_size": BUFFER, "pre_buffer": False}
"""How pyarrow is kept from reading a whole row group, which may be the whole file, at once."""

TIMEOUT = httpx.Timeout(60, connect=15)

GZIP_MAGIC, PARQUET_MAGIC, UTF8_BOM = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
FOREIGN = {
    PARQUET_MAGIC: "Parquet within gzip: unpack it",  # reached only inside gzip, where seeking back is not affordable
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save it as CSV",
    b"BZh": "a bzip2 file: unpack it",
    b"\xfd7zXZ": "an xz file: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
"""First bytes of what a person may well pass, and the cure."""

MAY_RECOVER = {408, 425, 429}
"""Answers of HTTP below 500 that ask to come back later."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a source: `posts` as posts.POSTS, `rejected` as posts.REJECTED."""

    posts: pa.RecordBatch
    rejected: pa.RecordBatch


class Columns(NamedTuple):
    """The columns to take; without a tag column (posts to be scored), tags are null and not checked."""

    text: str
    tag: str | None


def read(source: str, *, text_column: str, tag_column: str | None) -> Iterator[Block]:
    """All rows in order, numbered from 1, in blocks of at most posts.ROWS_PER_BATCH rows and about 32 MB of text.

    Raises BadInput for a source that cannot be read as it is, Unavailable where trying again can help.
    """
    columns, name = Columns(text_column, tag_column), shown(source)
    if sample.is_sample(source):
        yield from _invented(source, columns)
        return
    with _explained(name), _opened(source) as file:
        yield from _blocks(file, name, columns)


def shown(source: str) -> str:
    """The source as messages may show it: a URL without user, password and query."""
    if "://" not in source or sample.is_sample(source):
        return source
    return re.sub(r"[?#].*?(?=::|$)", "", re.sub(r"(?<=://)[^/?#]*@", "", source))


def _invented(source: str, columns: Columns) -> Iterator[Block]:
    none = pa.RecordBatch.from_pylist([], schema=posts.REJECTED)
    for batch in sample.blocks(*sample.parse(source)):
        yield Block(_untagged(batch) if columns.tag is None else batch, none)


def _untagged(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.set_column(1, posts.POSTS.field("tag"), pa.nulls(batch.num_rows, pa.string()))


def _blocks(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    """By content, not by name; but a name that promises what the content is not is a damaged file."""
    head, path = file.peek(4), name.partition("::")[0].lower()
    for suffix, magic in ((".gz", GZIP_MAGIC), (".parquet", PARQUET_MAGIC)):
        if path.endswith(suffix) and not head.startswith(magic):
            raise _corrupt(name, f"its name ends in {suffix} but its content does not begin as such a file does")
    if head.startswith(PARQUET_MAGIC):
        return _parquet(file, name, columns)
    if head.startswith(GZIP_MAGIC):
        file = io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER)
    return _csv(file, name, columns)


# Opening


@contextmanager
def _opened(source: str) -> Iterator[io.BufferedReader]:
    remote = re.match("https?://", source, re.IGNORECASE)
    opened: AbstractContextManager[Any] = _download(source) if remote else _file(source)
    with opened as file, io.BufferedReader(file, BUFFER) as buffered:
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
def _download(url: str) -> Iterator[IO[bytes]]:
    """The body in a temporary file, which is gone afterwards in any case."""
    with TemporaryFile() as file:
        try:
            headers = {"Accept-Encoding": "identity"}
            with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
                _check_status(response, shown(url))
                _save(response, file, shown(url))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise BadInput(f"{shown(url)} cannot be fetched ({type(error).__name__}); correct the URL") from error
        except httpx.HTTPError as error:
            fault = str(error) if isinstance(error, httpx.ConnectError) else type(error).__name__
            raise Unavailable(f"{shown(url)} could not be fetched ({fault}); try again later") from error
        file.seek(0)
        yield file


def _check_status(response: httpx.Response, name: str) -> None:
    answer = f"{name} answered {response.status_code} {response.reason_phrase}".rstrip()
    if response.is_server_error or response.status_code in MAY_RECOVER:
        raise Unavailable(f"{answer}; try again later")
    if not response.is_success:
        raise BadInput(f"{answer}; correct the URL or the access to it")


def _save(response: httpx.Response, file: IO[bytes], name: str) -> None:
    """Bytes as they came, undecoded, so that Content-Length can be checked; Unavailable if there are fewer."""
    length = response.headers.get("Content-Length", "")
    total, received = int(length) if length.isdecimal() else None, 0
    with progress.track("download", "bytes", total) as advance:
        try:
            for chunk in response.iter_raw(BUFFER):
                file.write(chunk)
                received += len(chunk)
                advance(len(chunk))
        except (httpx.RemoteProtocolError, httpx.ReadError):  # so httpx tells of a connection closed too early
            received = response.num_bytes_downloaded
            if total is None:
                raise
    if total is not None and received < total:
        raise Unavailable(f"{name} ended after {received:,} of {total:,} bytes; try again later")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Faults of files, wherever in reading they show, as errors of ours."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:  # BadGzipFile is an OSError: keep it before those
        raise _corrupt(name, f"gzip cannot unpack it ({error})") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"there is no {name}; correct the source") from error
    except IsADirectoryError as error:
        raise BadInput(f"{name} is a folder; name one file in it") from error
    except PermissionError as error:
        raise BadInput(f"{name} may not be read; give this user permission to read it") from error
    except OSError as error:
        fault = error.strerror or type(error).__name__
        raise Unavailable(f"{name} could not be read ({fault}); try again") from error


def _corrupt(name: str, fault: str) -> BadInput:
    return BadInput(f"{name} is truncated or corrupt: {fault}; fetch or write it again")


def _position(names: Sequence[str], wanted: str, name: str, setting: str) -> int:
    """Index of the one column with the wanted name; BadInput if there is none or more than one."""
    if (count := names.count(wanted)) == 1:
        return names.index(wanted)
    if count:
        raise BadInput(f"{name} has {count} columns named {wanted!r}; rename all but one")
    found = ", ".join(_legible(column) for column in names[:20]) + (", ..." if len(names) > 20 else "")
    raise BadInput(f"{name} has no column {wanted!r} (it has: {found}); set {setting} to the right one or rename it")


def _legible(column: str) -> str:
    return (column if column.isprintable() and column.strip() == column != "" else ascii(column))[:60]


# CSV

Record = tuple[list[str] | None, list[str]]
"""A record's fields, None where its quotes are malformed, and its lines."""


class _Rows:
    """Rows of a CSV gathered until they make a block."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.posts: list[str] = []
        self.tags: list[str | None] = []
        self.rows: list[int] = []
        self.rejected: list[dict[str, int | str]] = []
        self.characters = 0

    def accept(self, row: int, post: str, tag: str | None) -> None:
        self.posts.append(post)
        self.tags.append(tag)
        self.rows.append(row)
        self.characters += len(post)

    def reject(self, row: int, reason: str, text: str) -> None:
        self.rejected.append({"row": row, "reason": reason, "text": text})
        self.characters += len(text)

    @property
    def count(self) -> int:
        return len(self.rows) + len(self.rejected)

    @property
    def full(self) -> bool:
        return self.count >= posts.ROWS_PER_BATCH or self.characters >= TEXT_PER_BLOCK

    def block(self) -> Block:
        """All that was gathered; the next block begins empty."""
        accepted = pa.record_batch([self.posts, self.tags, self.rows], schema=posts.POSTS)
        rejected = pa.RecordBatch.from_pylist(self.rejected, schema=posts.REJECTED)
        self._clear()
        return Block(accepted, rejected)


def _csv(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    with _text(file, name) as content:
        records = _records(content, name)
        header, _ = next(records, ([], []))
        if header is None:
            raise BadInput(f"{name} has malformed quotes in its header; mend its first line")
        if not header:
            raise BadInput(f"{name} is empty, without even a header; name a source that holds posts")
        text = _position(header, columns.text, name, "text_column")
        tag = None if columns.tag is None else _position(header, columns.tag, name, "tag_column")
        yield from _csv_blocks(records, len(header), text, tag)


def _csv_blocks(records: Iterator[Record], width: int, text: int, tag: int | None) -> Iterator[Block]:
    rows = _Rows()
    for row, (fields, lines) in enumerate(records, 1):
        if reason := _fault(fields, width, text, tag):
            rows.reject(row, reason, _raw(lines))
        else:
            rows.accept(row, fields[text], None if tag is None else fields[tag])  # type: ignore[index]
        if rows.full:
            yield rows.block()
    if rows.count:
        yield rows.block()


def _text(file: io.BufferedReader, name: str) -> io.TextIOWrapper:
    """The content as text whose undecodable bytes are lone surrogates, line breaks left as they are."""
    head = file.peek(8)
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise BadInput(f"{name} is {what}, and name that as the source")
    if head.startswith(UTF8_BOM):
        file.read(len(UTF8_BOM))
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def _records(text: Iterable[str], name: str) -> Iterator[Record]:
    """Each record; its list of lines is valid until the next.

    A blank line is no record, as in pandas: files end in them, and csv writes a lone empty field as "".
    """
    lines: list[str] = []
    ended = False

    def consumed() -> Iterator[str]:
        nonlocal ended
        for line in text:
            lines.append(line)
            yield line
        ended = True

    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(consumed(), strict=True)
    while True:
        lines.clear()
        try:
            if fields := next(reader):
                yield fields, lines
        except StopIteration:
            return
        except csv.Error:
            _check_closed(lines, reader.line_num, ended, name)
            yield None, lines


def _check_closed(lines: list[str], last: int, ended: bool, name: str) -> None:
    """BadInput if the record ran to the end of the file, or past all measure, in search of a closing quote."""
    if not ended and sum(map(len, lines)) <= LONGEST_FIELD:
        return
    text = "".join(lines)
    closed = re.match(r'(?:(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n][^,\r\n]*+)?,)*+', text)
    opened = last - len(lines) + 1 + len(re.findall(r"\r\n?|\n", text[: closed.end()]))  # type: ignore[union-attr]
    limit = "never closed" if ended else f"not closed within {LONGEST_FIELD:,} characters"
    raise _corrupt(name, f"the quote opened in line {opened} is {limit}")


def _fault(fields: list[str] | None, width: int, text: int, tag: int | None) -> str | None:
    """The first of REASONS that applies, or None."""
    if fields is None:
        return MALFORMED_QUOTES
    if len(fields) != width:
        return WRONG_FIELD_COUNT
    if not all(map(str.isascii, fields)) and not _decoded(fields):
        return BAD_UTF8
    if _blank(fields[text]):
        return EMPTY_POST
    if tag is None:
        return None
    if _blank(fields[tag]):
        return EMPTY_TAG
    return LINE_BREAK_IN_TAG if "\n" in fields[tag] or "\r" in fields[tag] else None


def _decoded(fields: list[str]) -> bool:
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return False
    return True


def _blank(field: str) -> bool:
    return not field or field.isspace()


def _raw(lines: list[str]) -> str:
    r"""The record as it stands in the file, undecodable bytes as \xff, cut to REJECTED_TEXT characters."""
    text = "".join(lines).rstrip("\r\n")[:REJECTED_TEXT]
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")[:REJECTED_TEXT]


# Parquet


def _parquet(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[Block]:
    row = 1
    try:
        with pq.ParquetFile(file, **PIECEWISE, page_checksum_verification=True) as parquet:
            needed = _checked(parquet.schema_arrow, name, columns)
            for batch in parquet.iter_batches(_rows_per_batch(parquet, needed), columns=needed):
                for part in _parts(_plain(batch, columns)):
                    yield _sorted_out(part, row)
                    row += part.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of the schema's names
        if isinstance(error, OSError) and error.errno:  # the disk's fault; Arrow's own bear no number
            raise
        raise _corrupt(name, f"Parquet cannot be read from it ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")[:200]


def _checked(schema: pa.Schema, name: str, columns: Columns) -> list[str]:
    """The columns needed, each there once and of text; BadInput otherwise."""
    needed = {columns.text: "text_column"} | ({} if columns.tag is None else {columns.tag: "tag_column"})
    for column, setting in needed.items():
        kind = schema.field(_position(schema.names, column, name, setting)).type
        if not _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise BadInput(f"{name} holds {kind} in column {column!r}, not text; set {setting} to a column of strings")
    return list(needed)


def _is_text(kind: pa.DataType) -> bool:
    kinds = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in kinds


def _rows_per_batch(parquet: pq.ParquetFile, needed: list[str]) -> int:
    """So many rows that the needed columns of none of the row groups pass TEXT_PER_BLOCK on average."""
    meta = parquet.metadata
    most = 1.0
    for group in map(meta.row_group, range(meta.num_row_groups)):
        chunks = [group.column(i) for i in range(group.num_columns)]
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in needed)
        most = max(most, size / (group.num_rows or 1))
    return max(1, min(posts.ROWS_PER_BATCH, int(TEXT_PER_BLOCK / most)))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch halved until no part of several rows passes TEXT_PER_BLOCK."""
    if batch.num_rows < 2 or batch.nbytes <= TEXT_PER_BLOCK:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _parts(batch.slice(0, middle))
    yield from _parts(batch.slice(middle))


def _plain(batch: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    """The batch as `post` and `tag`, plain strings of whatever they were, and `fault`, one of REASONS or null."""
    post, undecodable = _strings(batch.column(columns.text))
    tag = pa.nulls(batch.num_rows, pa.string())
    faults = [(_empty(post), EMPTY_POST)]
    if columns.tag is not None:
        tag, bad = _strings(batch.column(columns.tag))
        undecodable = pc.or_(undecodable, bad)
        faults += [(_empty(tag), EMPTY_TAG), (pc.match_substring_regex(tag, "[\r\n]"), LINE_BREAK_IN_TAG)]
    fault = pa.nulls(batch.num_rows, pa.string())
    for where, reason in reversed([(undecodable, BAD_UTF8), *faults]):
        fault = pc.if_else(where, reason, fault)
    return pa.record_batch({"post": post, "tag": tag, "fault": fault})


def _strings(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    r"""The column as strings, undecodable bytes as \xff, and where there were any: bool [rows]."""
    raw = column.cast(pa.large_binary())  # strings too: a file may call bytes a string that are none
    try:
        return raw.cast(pa.string()), pa.repeat(False, len(raw))
    except pa.ArrowInvalid:
        values = raw.to_pylist()
    decoded = [None if value is None else value.decode(errors="backslashreplace") for value in values]
    bad = [text is not None and text.encode() != value for text, value in zip(decoded, values, strict=True)]
    return pa.array(decoded, pa.string()), pa.array(bad)


def _empty(column: pa.Array) -> pa.Array:
    """Where nothing is left after str.strip(): bool [rows]."""
    nothing = pc.equal(pc.binary_length(column), 0)
    return pc.fill_null(pc.or_(nothing, pc.utf8_is_space(column)), True)


def _sorted_out(plain: pa.RecordBatch, first_row: int) -> Block:
    rows = pa.array(range(first_row, first_row + plain.num_rows), pa.int64())
    numbered = plain.append_column("row", rows)
    accepted = numbered.filter(pc.is_null(plain.column("fault")))
    rejected = numbered.filter(pc.is_valid(plain.column("fault")))
    text = pc.utf8_slice_codeunits(pc.fill_null(rejected.column("post"), ""), 0, REJECTED_TEXT)
    return Block(
        posts=accepted.select(posts.POSTS.names),
        rejected=pa.record_batch([rejected.column("row"), rejected.column("fault"), text], schema=posts.REJECTED),
    )
