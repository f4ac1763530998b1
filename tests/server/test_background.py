"""What runs beside the requests goes on whatever goes wrong, and a server in which it does not is not ready."""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import pytest

from pipeline.errors import BadInput, CorruptArtifact, Unavailable
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.server import app, recording, shadow
from pipeline.server.app import Server
from pipeline.server.background import Background
from pipeline.server.guard import ACCESS_LOG
from pipeline.server.listen import Listen
from pipeline.server.loaded import Loaded
from pipeline.server.recording import FLUSH, Recorder
from pipeline.server.shadow import ASK, NOTE, Shadow
from pipeline.server.versions import FOLLOW
from pipeline.store.objects import Store
from tests.server.conftest import wait_for

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")
ERRORS = [
    FULL,
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    MemoryError(),
    ZeroDivisionError("two\nlines"),
    RecursionError(),
    asyncio.CancelledError(),
    TimeoutError(),
    StopAsyncIteration(),
    Unavailable("the store does not answer"),
    CorruptArtifact("a file was changed"),
    BadInput("a key cannot be read"),
]
kinds = pytest.mark.parametrize(
    "error", ERRORS, ids=lambda error: f"{type(error).__name__}{getattr(error, 'errno', '')}"
)


class Failing:
    """Raises the error a few times, and then does what it stands for."""

    def __init__(self, error: BaseException, then: Callable[..., object], times: int = 3) -> None:
        self.error, self.then, self.times, self.calls = error, then, times, 0

    def __call__(self, *given: object, **named: object) -> object:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return self.then(*given, **named)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def answering(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """The server with all of its tasks, asked without a socket."""
    async with (
        server._lifespan(server._router()),
        httpx.AsyncClient(transport=httpx.ASGITransport(server.app)) as client,
    ):
        yield client


def counted(server: Server, task: str) -> float:
    return server.metrics.registry.get_sample_value("tagger_background_failures_total", {"task": task}) or 0.0


def logged(caplog: pytest.LogCaptureFixture, task: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{task}: ")]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(app, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(app, "NOTE_SECONDS", 0.01)
    monkeypatch.setattr(recording, "SECONDS", 0.01)


def server_of(store: Store, **given: object) -> Server:
    return Server(Registry(store), Listen(grpc_port=None, access_log=None), **given)


def scenario(what: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(what(), 120))


@kinds
def test_the_registry_is_followed_after_any_error(tmp_path, monkeypatch, caplog, error):
    server = server_of(Store(str(tmp_path)))
    monkeypatch.setattr(server.versions.registry, "live", live := Failing(error, lambda: None))

    async def run() -> None:
        async with answering(server) as client:
            await until(lambda: live.calls > 5)
            assert (await client.get("http://a/readyz")).json() == {"error": NO_VERSION}

    scenario(run)
    assert counted(server, FOLLOW) == 3
    [line] = logged(caplog, FOLLOW)
    assert "\n" not in line


NO_VERSION = "no version is live yet: `tagger run` publishes one"


@kinds
def test_recorded_posts_are_written_after_any_error(tmp_path, monkeypatch, caplog, error):
    recorder = Recorder(Store(str(tmp_path)), 1.0, keep_text=True)

    async def nothing() -> None:
        pass

    flush = Failing(error, nothing)
    monkeypatch.setattr(recorder, "flush", flush)
    server = server_of(Store(str(tmp_path)), recorder=recorder)

    async def run() -> None:
        async with answering(server):
            await until(lambda: flush.calls > 5)

    scenario(run)
    assert counted(server, FLUSH) == 3
    assert len(logged(caplog, FLUSH)) == 1


@kinds
def test_the_shadows_agreement_is_noted_after_any_error_and_nothing_counted_is_lost(
    finished_run, tmp_path, monkeypatch, caplog, error
):
    noted = list[object]()
    append = Failing(error, lambda make: noted.append(make(1, "2026-01-01T00:00:00Z", None)))
    monkeypatch.setattr(shadow, "Series", lambda store: type("Series", (), {"append": staticmethod(append)}))
    monkeypatch.setattr(Loaded, "of", lambda registry, version: Silent())
    server = server_of(Store(str(tmp_path)), shadow=7)
    server.versions.shadow._count(3, 60, 50)

    async def run() -> None:
        async with answering(server):
            await until(lambda: noted)

    scenario(run)
    assert [(each.live, each.posts, each.same) for each in noted] == [(3, 60, 50)]
    assert counted(server, NOTE) == 3
    assert len(logged(caplog, NOTE)) == 1


class Silent:
    """Stands for a version that is never asked."""

    version = 7

    def __init__(self) -> None:
        self.model = SimpleNamespace()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("step", ["begins", "computes"])
@pytest.mark.parametrize("error", [each for each in ERRORS if isinstance(each, Exception)], ids=repr)
def test_an_answer_does_not_depend_on_the_shadow(error, step, caplog, monkeypatch):
    results, failures = list[tuple[str, int]](), list[str]()
    version = Silent()
    version.model.answer = Failing(error, lambda posts: None, times=9)
    monkeypatch.setattr(Loaded, "of", lambda registry, number: version)
    background = Background(failures.append)
    asked = Shadow(None, 7, lambda result, posts: results.append((result, posts)), background.failed)
    if step == "begins":
        asked._thread.submit = Failing(error, asked._thread.submit, times=1)
    for _ in range(2):
        asked.ask([b"a"], ["x"], 3)
        wait_for("it is done", lambda: not asked._busy.is_set())
    asked.close()
    assert set(failures) == {ASK}
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


@pytest.mark.parametrize("error", [FULL, MemoryError(), CorruptArtifact("a file was changed")], ids=repr)
def test_a_version_that_could_not_be_loaded_is_told_and_the_next_one_is(two_versions, monkeypatch, caplog, error):
    """As after a moment in which the disk of the model cache was full."""
    registry = Registry(two_versions)
    newest, first = [card.version for card in registry.cards()]
    server = server_of(two_versions)

    async def run() -> None:
        async with answering(server) as client:
            assert (await client.get("http://a/readyz")).text == f"version {newest} answers\n"
            monkeypatch.setattr(model_cache, "TemporaryDirectory", Failing(error, None, times=99))
            registry.promote(first, "while there is no room")
            await until(lambda: server.versions.states.get(first) and server.versions.states[first].state == "END")
            assert (await client.get("http://a/readyz")).text == f"version {newest} answers\n"
            monkeypatch.undo()
            registry.promote(newest, "back")
            registry.promote(first, "now there is room")
            server.versions._tried.clear()  # as after AGAIN_SECONDS
            await until(lambda: server.versions.live.version == first)
            assert (await client.get("http://a/readyz")).text == f"version {first} answers\n"

    scenario(run)
    [line] = logged(caplog, FOLLOW)
    assert f"version {first} is live in the registry, but is not served: version {newest} stays (" in line
    assert counted(server, FOLLOW) == 1


def test_a_cache_without_room_is_said_to_have_none(finished_run, monkeypatch):
    monkeypatch.setattr(model_cache, "TemporaryDirectory", Failing(FULL, None, times=99))
    with pytest.raises(Unavailable, match=r"cannot be kept in /.*No space left on device.*: make room there"):
        Loaded.of(Registry(finished_run.store), None)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_requests_are_answered_where_the_access_log_cannot_be_written(tmp_path, caplog):
    with open("/dev/full", "w", buffering=1) as full:
        server = Server(Registry(Store(str(tmp_path))), Listen(grpc_port=None, access_log=full))

        async def run() -> None:
            async with answering(server) as client:
                for _ in range(3):
                    assert (await client.get("http://a/v2")).is_success
                server.app._flush()

        scenario(run)
        with contextlib.suppress(OSError):
            full.close()
    assert counted(server, ACCESS_LOG) >= 3
    assert len(logged(caplog, ACCESS_LOG)) == 1
    assert {record.exc_info for record in caplog.records} == {None}


@pytest.mark.parametrize("path", ["/readyz", "/v2/health/ready", "/v2/models/stackoverflow_tagger/ready", "/health"])
@pytest.mark.parametrize("task", [FOLLOW, FLUSH])
def test_a_server_is_not_ready_once_a_task_has_ended(tmp_path, task, path):
    store = Store(str(tmp_path))
    listen = Listen(grpc_port=None, access_log=None, health_route="/health")
    server = Server(Registry(store), listen, recorder=Recorder(store, 1.0, keep_text=False))

    async def run() -> None:
        async with answering(server) as client:
            server.background._tasks[task].cancel()
            await until(server.background._tasks[task].done)
            answer = await client.get(f"http://a{path}")
            assert (answer.status_code, answer.json()) == (
                503,
                {"error": f"the server's task that {task} has ended: start the server again"},
            )

    scenario(run)


def test_a_step_that_has_begun_is_completed_when_the_server_ends():
    done = list[str]()

    async def run() -> None:
        begun = asyncio.Event()

        async def step() -> None:
            begun.set()
            await asyncio.sleep(0.1)
            done.append("whole")

        background = Background(done.append)
        async with background.repeating("steps", 0.0, step):
            await begun.wait()
        background.refuse_dead()

    scenario(run)
    assert set(done) == {"whole"}


def test_the_same_failure_is_logged_once_until_a_step_succeeds(caplog):
    failures = list[str]()
    background = Background(failures.append)

    async def fail(error: Exception) -> None:
        raise error

    async def run() -> None:
        for error in (FULL, FULL, MemoryError()):
            await background.attempt("steps", lambda error=error: fail(error))
        await background.attempt("steps", lambda: asyncio.sleep(0))
        await background.attempt("steps", lambda: fail(MemoryError()))

    scenario(run)
    assert failures == ["steps"] * 4
    assert [record.getMessage() for record in caplog.records] == [
        "steps: OSError: [Errno 28] No space left on device: '/somewhere'",
        "steps: MemoryError: ",
        "steps: MemoryError: ",
    ]
