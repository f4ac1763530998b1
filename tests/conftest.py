"""Small runs to look at: made once, and copied by the tests that change them."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.data import posts
from pipeline.execution.runner import run_stage
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import SAVED_MODEL
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run

REAL_POSTS = Path(__file__).parents[2] / "shared" / "data" / "stack-overflow-16k.csv"
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


def write_posts(folder: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """What ingest leaves of these posts."""
    texts, tags = zip(*rows, strict=True)
    numbers = pa.array(range(1, len(texts) + 1), pa.int64())
    batch = pa.RecordBatch.from_arrays([pa.array(texts), pa.array(tags), numbers], schema=posts.POSTS)
    with posts.Writer(folder, "posts") as writer:
        writer.write(batch)
    return folder


def write_csv(path: Path, rows: Iterable[tuple[str, str]], header: tuple[str, str] = ("post", "tags")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TAGGER_")]:
        monkeypatch.delenv(name)


def small_version(store: Store, version: int, folder: Path, *, created: datetime, publish: bool = True) -> Run:
    """A run that did ingest and export, the latter twice, each a file of few bytes, and published the version."""
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
            path=run.attempt(manifest),
            checkpoint=str(version),
            accuracy=0.9,
            macro_f1=0.9,
            tags=2,
            invented=False,
            published=created.isoformat(),
            files=manifest.files,
        )
        Registry(store).publish(card, beside=Registry(store).live())
    return run


@pytest.fixture
def tiny_posts(tmp_path: Path) -> Path:
    return write_posts(tmp_path / "ingest", TINY)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    """A run that has begun, on a source of TINY posts, in a store under tmp_path."""

    def begin(name: str = "a", **values: object) -> Run:
        source = write_csv(tmp_path / "posts.csv", TINY)
        tiny = {"source": str(source), "train_fraction": 0.75, "vocabulary_size": 20, "hidden_units": 8, "epochs": 60}
        run = Run(Store(str(tmp_path / "store")), name)
        run.begin(Settings.of(tiny | {"batch_size": 2, "min_accuracy": 0.5} | values), CREATED)
        return run

    return begin


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All six stages on 2,000 invented posts; not to be changed."""
    run = Run(Store(str(tmp_path_factory.mktemp("finished") / "store")), "finished")
    run.begin(Settings.of({"source": "sample://posts?rows=2000&seed=5", "epochs": 3}), CREATED)
    for stage in STAGES:
        run_stage(stage, run)
    return run


@pytest.fixture(scope="session")
def real_posts() -> Path:
    if not REAL_POSTS.exists():
        pytest.skip("the 16,000 real posts are not beside this checkout (../shared/data/stack-overflow-16k.csv)")
    return REAL_POSTS


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server over HTTP with an empty bucket `stores`; the variables by which a process finds it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
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
    server.stop()
