"""Temporary folders: removed by their process, and where that was killed, by another one."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.files import remove_abandoned, scratch_folder
from pipeline.settings import Deployment
from pipeline.store.objects import Store
from pipeline.upkeep.gc import collect
from tests.test_house import PACKAGE, ROOT, calls

HOLD = """
import sys
from pipeline.files import scratch_folder
with scratch_folder("test") as folder:
    (folder / "file").write_text("content")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def other():
    """Another process that uses a temporary folder, and the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_folder_is_removed_at_the_end_also_after_an_error():
    folders = []

    def fail():
        with scratch_folder("test") as folder:
            (folder / "file").write_text("content")
            folders.append(folder)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not folders[0].exists()


def test_what_a_killed_process_left_is_removed_and_what_another_uses_is_not(other, own_folder):
    process, folder = other
    remove_abandoned()
    assert (folder / "file").read_text() == "content"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.exists()
    remove_abandoned()
    assert list(own_folder.iterdir()) == []


def test_the_next_process_removes_what_a_killed_one_left(other, own_folder):
    process, _ = other
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([sys.executable, "-c", HOLD], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    assert list(own_folder.iterdir()) == []


def test_garbage_collection_removes_what_a_killed_process_left(other, own_folder, tmp_path):
    process, _ = other
    process.send_signal(signal.SIGKILL)
    process.wait()
    list(collect(Store(str(tmp_path / "store")), Deployment()))
    assert list(own_folder.iterdir()) == []


def test_a_folder_of_an_earlier_release_is_removed_when_it_is_a_day_old(own_folder):
    for name, hours in {"tagger-train-old": 25, "tagger-train-young": 23, "others": 25}.items():
        (own_folder / name).mkdir()
        os.utime(own_folder / name, (time.time() - 3600 * hours,) * 2)
    (own_folder / "tagger-link.locked").symlink_to(own_folder / "others")
    remove_abandoned()
    assert {path.name for path in own_folder.iterdir()} == {"tagger-train-young", "others", "tagger-link.locked"}
    assert (own_folder / "others").is_dir()


ELSEWHERE = {
    "pipeline/files.py": "",
    "pipeline/registry/model_cache.py": "in the cache, on the same disk; it removes what was abandoned",
    "pipeline/run/cluster_worker.py": "in a temporary folder",
    "pipeline/cli/runs.py": "a page that the browser opens after the command has ended",
}


def test_every_temporary_folder_is_made_in_the_same_way():
    makers = {"TemporaryDirectory", "mkdtemp", "mkstemp", "NamedTemporaryFile"}
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "dags").rglob("*.py")]
    assert {path.relative_to(ROOT).as_posix() for path in paths if makers & set(calls(path))} == set(ELSEWHERE)
