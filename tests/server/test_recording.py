"""The recorder: its memory is bounded, what it promised it writes, and its ids cannot be guessed."""

import asyncio
import re
import threading
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadInput, Forbidden, Unavailable
from pipeline.published.answers import Answers
from pipeline.server import record_buffer
from pipeline.server.errors import Refused
from pipeline.server.record_buffer import BYTES, FILE_BYTES, ROWS
from pipeline.server.recording import Recorder
from pipeline.store import feedback, signatures
from pipeline.store.objects import Store
from tests.server.test_forger import new_key


class Live:
    """The version that answers."""

    labels = ("css", "java")
    limits = None

    def named(self) -> SimpleNamespace:
        return SimpleNamespace(model=self)


class Request:
    """A POST of the right tag."""

    def __init__(self, name: str, tag: str) -> None:
        self.name, self.tag = name, tag

    async def body(self) -> bytes:
        return f'{{"id": "{self.name}", "tag": "{self.tag}"}}'.encode()


def answer(posts: int) -> Answers:
    half = np.full((posts, 2), 0.5, np.float32)
    return Answers(1, ["css", "java"], ["css"] * posts, half[:, 0], half)


def ask(recorder: Recorder, *posts: str) -> str | None:
    """Record a request, and return its id."""
    return recorder.record([post.encode() for post in posts], answer(len(posts))).get("Tagger-Id")


async def tell(recorder: Recorder, name: str, tag: str = "css") -> int:
    """Tell the right tag, and return the status."""
    try:
        return (await recorder.feedback(Request(name, tag), Live())).status_code
    except Refused as error:
        return error.status


def texts(store: Store, folder: str = feedback.ASKED) -> list[str]:
    files = sorted(Path(store.url, folder).glob("*.parquet"))
    return sorted(text for file in files for text in pq.read_table(file).column("post").to_pylist())


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    made = Recorder(Store(str(tmp_path)), 1, keep_text=True)
    made.counts = Counter()
    made.seen = lambda result, posts: made.counts.update({result: posts})
    return made


class Failing(Store):
    """A store that takes nothing while it is `full`."""

    full = True

    def write_bytes(self, path: str, data: bytes) -> None:
        if self.full:
            raise Unavailable(f"{path} cannot be written (No space left on device)")
        super().write_bytes(path, data)


def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(tmp_path, recorder):
    store = recorder.store = Failing(str(tmp_path))

    async def story() -> None:
        first = ask(recorder, "one", "two")
        assert await tell(recorder, first) == 200
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"^2 recorded posts and 1 tags wait to be written: .*No space left"):
                await recorder.flush()
        assert texts(store) == []
        assert await tell(recorder, f"{first}.1") == 200, "what waits can still be told of"
        ask(recorder, "three")
        store.full = False
        await recorder.close()

    asyncio.run(story())
    assert texts(store) == ["one", "three", "two"]
    assert texts(store, feedback.TAGGED) == ["one", "two"]
    assert recorder.counts == {"written": 3, "tagged": 2}


def test_what_the_store_does_not_take_to_the_end_is_said_to_be_lost(tmp_path, recorder):
    recorder.store = Failing(str(tmp_path))
    ask(recorder, "one", "two")
    with pytest.raises(Unavailable, match="so this is lost: 2 recorded posts and 0 tags wait"):
        asyncio.run(recorder.close())


def test_memory_and_files_are_bounded_in_bytes_and_in_rows(tmp_path, recorder):
    recorder.store = Failing(str(tmp_path))
    tracemalloc.start()
    try:
        names = [ask(recorder, *(f"{number} {at} " + "q w " * 24_000 for at in range(8))) for number in range(100)]
        assert tracemalloc.get_traced_memory()[0] < 1.3 * BYTES
    finally:
        tracemalloc.stop()
    taken = [name for name in names if name]
    assert 0.8 * BYTES < len(taken) * 8 * 96_000 < BYTES
    assert names[: len(taken)] == taken, "what was taken first is kept"
    assert recorder.counts == {"skipped": 8 * (100 - len(taken))}
    recorder.store.full = False
    asyncio.run(recorder.flush())
    files = list((tmp_path / feedback.ASKED).glob("*.parquet"))
    sizes = [sum(map(len, pq.read_table(file).column("post").to_pylist())) for file in files]
    assert sum(sizes) > 0.8 * BYTES
    assert max(sizes) <= FILE_BYTES
    assert {file.stem for file in files} == {name.partition("-")[0] for name in taken}

    while ask(recorder, "short"):
        pass
    assert len(recorder._asked) == ROWS


def test_tags_that_wait_are_bounded_and_none_that_was_taken_is_dropped(tmp_path, recorder, monkeypatch):
    monkeypatch.setattr(record_buffer, "ROWS", 20)

    async def story() -> list[int]:
        name = ask(recorder, "one")
        statuses = [await tell(recorder, name) for _ in range(25)]
        await recorder.close()
        return statuses

    assert Counter(asyncio.run(story())) == {200: 20, 429: 5}
    assert len(texts(recorder.store, feedback.TAGGED)) == 20


def test_nothing_answered_is_lost_by_an_end_within_a_flush(tmp_path, recorder):
    """The end comes while the first file is written, which takes until then; as SIGTERM does."""
    writing, go_on = threading.Event(), threading.Event()

    class Slow(Store):
        def write_bytes(self, path: str, data: bytes) -> None:
            writing.set()
            assert go_on.wait(60)
            super().write_bytes(path, data)

    recorder.store = Slow(str(tmp_path))

    async def story() -> None:
        first = ask(recorder, "one")
        assert await tell(recorder, first) == 200
        flushing = asyncio.create_task(recorder.flush())
        await asyncio.to_thread(writing.wait, 60)
        second = ask(recorder, "two")
        assert await tell(recorder, second) == 200
        assert await tell(recorder, first) == 200
        flushing.cancel()
        ending = asyncio.create_task(recorder.close())
        await asyncio.sleep(0)
        go_on.set()
        await ending

    asyncio.run(story())
    assert texts(recorder.store) == ["one", "two"]
    assert texts(recorder.store, feedback.TAGGED) == ["one", "one", "two"]


def test_a_file_that_cannot_be_written_does_not_hold_back_the_others(recorder, monkeypatch, caplog):
    write = feedback.write

    def fail(store: Store, folder: str, *rest: object) -> None:
        if folder == feedback.ASKED:
            raise ValueError("a bug")
        write(store, folder, *rest)

    monkeypatch.setattr(feedback, "write", fail)

    async def story() -> None:
        assert await tell(recorder, ask(recorder, "one")) == 200
        with pytest.raises(Unavailable, match="1 recorded posts and 0 tags wait to be written: ValueError: a bug"):
            await recorder.flush()

    asyncio.run(story())
    assert texts(recorder.store, feedback.TAGGED) == ["one"]
    assert (len(recorder._asked), len(recorder._tagged)) == (1, 0)


def test_an_id_tells_nothing_of_a_neighbour_s(recorder):
    async def story() -> None:
        mine, other = ask(recorder, "mine"), ask(recorder, "other")
        assert re.fullmatch("[0-9a-f]{32}-[0-9a-f]{32}", mine)
        file, secret = mine.split("-")
        assert other.startswith(f"{file}-")
        guesses = [file, f"{file}-", f"{file}-0", f"{file}-1", f"{file}-1.0", f"{mine}.1", f"{file}-{secret[:-1]}"]
        for _ in range(2):  # in memory, then in the store
            assert {await tell(recorder, guess) for guess in guesses} == {404}
            assert await tell(recorder, mine) == 200
            await recorder.flush()

    asyncio.run(story())
    assert texts(recorder.store, feedback.TAGGED) == ["mine", "mine"]


def of_earlier_release(store: Store, posts: list[str]) -> str:
    """Write a file as earlier releases did, without seal and note, and with ids that count; its name."""
    file = "a" * 32
    (Path(store.url) / feedback.ASKED).mkdir(parents=True)
    columns = {
        "id": [f"{file}-{number}.0" for number in range(len(posts))],
        "at": pa.array([0] * len(posts), pa.timestamp("s", "UTC")),
        "version": [1] * len(posts),
        "post": posts,
        "sha256": ["0"] * len(posts),
        "predicted": ["css"] * len(posts),
        "probability": pa.array([0.5] * len(posts), pa.float32()),
    }
    pq.write_table(pa.table(columns), Path(store.url, feedback.ASKED, f"{file}.parquet"), compression="zstd")
    return file


def test_ids_of_an_earlier_release_are_still_told_of_and_forgotten(recorder):
    file = of_earlier_release(recorder.store, ["zero", "one"])
    assert asyncio.run(tell(recorder, f"{file}-1")) == 200
    assert asyncio.run(tell(recorder, f"{file}-2")) == 404
    assert feedback.forget(recorder.store, [f"{file}-0"]) == 1
    assert texts(recorder.store) == ["one"]
    assert asyncio.run(tell(recorder, f"{file}-1")) == 200


def test_many_who_tell_at_once_take_less_memory_than_the_file(recorder):
    file = of_earlier_release(recorder.store, [f"{at} " + "q w " * 12_000 for at in range(3000)])

    async def story() -> list[int]:
        return await asyncio.gather(*(tell(recorder, f"{file}-{at}") for at in (0, 1, 2, 2999, 3000, 3001)))

    pool, former = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert asyncio.run(story()) == [200] * 4 + [404] * 2
    finally:
        pa.set_memory_pool(former)
    assert 0 < pool.max_memory() < 100 * 2**20


@pytest.mark.parametrize("flushed", [False, True])
def test_a_forgotten_post_is_neither_told_of_nor_written(recorder, flushed):
    async def story() -> None:
        name, other = ask(recorder, "private"), ask(recorder, "other")
        assert await tell(recorder, name) == await tell(recorder, other) == 200
        if flushed:
            await recorder.flush()
            assert await tell(recorder, name) == 200
            assert feedback.forget(recorder.store, [name]) == 2
        else:
            with pytest.raises(BadInput, match="if a server has not written it yet, it will not"):
                feedback.forget(recorder.store, [name])
        assert await tell(recorder, name) == 404
        assert await tell(recorder, other) == 200
        await recorder.close()

    asyncio.run(story())
    assert texts(recorder.store) == ["other"]
    assert set(texts(recorder.store, feedback.TAGGED)) == {"other"}


def test_a_damaged_file_is_a_sentence_for_who_tells_a_tag(recorder):
    async def story() -> Refused:
        name = ask(recorder, "one")
        await recorder.flush()
        [file] = Path(recorder.store.url, feedback.ASKED).glob("*.parquet")
        file.write_bytes(file.read_bytes()[:300])
        with pytest.raises(Refused) as refused:
            await recorder.feedback(Request(name, "css"), Live())
        return refused.value

    error = asyncio.run(story())
    assert error.status == 500
    assert "is not the file that was written there: restore or remove it" in str(error)


def test_with_trusted_keys_and_none_to_sign_with_recording_is_refused_at_once(tmp_path, monkeypatch):
    private, public = new_key(tmp_path, "ours")
    monkeypatch.setenv(signatures.TRUSTED_KEYS, str(public))
    with pytest.raises(Forbidden, match="feedback/asked cannot be written: TAGGER_TRUSTED_KEYS"):
        Recorder(Store(str(tmp_path)), 1, keep_text=True)
    monkeypatch.setenv(signatures.SIGNING_KEY, str(private))
    made = Recorder(Store(str(tmp_path)), 1, keep_text=True)
    name = ask(made, "one")
    asyncio.run(made.flush())
    assert asyncio.run(tell(made, name)) == 200
