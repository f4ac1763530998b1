"""Posts that users asked about, and the tags that they said were right: kept as Parquet, and removed by id or by age.

A file is written once, and written again only to remove posts from it. `feedback/asked` holds recorded requests, and
`feedback/tagged` those whose tag is known, in a form that `tagger run` and `tagger watch` read as a source.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import BadInput
from pipeline.stages.plan import FEEDBACK_FILE
from pipeline.store.objects import Store

ASKED, TAGGED = "feedback/asked", "feedback/tagged"

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


def fetch(store: Store, folder: Path) -> bool:
    """Write the posts with a text, in the order of asking, and what was told of each last; False if there are none."""
    told: dict[str, dict[str, Any]] = {}
    rows = [row for path in _files(store, TAGGED) for row in _rows(store, path)]
    # Rows of earlier releases do not say when they were told.
    for row in sorted(rows, key=lambda row: row.get("told") or row["at"]):
        told[row["id"]] = row
    found = sorted((row for row in told.values() if row["post"]), key=lambda row: (row["at"], row["id"]))
    if not found:
        return False
    folder.mkdir(parents=True)
    schema = pa.schema([("post", pa.string()), ("tags", pa.string())])
    pq.write_table(pa.Table.from_pylist(found, schema=schema), folder / FEEDBACK_FILE)
    return True


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
    return None if data is None else pq.read_table(io.BytesIO(data))


def _put(store: Store, path: str, table: pa.Table) -> None:
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    store.write_bytes(path, data.getvalue())
