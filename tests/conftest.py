"""Fixtures and helpers of all tests: small posts, small runs, and an S3 server."""

import csv
import fcntl
import os
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest

from pipeline.data import posts
from pipeline.registry import model_cache
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import SAVED_MODEL
from pipeline.run.runner import run_stage
from pipeline.settings import Deployment, Settings
from pipeline.sources.source import Source
from pipeline.stages import export
from pipeline.stages.context import Context
from pipeline.stages.plan import STAGES
from pipeline.store.manifest import ATTEMPT
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.fresh_process import Forker
from tests.slow import SLOW

REAL_POSTS = Path(__file__).parents[2] / "shared" / "data" / "stack-overflow-16k.csv"
Once = Callable[[str, Callable[[Path], object]], Path]
CREATED = datetime(2026, 1, 5, 6, 7, 8, tzinfo=UTC)

TINY = [
    ("how to open a file in python", "python"),
    ("java class not found", "java"),
    ("python list of lists", "python"),
    ("java thread and java lock", "java"),
    ("print a python dict", "python"),
    ("java string compare", "java"),
    ("python file read", "python"),
    ("java class path", "java"),
]
"""Eight posts of two tags; with train_fraction 0.75 the first six train."""


PACKAGES = {
    "chromium": "chromium",
    "initdb": "postgresql",
    "postgres": "postgresql",
    "psql": "postgresql",
    "redis-server": "redis-server",
}
"""The programs that some tests start, and Debian's packages that hold them."""

QUICK = "not slow and not thorough"
"""The marks by which `make quick` chooses its tests."""


HOSTILE = '</blockquote><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }} \x1b[31m & "quoted"'
"""A post's text that is harmless only where it stays text."""


def programs(*names: str) -> dict[str, str]:
    """Where these programs are, also those that Debian keeps off the path; skips the test where one is missing."""
    debian = {path.name: str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/*"))}
    found = {name: debian.get(name) or shutil.which(name) for name in names}
    missing = list(dict.fromkeys(PACKAGES[name] for name in names if not found[name]))
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (apt-get install {' '.join(missing)})")
    return {name: path for name, path in found.items() if path}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked with `needs` before anything is started for it."""
    for mark in item.iter_markers("needs"):
        programs(*mark.args)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Slow files are not even imported where they are not asked for."""
    return True if config.option.markexpr == QUICK and collection_path in _slow() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = _slow()
    for item in items:
        if item.path in slow:
            item.add_marker("slow")
    items.sort(key=lambda item: slow.get(item.path, len(slow)))


@cache
def _slow() -> dict[Path, int]:
    """Each slow file's place in the order."""
    paths = [Path(__file__).parent / name for name in SLOW]
    assert [path for path in paths if not path.is_file()] == []
    return {path: place for place, path in enumerate(paths)}


@pytest.fixture(scope="session", autouse=True)
def forker() -> Iterator[None]:
    """Let export check its models in processes that have imported TensorFlow already, save some of test_export.py."""
    forker = Forker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "subprocess", forker)
        yield
    forker.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Say last of all, in one line, what was skipped and what it needs."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal and terminal.stats.get("skipped"):
        terminal.write_line(skipped(report.longrepr[2] for report in terminal.stats["skipped"]))


def skipped(reasons: Iterable[str]) -> str:
    """The line about tests that were skipped for these reasons, each of which begins with `needs`."""
    counts = Counter(reason.removeprefix("Skipped: ").removeprefix("needs ") for reason in reasons)
    what = (f"{count} {'tests need' if count > 1 else 'test needs'} {reason}" for reason, count in counts.most_common())
    return f"skipped: {', '.join(what)}"


def write_posts(folder: Path, rows: Iterable[tuple[str, str]], train_fraction: float = 0.75) -> Path:
    """Write these posts as ingest does: the first are train posts, the rest test posts."""
    texts, tags = zip(*rows, strict=True)
    numbers = pa.array(range(1, len(texts) + 1), pa.int64())
    batch = pa.RecordBatch.from_arrays([pa.array(texts), pa.array(tags), numbers], schema=posts.POSTS)
    with posts.Writer(folder, "posts") as writer:
        writer.write(batch)
    posts.divide(folder, posts.first_test_post(len(texts), train_fraction))
    posts.cut_validation(folder, 0)
    return folder


def context_of(settings: Settings, **deployment: object) -> Context:
    """The context of a stage in a run with these settings."""
    return Context(Source.parse(settings.source), Deployment.of(deployment))


def inputs_of(run: Run, folder: Path) -> dict[str, Path]:
    inputs = {}
    for name in ("ingest", "fit_vocabulary", "vectorize", "train"):
        run.files.fetch(run.manifest(name), folder / name)
        inputs[name] = folder / name
    return inputs


def write_csv(path: Path, rows: Iterable[tuple[str, str]], header: tuple[str, str] = ("post", "tags")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def free_port() -> int:
    """A port of the loopback interface on which nothing listens, and which no outgoing connection gets meanwhile.

    Linux gives those the ports from 32,768.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file under a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def no_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TAGGER_")]:
        monkeypatch.delenv(name)


def attempts(run: Run, stage: str) -> list[str]:
    """The names of the stage's attempts that have a folder, complete or not."""
    return [name for name in run.store.names(f"{run.path}/{stage}") if ATTEMPT.fullmatch(name)]


def small_version(store: Store, version: int, folder: Path, *, created: datetime, publish: bool = True) -> Run:
    """A run whose stages left tiny files (ingest once, export twice), and which published the version."""
    run = Run(store, f"run{version}")
    run.begin(Settings(), created)
    out = folder / f"out{version}"
    out.mkdir(parents=True, exist_ok=True)
    (out / SAVED_MODEL).write_text(f"graph {version}")
    (out / "variables").write_text(f"weights {version}")
    for stage in ("ingest", "export", "export"):
        manifest = run.commit(stage, out, inputs={}, summary={"rows": 1}, seconds=1, peak_mib=None)
    if publish:
        card = Card(
            version=version,
            run=run.name,
            data=created.isoformat(),
            path=manifest.path,
            checkpoint=str(version),
            accuracy=0.9,
            macro_f1=0.9,
            tags=2,
            synthetic=False,
            published=created.isoformat(),
            files=manifest.files,
        )
        Registry(store).publish(card, compared_with=Registry(store).live())
    return run


@pytest.fixture(autouse=True)
def own_model_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give each test a model cache of its own."""
    monkeypatch.setattr(model_cache, "cache_folder", cache(lambda: tmp_path_factory.mktemp("models")))


@pytest.fixture
def tiny_posts(tmp_path: Path) -> Path:
    return write_posts(tmp_path / "ingest", TINY)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    """A function that begins a run on the TINY posts, in a store under tmp_path."""

    return partial(begin_tiny, tmp_path)


def begin_tiny(folder: Path, name: str = "a", **values: object) -> Run:
    """Begin a run on TINY posts, in a store in this folder."""
    source = write_csv(folder / "posts.csv", TINY)
    tiny = {"source": str(source), "train_fraction": 0.75, "vocabulary_size": 20, "hidden_units": 8, "epochs": 60}
    run = Run(Store(str(folder / "store")), name)
    run.begin(Settings.of(tiny | {"batch_size": 2, "min_accuracy": 0.5} | values), CREATED)
    return run


@pytest.fixture
def first(once: Once, tmp_path: Path) -> Run:
    """A run of all six stages on TINY posts, whose version is live; a copy, which may be changed."""

    def make(folder: Path) -> None:
        run = begin_tiny(folder, "first")
        for stage in STAGES:
            run_stage(stage, run)

    shutil.copytree(once("first", make), tmp_path, dirs_exist_ok=True)
    return Run(Store(str(tmp_path / "store")), "first")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder once for all test processes of a session, and returns it; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        made, whole = base / name, base / f"{name}.whole"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir()
                make(made)
                whole.touch()
        return made

    return folder


@pytest.fixture(scope="session")
def finished_run(once: Once) -> Run:
    """All six stages on 2,000 synthetic posts; not to be changed."""

    def run_in(folder: Path) -> Run:
        return Run(Store(str(folder / "store")), "finished")

    def make(folder: Path) -> None:
        run = run_in(folder)
        few = {"epochs": 3, "hidden_units": 64, "learning_rate": 0.01}
        run.begin(Settings.of({"source": "sample://posts?rows=2000&seed=5"} | few), CREATED)
        for stage in STAGES:
            run_stage(stage, run)

    return run_in(once("finished", make))


@pytest.fixture(scope="session")
def two_runs(once: Once, finished_run: Run) -> Store:
    """A store with the finished run, and `second`, evaluated on the same posts after one more epoch; read only."""

    def make(folder: Path) -> None:
        shutil.copytree(finished_run.store.url, folder / "store")
        run = Run(Store(str(folder / "store")), "second")
        changed = {"epochs": 4, "max_regression": 1}
        run.begin(finished_run.existing().settings.model_copy(update=changed), CREATED.replace(day=12))
        for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"):
            run_stage(stage, run)

    return Store(str(once("two", make) / "store"))


@pytest.fixture(scope="session")
def hostile_run(once: Once) -> Run:
    """The first five stages on a few posts and tags that would be scripts if a page took them for HTML."""

    def run_in(folder: Path) -> Run:
        return Run(Store(str(folder / "store")), "hostile")

    def make(folder: Path) -> None:
        rows = [(f"{text} {HOSTILE}", f"{tag}<b>") for text, tag in [*TINY, ("print a java dict", "python")] * 4]
        source = write_csv(folder / "posts.csv", rows)
        tiny = {"source": str(source), "train_fraction": 0.75, "vocabulary_size": 4, "hidden_units": 2, "epochs": 1}
        run = run_in(folder)
        run.begin(Settings.of(tiny | {"min_accuracy": 0, "fail_duplicates": 1, "fail_leaked": 1}), CREATED)
        for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"):
            run_stage(stage, run)

    return run_in(once("hostile", make))


@pytest.fixture(scope="session")
def real_posts() -> Path:
    if not REAL_POSTS.exists():
        pytest.skip("needs the 16,000 real posts beside this checkout (../shared/data/stack-overflow-16k.csv)")
    return REAL_POSTS


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """The environment variables of an S3 server over HTTP, which has the empty bucket `stores`."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    # Not moto's own server, which goes through all of AWS's services for each request to find the one that is meant.
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=MotoRequestHandler)
    Thread(target=server.serve_forever, daemon=True).start()
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    Store("s3://stores").fs.mkdir("stores")
    yield variables
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.shutdown()
