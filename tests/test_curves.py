"""`make tensorboard`, asked over HTTP as its page asks it."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import free_port
from tools import curves

ROOT = Path(__file__).parents[1]


def asked(port: int, path: str, **query: str) -> object:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{port}/data/{path}", params=query, trust_env=False, timeout=30)
            if answer.is_success and answer.json():
                return answer.json()
        time.sleep(0.5)
    pytest.fail("TensorBoard shows nothing within 120 s")


def test_tensorboard_shows_each_run_by_its_name(two_runs):
    port = free_port()
    tensorboard = subprocess.Popen(
        [sys.executable, "-m", "tools.curves", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"TAGGER_STORE": two_runs.url},
        start_new_session=True,
    )
    try:
        tags = asked(port, "plugin/scalars/tags")
        assert set(tags) == {"finished", "second"}
        points = asked(port, "plugin/scalars/scalars", run="second", tag="epoch/training_loss")
    finally:
        os.killpg(tensorboard.pid, 15)
        tensorboard.wait()
    curve = Run(two_runs, "second").manifest("train").summary["curve"]
    assert [value for _, _, value in points] == pytest.approx([point["training_loss"] for point in curve], rel=1e-6)


def test_a_damaged_run_is_left_out_with_a_line(two_runs, tmp_path, capsys):
    shutil.copytree(two_runs.url, tmp_path / "store")
    [damaged] = Path(tmp_path, "store", "runs", "second", "train").rglob("*tfevents*")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert curves.collect(Store(str(tmp_path / "store")), tmp_path / "shown") == ["finished"]
    assert "run second is left out: " in capsys.readouterr().err


@pytest.mark.parametrize("has_runs", [True, False])
def test_a_store_without_a_trained_run_is_one_sentence(tmp_path, monkeypatch, capsys, has_runs):
    if has_runs:
        (tmp_path / "store" / "runs" / "begun").mkdir(parents=True)
    monkeypatch.setenv("TAGGER_STORE", str(tmp_path / "store"))
    assert curves.main() == 2
    assert capsys.readouterr().err.count("\n") == 1
