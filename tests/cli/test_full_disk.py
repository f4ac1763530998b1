"""A store that is full at any write: each command says what to do for that command, and doing it completes it."""

import errno
import os
import shutil
import sys
from datetime import UTC, datetime

import pytest

from pipeline.cli import app, run_and_exit
from pipeline.registry.registry import Registry
from pipeline.store import feedback, objects, signatures
from pipeline.store.durable import placed
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.verify import verify
from tests.conftest import small_version
from tests.keys import new_key

CREATED = datetime(2026, 1, 5, tzinfo=UTC)
ID = "0" * 32 + "-0.0"


@pytest.fixture
def store(tmp_path):
    """Three versions, the third live; a run to approve; a recorded post; and something for gc to remove."""
    store = Store(str(tmp_path / "store"))
    for number in (1, 2, 3):
        small_version(store, number, tmp_path, created=CREATED.replace(day=number))
    store.remove("models/stackoverflow_tagger/1")
    store.remove("models/stackoverflow_tagger/2")
    run = small_version(store, 4, tmp_path, created=CREATED, publish=False)
    out = tmp_path / "out4"
    run.commit("evaluate", out, inputs={}, summary={"accuracy": 0.9}, seconds=1, peak_mib=None)
    row = {"id": ID, "at": CREATED, "version": 1, "post": "x", "sha256": "x", "predicted": "t", "probability": 0.5}
    feedback.write(store, feedback.ASKED, "0" * 32, [row, row | {"id": ID.replace("-0.0", "-1.0")}])
    return store


COMMANDS = {
    "promote": (["promote", "1", "--reason", "x"], "completes what is missing"),
    "rollback": (["rollback", "--reason", "x"], "goes back no further than this one"),
    "approve": (["approve", "run4", "--evaluated", "SEEN", "--reason", "x"], "give `tagger approve` again"),
    "sign": (["sign"], "give `tagger sign` again"),
    "gc": (["gc"], "goes on where it stopped"),
    "forget": (["forget", ID], "again with the same ids"),
    "tune": (["tune", "a"], "goes on where it stopped"),
}


STEPS = {"sign": 9}
"""Of a command that writes many of the same, only some writes."""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_store_is_told_with_what_helps_this_command(store, tmp_path, monkeypatch, capfd, command, code):
    given, cure = COMMANDS[command]
    there = Store(str(tmp_path / "there"))
    arguments = [word.replace("SEEN", Run(store, "run4").evaluated().attempt) for word in given]
    arguments += ["--store", there.url]
    monkeypatch.setattr(sys, "argv", ["tagger", *arguments])
    monkeypatch.setenv("TAGGER_KEEP_DAYS", "0")
    monkeypatch.setenv("TAGGER_KEEP_VERSIONS", "0")
    if command == "sign":
        monkeypatch.setenv(signatures.SIGNING_KEY, str(new_key(tmp_path, "ours")[0]))
    refused = 0
    for number in range(1, 100, STEPS.get(command, 1)):
        shutil.rmtree(there.url, ignore_errors=True)
        shutil.copytree(store.url, there.url)
        calls, status, said = run_with_a_full_store(monkeypatch, capfd, arguments, number, code)
        if calls < number:
            break
        if not status:
            continue  # what could not be written is only a copy
        refused += 1
        full = f"({os.strerror(code)}); trying again can help: check that the store is reachable and not full, then"
        assert (status, f"{full} give `tagger {command}` again" in said, cure in said) == (1, True, True), said
        if command == "tune":
            break  # the rest is training
        _, status, said = run_with_a_full_store(monkeypatch, capfd, arguments, 0, code)
        assert not status or "was completed just now" in said
        assert Registry(there).live() == {"promote": 1, "rollback": 2}.get(command, 3)
        assert Registry(there).disagreement() is None
        assert [fault for fault in verify(there).faults if "/models/" not in fault] == []
    assert refused, f"it wrote nothing: {said}"


def run_with_a_full_store(monkeypatch, capfd, arguments, number, code):
    """How often the command wrote, its status and what it said, if its write with this number finds the store full."""
    calls = 0

    def full(target, place):
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(code, os.strerror(code), target)
        return placed(target, place)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "placed", full)
        with pytest.raises(SystemExit) as ended:
            run_and_exit(lambda: app(arguments, standalone_mode=False))
    return calls, ended.value.code, capfd.readouterr().err


def test_a_full_store_is_told_to_whoever_runs_a_stage(store, monkeypatch, capfd):
    """From the second write on, since the first is that of the note that the run has begun."""
    arguments = ["run", "--run", "new", "--source", "sample://posts?rows=200", "--until", "ingest"]
    monkeypatch.setattr(sys, "argv", ["tagger", *arguments, "--store", store.url])
    _, status, said = run_with_a_full_store(monkeypatch, capfd, sys.argv[1:], 1, errno.ENOSPC)
    assert (status, "not full, then run the stage again" in said) == (1, True), said
