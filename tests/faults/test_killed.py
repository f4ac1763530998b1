"""A process killed at any write leaves a store in which no reader sees half an artifact, and the next try finishes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import posts
from pipeline.registry import Registry
from pipeline.retention import removals
from pipeline.runs import Run
from pipeline.settings import Settings
from pipeline.stages import STAGES
from pipeline.store import Store
from pipeline.verify import verify
from pipeline.watched import SAVED_MODEL, path_of
from tests.conftest import CREATED, small_version

CHILD = Path(__file__).with_name("stage_that_dies.py")
ROOT = Path(__file__).parents[2]
NEVER = 10_000


@dataclass(frozen=True)
class Place:
    """Where stores are made: a URL that ends in a slash, and the environment that a process needs to reach it."""

    url: str
    environment: dict[str, str]
    ways: tuple[str, ...]
    forks: list[subprocess.Popen[str]] = field(default_factory=list)


@pytest.fixture(scope="module")
def artifacts(finished_run, tmp_path_factory):
    """What each stage of a real run left, and its summary."""
    folder = tmp_path_factory.mktemp("artifacts")
    for stage, manifest in finished_run.manifests().items():
        finished_run.fetch(manifest, folder / stage)
        (folder / f"{stage}.json").write_text(json.dumps(manifest.summary))
    return folder


@pytest.fixture(scope="module", params=["local", "s3"])
def place(request, tmp_path_factory):
    if request.param == "local":
        return Place(f"{tmp_path_factory.mktemp('stores')}/", {}, ("before", "halfway"))
    return Place("s3://stores/", request.getfixturevalue("s3"), ("before",))  # one put is whole or absent on S3


@pytest.fixture(scope="module", autouse=True)
def forks(place):
    """The process whose forks are killed."""
    with subprocess.Popen(
        [sys.executable, CHILD],
        env=os.environ | place.environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        place.forks.append(process)
        yield
        process.stdin.close()


def kind(place):
    return "s3" if "://" in place.url else "local"


def start(place, store, stage, artifacts, last, how, *part):
    process = place.forks[-1]
    process.stdin.write(json.dumps([store.url, "a", stage, str(artifacts), last, how, *part]) + "\n")
    process.stdin.flush()
    status = int(process.stdout.readline())
    assert status in {0, -signal.SIGKILL}
    return status == -signal.SIGKILL


def prepared(place, name, finished_run, artifacts, stage, **values):
    """A new store in which every stage before this one is complete."""
    store = Store(place.url + name)
    run = Run(store, "a")
    run.begin(finished_run.existing().settings.model_copy(update=values), CREATED)
    for earlier in list(STAGES)[: list(STAGES).index(stage)]:
        inputs = {need: run.manifest(need) for need in STAGES[earlier].needs}
        summary = json.loads((artifacts / f"{earlier}.json").read_text())
        run.commit(earlier, artifacts / earlier, inputs=inputs, summary=summary, seconds=1, peak_mib=None)
    return store, run


def assert_nothing_is_half(store):
    """Whatever a reader can find is whole: each manifest's files, each version, and the live model in its folder."""
    faults = [fault for fault in verify(store).faults if not fault.startswith("live version")]
    assert [fault for fault in faults if "/models/" not in fault] == []
    registry = Registry(store)
    for card in registry.cards():
        found = store.sizes(path_of(card.version))
        assert SAVED_MODEL not in found or found == {name: entry.bytes for name, entry in card.files.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_every_write(place, stage, finished_run, artifacts):
    tried = 0
    for how in place.ways:
        for last in range(1, NEVER):
            store, run = prepared(place, f"{stage}-{how}-{last}", finished_run, artifacts, stage)
            if not start(place, store, stage, artifacts, last, how):
                break
            tried += 1
            assert_nothing_is_half(store)
            assert not start(place, store, stage, artifacts, NEVER, how), "the next try finishes"
            assert run.manifest(stage).digest == finished_run.manifest(stage).digest
            assert verify(store).faults == []
            if stage == "export":
                assert Registry(store).live() == run.existing().version
                assert len(Registry(store).events()) == 1
        assert last > 1
    assert tried >= len(place.ways) * (len(finished_run.manifest(stage).files) + 1)
    print(f"{kind(place)} {stage}: {tried} kills")  # noqa: T201


def lives_now(store):
    return Registry(store).live()


AFTER = {
    "begin": lambda store: Run(store, "new").record() is not None,
    "promote": lambda store: lives_now(store) == 1,
    "rollback": lambda store: lives_now(store) == 2,
    "gc": lambda store: removals(store, Settings.of({"keep_versions": 0, "keep_days": 0})) == [],
}
"""What holds once a deed is done, and of a store with versions 1, 2 and 3."""


@pytest.mark.parametrize("deed", AFTER)
def test_what_is_done_by_hand_killed_at_every_write(place, deed, tmp_path):
    tried = 0
    for how in ("before", "halfway"):
        for last in range(1, NEVER):
            store = Store(f"{place.url}{deed}-{how}-{last}")
            for version in (1, 2, 3):
                small_version(store, version, tmp_path, created=CREATED + timedelta(days=version))
            killed = start(place, store, deed, tmp_path, last, how)
            if killed:
                tried += 1
                assert_nothing_is_half(store)
                assert lives_now(store) in {3, {"promote": 1, "rollback": 2}.get(deed, 3)}
                assert not start(place, store, deed, tmp_path, NEVER, how), "the next try finishes"
            assert AFTER[deed](store)
            assert verify(store).faults == []
            assert [event.number for event in Registry(store).events()] == list(
                range(1, len(Registry(store).events()) + 1)
            )
            if not killed:
                break
    assert tried >= 2
    print(f"{kind(place)} {deed}: {tried} kills")  # noqa: T201


def test_a_gate_that_refuses_killed_at_every_write(place, finished_run, artifacts):
    """The evidence is whole or absent, and nothing is published."""
    tried = 0
    for last in range(1, NEVER):
        store, run = prepared(place, f"refused-{last}", finished_run, artifacts, "evaluate")
        if not start(place, store, "evaluate", artifacts, last, "before", "refused"):
            break
        tried += 1
        assert_nothing_is_half(store)
        assert not start(place, store, "evaluate", artifacts, NEVER, "before", "refused")
        assert run.manifest("evaluate").digest == finished_run.manifest("evaluate").digest
        assert verify(store).faults == []
        assert Registry(store).events() == []
    assert tried > len(finished_run.manifest("evaluate").files)
    print(f"{kind(place)} evaluate, refused: {tried} kills")  # noqa: T201


def test_parts_killed_at_every_write(place, finished_run, artifacts):
    """A part cut off is done again, and nothing is gathered of half of them."""
    stage, how, tried = "fit_vocabulary", "before", 0
    cut = artifacts.parent / "cut"
    if not cut.exists():
        shutil.copytree(artifacts, cut)
        posts.cut(cut / "ingest", "posts", 2)
    for last in range(1, NEVER):
        store, run = prepared(place, f"parts-{last}", finished_run, cut, stage, shards=2)
        killed = start(place, store, stage, cut, last, how, "1")
        assert_nothing_is_half(store)
        if killed:
            tried += 1
            assert not start(place, store, stage, cut, NEVER, how, "1")
        assert not start(place, store, stage, cut, NEVER, how, "0")
        assert not start(place, store, stage, cut, NEVER, how)
        assert run.manifest(stage).digest == finished_run.manifest(stage).digest
        assert verify(store).faults == []
        if not killed:
            break
    assert tried >= 2, "the part's file, and the document that names it"
