"""The files of recorded posts: Parquet with a seal in it, and a note beside each that it was written.

The seal, a document with the file's sha256, is signed as every document, and checked before anything is decoded. A file
is replaced together with its seal in one atomic write. The note lets a reader see that a file is gone.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import CorruptArtifact
from pipeline.store import signatures
from pipeline.store.documents import Document
from pipeline.store.forgotten import Row
from pipeline.store.objects import Store
from pipeline.store.seal import sealed, unsealed

ASKED, TAGGED = FOLDERS = ("feedback/asked", "feedback/tagged")

NOTES = "feedback/written"

SUFFIX = ".parquet"

MOST_BYTES = 256 * 2**20
"""A file with more bytes is not read."""

MOST_TEXT = 2 * 2**30
"""A file that has more bytes when it is decoded, as its footer says, is not decoded."""

MOST_GROUPS = 10_000
"""Largest number of columns, and of row groups, as of sources."""

ROWS_AT_ONCE = 64
"""Rows that are in memory at once, and in a row group."""

FIELDS = [
    ("id", pa.string()),
    ("at", pa.timestamp("s", "UTC")),
    ("version", pa.int64()),
    ("post", pa.string()),
    ("sha256", pa.string()),
    ("predicted", pa.string()),
    ("probability", pa.float32()),
]

ASKED_SCHEMA = pa.schema(FIELDS)
"""A recorded post: its id, when and whom it was asked, its text or null, the text's sha256, and the answer."""

TAGGED_SCHEMA = pa.schema([*FIELDS, ("tags", pa.string()), ("told", pa.timestamp("ms", "UTC"))])
"""The same with the right tag, and when it was told; `post` and `tags` are the columns that a run reads by default."""

REQUIRED = {"id", "at", "post"}


class Seal(Document):
    """The sha256 of a file of recorded posts without its seal."""

    WHAT = "seal of recorded posts"

    content: str


class Note(Document):
    """That a file of recorded posts was written; until it is `complete`, the file may be missing."""

    WHAT = "note of recorded posts"

    complete: bool


@dataclass(frozen=True)
class File:
    """A file of recorded posts, whose bytes are those that were written, and whether it has a seal and a note."""

    store: Store
    path: str
    content: bytes
    sealed: bool
    noted: bool

    @property
    def lost_note(self) -> bool:
        """Whether its note is gone; files of earlier releases never had one."""
        return self.sealed and not self.noted

    @classmethod
    def read(cls, store: Store, path: str) -> Self | None:
        """Read the file; None if there is none.

        Raises CorruptArtifact if its bytes are not those that were written, or if keys are trusted and none of them
        has signed it. Without keys a file of an earlier release is read, which has no seal and no note.
        """
        note = _note(store, path)
        data = store.read_bytes(path, MOST_BYTES)
        if data is None:
            return None
        parts = unsealed(data)
        is_noted = note is not None and note.complete
        if parts is None and not is_noted and not signatures.keys().trusted:
            return cls(store, path, data, sealed=False, noted=False)
        if parts is None:
            why = "is not the file that was written there" if is_noted else "is not trusted, because it is not signed"
            raise _damaged(store, path, why)
        content, document = parts
        shown = store.display_path(path)
        seal = Seal.parse(store.opened(path, document, "restore or remove it"), shown)
        if seal.content != hashlib.sha256(content).hexdigest():
            raise _damaged(store, path, "is not the file that was written there")
        # It may have been a file of an earlier release when the note was read.
        note = note or _note(store, path)
        return cls(store, path, content, sealed=True, noted=note is not None)

    def require_note(self) -> None:
        """Raise CorruptArtifact if its note is gone."""
        if self.lost_note:
            note = self.store.display_path(_note_path(self.path))
            raise CorruptArtifact(f"{note} is gone: restore it, or run `tagger gc`, which writes it again")

    def rows(self, *columns: str) -> Iterator[Row]:
        """Decode these columns, or all, a few rows at a time; CorruptArtifact where they are not recorded posts."""
        wanted = [field for field in _schema(self.path) if not columns or field.name in columns]
        try:
            with pq.ParquetFile(
                io.BytesIO(self.content),
                buffer_size=2**20,
                pre_buffer=False,
                thrift_container_size_limit=MOST_GROUPS,
            ) as parquet:
                self._refuse_unfit(parquet)
                schema = pa.schema([field for field in wanted if field.name in parquet.schema_arrow.names])
                for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=schema.names):
                    table = pa.Table.from_batches([batch]).select(schema.names)
                    rows = table.cast(schema, safe=False).to_pylist()
                    if any(row["id"] is None or row["at"] is None for row in rows):
                        raise _damaged(self.store, self.path, "has a row without id or time")
                    yield from rows
        except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
            raise _damaged(self.store, self.path, "cannot be read as Parquet") from error

    def _refuse_unfit(self, parquet: pq.ParquetFile) -> None:
        """Raise CorruptArtifact, before anything is decoded, for a file of other columns or too much text."""
        if missing := REQUIRED - {*parquet.schema_arrow.names}:
            raise CorruptArtifact(
                f"{self.store.display_path(self.path)} was not written by `tagger serve`, because it has no column "
                f"{', '.join(sorted(missing))}: remove it"
            )
        about = parquet.metadata
        text = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
        if text > MOST_TEXT:
            raise _damaged(self.store, self.path, f"has {text:,} bytes when it is decoded, more than {MOST_TEXT:,}")


def paths(store: Store, *folders: str) -> list[str]:
    """The files of the folders, or all, also those that are gone though a note is there."""
    return [
        f"{folder}/{stem}{SUFFIX}"
        for folder in folders or FOLDERS
        for stem in sorted(_stems(store, folder, SUFFIX) | _stems(store, _notes_of(folder), ".json"))
    ]


def encode(path: str, rows: Iterable[Row]) -> tuple[bytes, int]:
    """The rows as the bytes of a Parquet file for that path, and how many they are."""
    schema = _schema(path)
    buffer = io.BytesIO()
    remaining, count = iter(rows), 0
    # Statistics would repeat the first and the last of the texts in the footer.
    with pq.ParquetWriter(buffer, schema, compression="zstd", write_statistics=False) as writer:
        while some := list(islice(remaining, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            count += len(some)
    return buffer.getvalue(), count


def put(store: Store, path: str, content: bytes) -> None:
    """Write or replace the file, with its seal."""
    seal = Seal(content=hashlib.sha256(content).hexdigest())
    store.write_bytes(path, sealed(content, store.sealed(path, seal.to_dict())))


def write_note(store: Store, path: str, *, complete: bool) -> None:
    """Note that the file is being written, or that it is complete."""
    store.write(_note_path(path), Note(complete=complete).to_dict())


def remove_note(store: Store, path: str) -> None:
    """Remove the note of a file that is gone or about to be removed."""
    store.remove(_note_path(path))


def refuse_lost(store: Store, path: str) -> None:
    """Raise CorruptArtifact if the file, which is not there, was complete."""
    # Whoever removes a file removes its note first, maybe just now.
    note = _note(store, path)
    if note and note.complete:
        cure = f"restore it, or remove {store.display_path(_note_path(path))}"
        raise CorruptArtifact(f"{store.display_path(path)} is gone: {cure}")


def sign(store: Store) -> int:
    """Sign every file with TAGGER_SIGNING_KEY, also those of earlier releases; returns how many.

    Raises CorruptArtifact if keys are trusted, and a file has a signature which is none of theirs.
    """
    count = 0
    for path in paths(store):
        data = store.read_bytes(path, MOST_BYTES)
        if data is None:
            continue
        content, document = unsealed(data) or (data, None)
        if document and f'"{signatures.FIELD}": {{'.encode() in document:
            File.read(store, path)
        elif document and hashlib.sha256(content).hexdigest().encode() not in document:
            raise _damaged(store, path, "is not the file that was written there")
        put(store, path, content)
        write_note(store, path, complete=True)
        count += 1
    return count


def _schema(path: str) -> pa.Schema:
    return TAGGED_SCHEMA if path.startswith(TAGGED) else ASKED_SCHEMA


def _stems(store: Store, folder: str, suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in store.names(folder) if name.endswith(suffix)}


def _notes_of(folder: str) -> str:
    return f"{NOTES}/{folder.rpartition('/')[-1]}"


def _note_path(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{_notes_of(folder)}/{name.removesuffix(SUFFIX)}.json"


def _note(store: Store, path: str) -> Note | None:
    return store.load(_note_path(path), Note)


def _damaged(store: Store, path: str, why: str) -> CorruptArtifact:
    cure = f"restore or remove it; {signatures.CURE}" if "not trusted" in why else "restore or remove it"
    return CorruptArtifact(f"{store.display_path(path)} {why}: {cure}")
