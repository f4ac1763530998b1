"""Posts that are forgotten stay forgotten, whatever else is done to the store at any moment of it."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadInput, CorruptArtifact, Unavailable
from pipeline.stages.plan import FEEDBACK_FILE
from pipeline.store import durable, feedback, feedback_files, forgotten
from pipeline.store.objects import Store
from tests.registry.interleaving import Killed, kill

NOW = datetime.now(UTC).replace(microsecond=0)
OLD = NOW - timedelta(days=100)


def row(name: str, at: datetime = NOW, **more: object) -> dict[str, object]:
    """A recorded post, whose text is `text of` its id."""
    answer = {"version": 1, "sha256": "0", "predicted": "java", "probability": 0.5}
    return {"id": f"{name}.0", "at": at, "post": f"text of {name}"} | answer | more


def told(name: str, at: datetime = NOW) -> dict[str, object]:
    return row(name, at, tags="css", told=NOW)


def texts(store: Store) -> set[str]:
    """The texts in the bytes of all files of recorded posts, however they are read."""
    files = [path for path in Path(store.url).rglob("*") if path.is_file() and path.suffix != ".json"]
    return {text for file in files for text in pq.read_table(file).column("post").to_pylist()}


def faults(store: Store) -> list[str]:
    return [fault for fault in feedback.faults(store) if fault]


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk, as hundreds of small stores are made here."""
    monkeypatch.setattr(durable, "_sync", lambda path: None)


class Interrupted(Store):
    """A store that does something else, once, before or after one call of it."""

    CALLS = ("read_bytes", "read", "write", "write_bytes", "remove", "names")

    def __init__(self, url: str, moment: int, meanwhile: Callable[[], None]) -> None:
        super().__init__(url)
        self.moment, self.meanwhile, self.calls = moment, meanwhile, count()
        self.depth, self.happened = 0, False

    def _maybe(self) -> None:
        if next(self.calls) == self.moment:
            self.happened = True
            self.meanwhile()


def _interrupting(name: str) -> Callable:
    whole = getattr(Store, name)

    def call(self: Interrupted, *args: object) -> object:
        if self.depth:  # a call of the store within another is no moment of its own
            return whole(self, *args)
        self._maybe()
        self.depth += 1
        try:
            return whole(self, *args)
        finally:
            self.depth -= 1
            self._maybe()

    return call


for _name in Interrupted.CALLS:
    setattr(Interrupted, _name, _interrupting(_name))


def filled(url: str) -> Store:
    """A store with posts in each folder, old and new ones in one file."""
    store = Store(url)
    feedback.write(store, feedback.ASKED, "a", [row("one"), row("two"), row("old", OLD), row("kept")])
    feedback.write(store, feedback.TAGGED, "b", [told("one"), told("two"), told("kept"), told("old", OLD)])
    feedback.write(store, feedback.ASKED, "c", [row("one")])
    return store


def of_earlier_release(url: str) -> Store:
    """The same without seals and notes."""
    store = filled(url)
    for path in feedback_files.paths(store):
        table = pq.read_table(Path(url, path))
        pq.write_table(table, Path(url, path))
    store.remove(feedback_files.NOTES)
    return store


def forget_one(store: Store) -> None:
    assert feedback.forget(store, ["one"]) >= 1


def forget_two(store: Store) -> None:
    assert feedback.forget(store, ["two.0"]) >= 1


def collect(store: Store) -> None:
    feedback.forget_older(store, 90)


def flush(store: Store) -> None:
    """What a server writes that had posts in memory: asked, and told of."""
    feedback.write(store, feedback.ASKED, "e", [row("one"), row("other")])
    feedback.write(store, feedback.TAGGED, "f", [told("one")])


def read(store: Store) -> None:
    feedback.fingerprint(store)
    list(feedback.asked(store, "a"))


def settled(store: Store) -> None:
    """Nothing of it is wrong, and it stays so."""
    assert faults(store) == []
    before = texts(store)
    feedback.forget_older(store, 90)
    assert texts(store) == before - {"text of old"}
    assert faults(store) == []


@pytest.mark.parametrize(
    ("make", "first", "second", "gone"),
    [
        (filled, forget_one, forget_two, {"one", "two"}),
        (filled, forget_one, flush, {"one"}),
        (filled, flush, forget_one, {"one"}),
        (filled, forget_one, collect, {"one", "old"}),
        (filled, collect, forget_one, {"one", "old"}),
        (filled, flush, collect, {"old"}),
        (filled, read, forget_one, {"one"}),
        pytest.param(of_earlier_release, forget_one, forget_two, {"one", "two"}, marks=pytest.mark.thorough),
        (of_earlier_release, read, forget_one, {"one"}),
    ],
)
def test_what_is_forgotten_is_in_no_file_whatever_is_done_meanwhile(tmp_path, make, first, second, gone):
    """The second is done as a whole before and after every call of the store by the first."""
    for moment in count():
        url = str(tmp_path / str(moment))
        make(url)
        store = Interrupted(url, moment, lambda url=url: second(Store(url)))
        first(store)
        if not store.happened:
            assert moment > 10
            return
        left = texts(store)
        assert left & {f"text of {name}" for name in gone} == set(), moment
        assert "text of kept" in left, moment
        if flush in {first, second}:
            assert "text of other" in left, moment
        settled(Store(url))
        assert [each["id"] for each in feedback.asked(Store(url), "a")][-1] == "kept.0"


def test_a_forget_that_was_killed_at_any_moment_is_completed_by_gc(tmp_path):
    for moment in count():
        url = str(tmp_path / str(moment))
        filled(url)
        store = Interrupted(url, moment, kill)
        try:
            forget_one(store)
        except Killed:
            pass
        else:
            assert moment > 10
            return
        noted = Path(url, forgotten.FOLDER).exists() and any(Path(url, forgotten.FOLDER).iterdir())
        if noted:  # from then on no reader sees the post
            assert "one.0" not in {each["id"] for each in feedback.asked(Store(url), "a")}
        feedback.forget_older(Store(url), 90)
        assert ("text of one" not in texts(Store(url))) == noted
        assert faults(Store(url)) == []


def test_a_flush_that_was_killed_at_any_moment_stops_no_reader(tmp_path):
    for moment in count():
        url = str(tmp_path / str(moment))
        store = Interrupted(url, moment, kill)
        try:
            flush(store)
        except Killed:
            read(Store(url))
            assert faults(Store(url)) == []
            flush(Store(url))
            assert texts(Store(url)) == {"text of one", "text of other"}
            assert faults(Store(url)) == []
        else:
            assert moment > 10
            return


def test_a_post_that_a_server_still_holds_is_never_written(tmp_path):
    store = filled(str(tmp_path))
    with pytest.raises(BadInput, match="if a server has not written it yet, it will not"):
        feedback.forget(store, ["held"])
    feedback.write(store, feedback.ASKED, "e", [row("held"), row("other")])
    feedback.write(store, feedback.TAGGED, "f", [told("held")])
    assert "text of held" not in texts(store)
    assert "text of other" in texts(store)
    assert faults(store) == []


def test_tombstones_that_age_has_made_needless_are_removed(tmp_path, monkeypatch):
    store = filled(str(tmp_path))
    forget_one(store)
    collect(store)
    collect(store)
    assert len(store.names(forgotten.FOLDER)) == 2
    feedback.forget_older(store, 0, NOW + timedelta(days=2))
    assert len(store.names(forgotten.FOLDER)) == 2, "a limit in the future counts for nobody"
    monkeypatch.setattr(forgotten, "CLOCKS", timedelta(0))
    feedback.forget_older(store, 0)
    [left] = store.names(forgotten.FOLDER)
    assert store.read(f"{forgotten.FOLDER}/{left}")["before"]


def test_a_clock_that_was_wrong_for_once_does_not_forget_later_posts(tmp_path):
    store = filled(str(tmp_path))
    feedback.forget_older(store, 1, NOW + timedelta(days=5000))
    feedback.write(store, feedback.ASKED, "e", [row("after")])
    assert texts(store) == {"text of after"}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def of_earlier_release_and_cut(file: Path) -> None:
    pq.write_table(pq.read_table(file), file)
    note = file.parents[1] / "written" / file.parent.name / f"{file.stem}.json"
    note.unlink()
    cut(file)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, of_earlier_release_and_cut, emptied])
def test_a_damaged_file_names_itself_and_hides_no_other(tmp_path, tagger, damage):
    store = filled(str(tmp_path))
    damage(tmp_path / feedback.ASKED / "c.parquet")
    damage(tmp_path / feedback.TAGGED / "b.parquet")
    done = tagger("forget", "one", "--store", store.url)
    assert done.returncode == 1
    assert done.stderr.startswith("tagger: removed 1 rows, but others may be left: ")
    assert re.findall(r"(\w+/\w+\.parquet) [^;]*: restore or remove it(?:;|$)", done.stderr.strip()) == [
        "asked/c.parquet",
        "tagged/b.parquet",
    ]
    done = tagger("gc", "--store", store.url)
    assert done.returncode == 1
    assert done.stderr.startswith("tagger: removed 1 rows, but others may be left: ")
    assert [each["id"] for each in feedback.asked(store, "a")] == ["two.0", "kept.0"]
    with pytest.raises(CorruptArtifact, match=r"feedback/tagged/b\.parquet "):
        feedback.fetch(store, tmp_path / "fetched")
    assert [fault.partition(" ")[0] for fault in faults(store)] == [
        str(tmp_path / feedback.ASKED / "c.parquet"),
        str(tmp_path / feedback.TAGGED / "b.parquet"),
    ]


def with_a_row_without_time(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, "at", pa.nulls(len(table), pa.timestamp("s", "UTC"))), file)


def with_a_time_beyond_all(file: Path) -> None:
    table = pq.read_table(file)
    far = pa.array([2**62] * len(table)).cast(pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(1, "at", far), file)


def with_a_number_for_a_text(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.set_column(3, "post", pa.array([{"a": 1}] * len(table))), file)


def with_a_footer_of_any_bytes(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-200:-20] = bytes(range(180))
    file.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [with_a_row_without_time, with_a_time_beyond_all, with_a_number_for_a_text, with_a_footer_of_any_bytes],
)
def test_a_file_of_an_earlier_release_with_other_content_is_one_sentence(tmp_path, change):
    store = of_earlier_release(str(tmp_path))
    change(tmp_path / feedback.TAGGED / "b.parquet")
    for use in (feedback.fingerprint, forget_one, collect):
        with pytest.raises(CorruptArtifact, match=r"tagged/b\.parquet .*: restore or remove it$"):
            use(store)


def test_what_was_told_last_counts_in_whatever_file_it_is(tmp_path):
    store = Store(str(tmp_path / "store"))
    later = told("a") | {"tags": "java", "told": NOW + timedelta(seconds=1)}
    feedback.write(store, feedback.TAGGED, "1", [later, told("b") | {"told": NOW + timedelta(seconds=1)}])
    feedback.write(store, feedback.TAGGED, "2", [told("a"), told("b") | {"tags": "java"}])
    assert feedback.fetch(store, tmp_path / "out") == feedback.Fetched(2, earlier=2, without_text=0, forgotten=0)
    assert pq.read_table(tmp_path / "out" / FEEDBACK_FILE).to_pylist() == [
        {"post": "text of a", "tags": "java"},
        {"post": "text of b", "tags": "css"},
    ]


def test_forgotten_posts_that_are_not_removed_yet_are_counted_and_not_fetched(tmp_path, caplog):
    store = filled(str(tmp_path / "store"))
    forgotten.note(store, {"one"}, None)
    fetched = feedback.fetch(store, tmp_path / "out")
    assert fetched == feedback.Fetched(3, earlier=0, without_text=0, forgotten=1)
    assert "1 tags are left out, because their posts are forgotten: `tagger gc` removes them" in caplog.text
    before = feedback.fingerprint(store)
    collect(store)
    feedback.forget(store, ["two"])
    assert feedback.fingerprint(store) != before


def test_a_file_with_too_much_text_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    store = of_earlier_release(str(tmp_path))
    monkeypatch.setattr(feedback_files, "MOST_TEXT", 100)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(CorruptArtifact, match=r"b\.parquet has [\d,]+ bytes when it is decoded, more than 100"):
        feedback.fingerprint(store)
    monkeypatch.setattr(feedback_files, "MOST_BYTES", 100)
    with pytest.raises(CorruptArtifact, match=r"b\.parquet has [\d,]+ bytes, and no file there"):
        feedback.fingerprint(store)


def test_what_a_full_disk_left_is_written_by_the_next_try(tmp_path):
    class Full(Store):
        writes = 0

        def write(self, *args: object) -> None:
            self.refuse()
            super().write(*args)

        def write_bytes(self, *args: object) -> None:
            self.refuse()
            super().write_bytes(*args)

        def refuse(self) -> None:
            self.writes += 1
            if self.writes == self.most:
                raise Unavailable("full")

    for most in (1, 2, 3):
        store = Full(str(tmp_path / str(most)))
        store.most = most
        with pytest.raises(Unavailable):
            feedback.write(store, feedback.ASKED, "a", [row("one")])
        read(store)
        feedback.write(store, feedback.ASKED, "a", [row("one")])
        assert [each["id"] for each in feedback.asked(store, "a")] == ["one.0"]
        assert faults(store) == []
