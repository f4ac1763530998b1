"""Posts that users asked about, and the tags that they said were right: kept as Parquet, and removed by id or by age.

A file is written once, and written again only to remove posts from it. `feedback/asked` holds recorded requests, and
`feedback/tagged` those whose tag is known, in a form that `tagger run` and `tagger watch` read as a source.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import BadInput, CorruptArtifact
from pipeline.source_policy import is_url
from pipeline.sources.source import Kind, Source
from pipeline.stages.plan import FEEDBACK_FILE
from pipeline.store.objects import Store

ASKED, TAGGED = "feedback/asked", "feedback/tagged"

_WHOLE_FOLDER = re.compile(r"(/\*\*)?(/\*(\.parquet)?)?/*$")
"""What may follow a folder's name where all its files are meant."""

FIELDS = [("id", pa.string()), ("at", pa.timestamp("s", "UTC")), ("version", pa.int64()), ("post", pa.string())]
FIELDS += [("sha256", pa.string()), ("predicted", pa.string()), ("probability", pa.float32())]

ASKED_SCHEMA = pa.schema(FIELDS)
"""A recorded post: its id, when and whom it was asked, its text or null, the text's sha256, and the answer."""

TAGGED_SCHEMA = pa.schema([*FIELDS, ("tags", pa.string()), ("told", pa.timestamp("ms", "UTC"))])
"""The same with the right tag, and when it was told; `post` and `tags` are the columns that a run reads by default."""


def write(store: Store, folder: str, name: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows to a new file of the folder."""
    schema = TAGGED_SCHEMA if folder == TAGGED else ASKED_SCHEMA
    _put(store, f"{folder}/{name}.parquet", pa.Table.from_pylist(rows, schema=schema))


def asked(store: Store, name: str) -> list[dict[str, Any]]:
    """The recorded posts of a file of ASKED, in their order; empty if there is none of that name."""
    return _rows(store, f"{ASKED}/{name}.parquet")


def forget(store: Store, ids: Iterable[str]) -> int:
    """Remove the recorded posts with these ids, or ids of requests, and what was said of them; returns how many rows.

    Raises BadInput if none has such an id.
    """
    wanted = sorted(set(ids))

    def named(table: pa.Table) -> pa.ChunkedArray:
        column = table.column("id")
        of_request = pc.list_element(pc.split_pattern(column, "."), 0)
        return pc.or_(pc.is_in(column, pa.array(wanted)), pc.is_in(of_request, pa.array(wanted)))

    removed = _remove(store, named)
    if not removed:
        raise BadInput(f"no recorded post has the id {', '.join(wanted)[:200]}: an answer's header Tagger-Id names it")
    return removed


def forget_older(store: Store, days: float, now: datetime | None = None) -> int:
    """Remove the recorded posts, and what was said of them, that are older than so many days; returns how many rows."""
    before = pa.scalar((now or datetime.now(UTC)) - timedelta(days=days), pa.timestamp("us", "UTC"))
    return _remove(store, lambda table: pc.less(table.column("at"), before))


@dataclass(frozen=True)
class Fetched:
    """How many posts were fetched, and how many tags were not: told before the last one of a post, or without text."""

    posts: int
    earlier: int
    without_text: int


def store_of(source: Source, own: Store) -> Store | None:
    """The store whose TAGGED the source is, in any spelling, as a folder or a pattern; None for another source.

    None also for a source that a policy restricts: it is read as any folder of files, which is decoded apart.
    """
    folder = _WHOLE_FOLDER.sub("", source.text)
    if not is_url(folder):
        folder = str(Path(folder).expanduser().resolve())
    if source.kind is not Kind.FILES or source.allowed is not None or not folder.endswith(f"/{TAGGED}"):
        return None
    url = folder.removesuffix(f"/{TAGGED}")
    # The own store may have been opened with keys that the environment does not have.
    own_url = own.url if is_url(own.url) else str(Path(own.url).resolve())
    return own if own_url.rstrip("/") == url else Store(url)


def fetch(store: Store, folder: Path, *, by_text: bool = False) -> Fetched | None:
    """Write the posts with a text, in the order of asking, each once, with what was told of it last; None without any.

    A post is what has one id, or `by_text` one text.
    """
    rows = [row for path in _files(store, TAGGED) for row in _rows(store, path)]
    # Rows of earlier releases do not say when they were told.
    rows.sort(key=lambda row: row.get("told") or row["at"])
    last = {row["id"]: row for row in rows}
    with_text = [row for row in rows if row["post"] and last[row["id"]] is row]
    if by_text:
        with_text = list({row["post"]: row for row in with_text}.values())
    if not with_text:
        return None
    with_text.sort(key=lambda row: (row["at"], row["id"]))
    folder.mkdir(parents=True)
    schema = pa.schema([("post", pa.string()), ("tags", pa.string())])
    pq.write_table(pa.Table.from_pylist(with_text, schema=schema), folder / FEEDBACK_FILE)
    without_text = sum(not row["post"] for row in last.values())
    return Fetched(len(with_text), len(rows) - len(with_text) - without_text, without_text)


def fingerprint(store: Store) -> str:
    """The sha256 of all posts whose tag is known."""
    sha256 = hashlib.sha256()
    for path in sorted(_files(store, TAGGED)):
        sha256.update(path.encode() + hashlib.sha256(store.read_bytes(path) or b"").digest())
    return sha256.hexdigest()


def _remove(store: Store, chosen: Callable[[pa.Table], pa.ChunkedArray]) -> int:
    """Remove the rows that are chosen, bool [rows] of each file, and return how many."""
    removed = 0
    for path in _files(store):
        if (table := _get(store, path)) is None:
            continue
        kept = table.filter(pc.invert(chosen(table)))
        removed += len(table) - len(kept)
        if not len(kept):
            store.remove(path)
        elif len(kept) < len(table):
            _put(store, path, kept)
    return removed


def _files(store: Store, *folders: str) -> Iterator[str]:
    for folder in folders or (ASKED, TAGGED):
        yield from (f"{folder}/{name}" for name in store.names(folder) if name.endswith(".parquet"))


def _rows(store: Store, path: str) -> list[dict[str, Any]]:
    table = _get(store, path)
    return [] if table is None else table.to_pylist()


def _get(store: Store, path: str) -> pa.Table | None:
    data = store.read_bytes(path)
    if data is None:
        return None
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtifact(f"{store.display_path(path)} cannot be read as Parquet: restore or remove it") from error
    if missing := {"id", "at", "post"} - {*table.column_names}:
        raise CorruptArtifact(
            f"{store.display_path(path)} was not written by `tagger serve`, because it has no column "
            f"{', '.join(sorted(missing))}: remove it"
        )
    return table


def _put(store: Store, path: str, table: pa.Table) -> None:
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    store.write_bytes(path, data.getvalue())
