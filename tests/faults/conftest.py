"""Fixtures for killing processes at any write to a store on a disk or on S3."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import SAVED_MODEL, path_of
from pipeline.store.objects import Store
from pipeline.upkeep.verify import verify

CHILD = Path(__file__).with_name("stage_that_dies.py")
ROOT = Path(__file__).parents[2]
NEVER = 10_000


@dataclass(frozen=True)
class Place:
    """Where the tests make stores: in this folder or on S3, with the environment variables to reach it.

    Processes are killed at each `step`-th write, in the second way beginning with the second one.
    """

    name: str
    folder: Path | None
    environment: dict[str, str]
    ways: tuple[str, ...]
    step: int = 1
    forks: list[subprocess.Popen[str]] = field(default_factory=list)

    def store(self, name):
        """A new store. On S3 it has a bucket of its own, because the server lists a part by reading all."""
        if self.folder:
            return Store(str(self.folder / name))
        bucket = f"{self.name}-{name}".replace("_", "-")
        made = Store(f"s3://{bucket}/store")
        made.fs.mkdir(bucket)
        return made


@pytest.fixture(scope="module")
def artifacts(finished_run, tmp_path_factory):
    """A folder with the files that each stage of a real run left, and its summary."""
    folder = tmp_path_factory.mktemp("artifacts")
    for stage, manifest in finished_run.manifests().items():
        finished_run.files.fetch(manifest, folder / stage)
        (folder / f"{stage}.json").write_text(json.dumps(manifest.summary))
    return folder


@pytest.fixture(
    scope="module",
    params=["local-some", "s3-some", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("local", "s3"))],
)
def place(request, tmp_path_factory):
    some = request.param.endswith("-some")
    if request.param.startswith("local"):
        step = 4 if some else 1
        return Place(request.param, tmp_path_factory.mktemp("stores"), {}, ("before", "halfway"), step)
    # One put is whole or absent on S3.
    step = 12 if some else 1
    return Place(request.param, None, request.getfixturevalue("s3"), ("before",), step)


@pytest.fixture(scope="module")
def forks(place):
    """Start the process whose forks are killed."""
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
    return place.name


def is_killed(place, store, stage, artifacts, last, how, *shard):
    """Whether a fork that does the stage was killed, at its write number `last`."""
    process = place.forks[-1]
    process.stdin.write(json.dumps([store.url, "a", stage, str(artifacts), last, how, *shard]) + "\n")
    process.stdin.flush()
    status = int(process.stdout.readline())
    assert status in {0, -signal.SIGKILL}
    return status == -signal.SIGKILL


def assert_nothing_is_half(store):
    """Everything a reader can find is complete: the files of each manifest, each version, and the live model."""
    faults = [fault for fault in verify(store).faults if not fault.startswith("live version")]
    assert [fault for fault in faults if "/models/" not in fault] == []
    registry = Registry(store)
    for card in registry.cards():
        found = store.sizes(path_of(card.version))
        assert SAVED_MODEL not in found or found == {name: entry.bytes for name, entry in card.files.items()}
