"""Posts that users asked about, and the tags that they said were right: kept as Parquet, and removed by id or by age.

`feedback/asked` holds recorded requests, and `feedback/tagged` those whose tag is known, in a form that `tagger run`
and `tagger watch` read as a source. A file is written once, and written again only to remove posts from it.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data import FEEDBACK_FILE
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.store import feedback_files as files
from pipeline.store import forgotten as tombstones
from pipeline.store.feedback_files import SUFFIX, File
from pipeline.store.forgotten import Forgotten, Row
from pipeline.store.objects import Store

log = logging.getLogger(__name__)

ASKED, TAGGED = files.FOLDERS
ASKED_SCHEMA, TAGGED_SCHEMA = files.ASKED_SCHEMA, files.TAGGED_SCHEMA


def write(store: Store, folder: str, name: str, rows: Iterable[Row], forgotten: Forgotten | None = None) -> None:
    """Write the rows to a new file of the folder, except those that are forgotten.

    Where it fails, the same call may be made again. Raises CorruptArtifact if it cannot be known what is forgotten.
    """
    path = f"{folder}/{name}{SUFFIX}"
    forgotten = forgotten or Forgotten(store)
    forgotten.look_and_check()

    content, count = files.encode(path, (row for row in rows if not forgotten.has(row)))
    if not count:
        files.remove_note(store, path)  # which an earlier try may have left
        return
    files.write_note(store, path, complete=False)
    files.put(store, path, content)
    files.write_note(store, path, complete=True)

    # Whoever forgot posts meanwhile may have looked for them before they were there.
    if forgotten.look() and _remove_forgotten(store, path, forgotten) is None:
        files.remove_note(store, path)


def asked(store: Store, name: str, forgotten: Forgotten | None = None) -> Iterator[Row]:
    """The recorded posts of a file of ASKED, in their order; none if there is none of that name."""
    forgotten = forgotten or Forgotten(store)
    forgotten.look_and_check()
    path = f"{ASKED}/{name}{SUFFIX}"
    file = File.read(store, path)
    if file is None:
        files.refuse_lost(store, path)
        return
    if file.lost_note:
        forgotten.look()
    for row in file.rows():
        if not forgotten.has(row):
            file.require_note()
            yield row


def forget(store: Store, ids: Iterable[str]) -> int:
    """Remove the recorded posts with these ids, or ids of requests, and what was said of them; returns how many rows.

    What a server has not written yet will not be written. Raises BadInput if no post that is written has such an id,
    and, after all others were removed, CorruptArtifact if a file or tombstone cannot be read.
    """
    wanted = set(ids)

    def is_wanted(row: Row) -> bool:
        return tombstones.is_of(row, wanted, None)

    # Counted before, because another who forgets at the same time may remove them first.
    count = sum(map(is_wanted, _readable_ids(store)))
    tombstones.note(store, wanted, None)
    removed = max(count, _forget(store, is_wanted))
    if not removed:
        names = ", ".join(sorted(wanted))
        raise BadInput(
            f"no recorded post has the id {names[:200]}: an answer's header Tagger-Id names it; "
            "if a server has not written it yet, it will not"
        )
    return removed


def forget_older(store: Store, days: float, now: datetime | None = None) -> int:
    """Remove the recorded posts, and what was said of them, that are older than so many days; returns how many rows.

    It also removes what a `forget` that was killed has left. Raises CorruptArtifact as `forget` does.
    """
    if not store.names("feedback"):
        return 0
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    tombstones.note(store, (), before)
    removed = _forget(store, lambda row: tombstones.is_of(row, (), before))
    tombstones.remove_needless(store)
    return removed


@dataclass(frozen=True)
class Fetched:
    """How many posts were fetched, and how many tags were not.

    Those are tags that were told before the last one of a post, or of a post without text, or of a forgotten post that
    is not removed yet.
    """

    posts: int
    earlier: int
    without_text: int
    forgotten: int


def fetch(store: Store, folder: Path, *, by_text: bool = False) -> Fetched | None:
    """Write the posts with a text, in the order of asking, each once, with what was told of it last; None without any.

    A post is what has one id, or `by_text` one text. Raises CorruptArtifact if a file or tombstone cannot be trusted.
    """
    rows, fetched = _told(store, by_text=by_text)
    if fetched.forgotten:
        log.warning(
            "%d tags are left out, because their posts are forgotten: `tagger gc` removes them", fetched.forgotten
        )
    if not rows:
        return None
    folder.mkdir(parents=True)
    schema = pa.schema([("post", pa.string()), ("tags", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / FEEDBACK_FILE)
    return fetched


def fingerprint(store: Store) -> str:
    """The sha256 of what `fetch` takes, and of how many tags it leaves out for good."""
    rows, fetched = _told(store, by_text=False)
    sha256 = hashlib.sha256(f"{fetched.earlier} {fetched.without_text}\n".encode())
    for row in rows:
        sha256.update(repr((row["post"], row["tags"])).encode() + b"\n")
    return sha256.hexdigest()


def faults(store: Store) -> Iterator[str | None]:
    """Check each file of recorded posts, its note, and each tombstone: yields for each its fault or None."""
    forgotten = Forgotten(store)
    forgotten.look()
    yield from forgotten.faults
    for path in files.paths(store):
        try:
            _kept(store, path, forgotten, "id", "at")
        except CorruptArtifact as error:
            yield str(error)
        else:
            yield None


def _told(store: Store, *, by_text: bool) -> tuple[list[Row], Fetched]:
    """The tags that `fetch` takes, in the order of asking."""
    forgotten = Forgotten(store)
    forgotten.look_and_check()
    rows, left_out = list[Row](), 0
    for path in files.paths(store, TAGGED):
        kept, gone = _kept(store, path, forgotten, "id", "at", "post", "tags", "told")
        rows += kept
        left_out += gone

    # Rows of earlier releases do not say when they were told.
    rows.sort(key=lambda row: row.get("told") or row["at"])
    last = {row["id"]: row for row in rows}
    with_text = [row for row in rows if row["post"] and last[row["id"]] is row]
    if by_text:
        with_text = list({row["post"]: row for row in with_text}.values())
    with_text.sort(key=lambda row: (row["at"], row["id"]))
    without_text = sum(not row["post"] for row in last.values())
    earlier = len(rows) - len(with_text) - without_text
    return with_text, Fetched(len(with_text), earlier, without_text, left_out)


def _kept(store: Store, path: str, forgotten: Forgotten, *columns: str) -> tuple[list[Row], int]:
    """The rows of a file that are not forgotten, and how many are. Raises CorruptArtifact where it is lost."""
    file = File.read(store, path)
    if file is None:
        files.refuse_lost(store, path)
        return [], 0
    if file.lost_note:  # because all its posts were forgotten since the last look, or else it was taken away
        forgotten.look()
    rows = list(file.rows(*columns))
    kept = [row for row in rows if not forgotten.has(row)]
    if kept:
        file.require_note()
    return kept, len(rows) - len(kept)


def _readable_ids(store: Store) -> Iterator[Row]:
    """The id and time of each row of the files that can be read."""
    for path in files.paths(store):
        with suppress(CorruptArtifact):
            if file := File.read(store, path):
                yield from file.rows("id", "at")


def _forget(store: Store, is_chosen: Callable[[Row], bool]) -> int:
    """Remove what is forgotten from all files, and return how many of the rows were chosen."""
    forgotten = Forgotten(store)
    forgotten.look()
    removed, damage = 0, forgotten.faults
    for path in files.paths(store):
        try:
            count = _remove_forgotten(store, path, forgotten, is_chosen)
            if count is None:
                files.refuse_lost(store, path)
            removed += count or 0
        except CorruptArtifact as error:
            damage = [*damage, str(error)]
    if damage:
        raise CorruptArtifact(f"removed {removed:,} rows, but others may be left: {'; '.join(damage)}")
    return removed


def _remove_forgotten(
    store: Store, path: str, forgotten: Forgotten, is_chosen: Callable[[Row], bool] = lambda row: False
) -> int | None:
    """Remove from a file what is chosen or forgotten, and return how many rows were chosen; None if it is not there."""
    count = None

    def is_going(row: Row) -> bool:
        return is_chosen(row) or forgotten.has(row)

    while file := File.read(store, path):
        going = [row for row in file.rows("id", "at") if is_going(row)]
        count = max(count or 0, sum(map(is_chosen, going)))
        if not going and not file.lost_note:
            return count

        if going:
            content, left = files.encode(path, (row for row in file.rows() if not is_going(row)))
        if going and not left:
            files.remove_note(store, path)
            store.remove(path)
        elif going:
            if not file.noted:
                files.write_note(store, path, complete=False)
            files.put(store, path, content)

        # Two who forget at once may each have put back what the other removed, but the later one sees that here.
        if forgotten.look():
            continue
        if not file.noted and not (going and not left):
            files.write_note(store, path, complete=True)
            if forgotten.look():
                continue
        return count
    if count is not None:
        files.remove_note(store, path)  # another removed the file, maybe before this one wrote the note
    return count
