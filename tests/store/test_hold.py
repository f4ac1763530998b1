"""Who does a tuning: of several takers one has it, a working one keeps it, and only its own end gives it up."""

import os
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, suppress
from threading import Barrier, Thread

import pytest

from pipeline.errors import BadInput, Unavailable
from pipeline.store import hold as module
from pipeline.store.hold import held, hold
from pipeline.store.objects import Store

FIRST = "tunings/t/held.json"
HERE = socket.gethostname()
DEAD = {"host": "elsewhere", "process": 1, "at": 0.0}


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "local":
        return Store(str(tmp_path))
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}")
    request.getfixturevalue("s3")
    return Store(f"s3://stores/{uuid.uuid4().hex}")


def wait_for(what):
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


LATEST = {
    "none": lambda: None,
    "old, elsewhere": lambda: DEAD,
    "written by an older version": lambda: DEAD | {"format": 2},
    "ended": lambda: {"host": "elsewhere", "process": 1, "at": time.time(), "ended": True},
    "ended, here": lambda: {"host": HERE, "process": os.getpid(), "at": time.time(), "ended": True},
    "of a killed process": lambda: {"host": HERE, "process": ended_process(), "at": time.time()},
    "of another process that had this number": lambda: {"host": HERE, "process": os.getpid(), "at": 0.0},
}
"""Holds that are over."""


@pytest.fixture(params=LATEST.values(), ids=LATEST)
def over(request, store):
    """A store in which nobody holds the tuning."""
    if document := request.param():
        store.write(FIRST, document)
    return store


def test_a_hold_that_is_over_does_not_hold(over):
    assert not held(over, "t")
    with hold(over, "t"):
        assert held(over, "t")
    assert not held(over, "t")


@pytest.mark.parametrize("ago", [0, 800, -3600])
def test_a_hold_that_was_renewed_lately_holds(store, ago):
    """Also where the other machine's clock is ahead."""
    theirs = {"host": "elsewhere", "process": 7, "at": time.time() - ago}
    store.write(FIRST, theirs)
    assert held(store, "t")
    with pytest.raises(BadInput, match="is being done by process 7 on elsewhere: wait for it"), hold(store, "t"):
        pass
    assert store.read(FIRST) == theirs


def test_of_two_takers_at_once_one_has_it(over):
    start, outcomes = Barrier(4), []

    def take():
        start.wait()
        try:
            with hold(over, "t"):
                outcomes.append("has it")
                start.wait()
        except BadInput:
            outcomes.append("refused")
            start.wait()

    threads = [Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["has it", "refused", "refused", "refused"]
    assert not held(over, "t")


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize("other_ends", [False, True])
@pytest.mark.parametrize("call", range(5))
def test_whatever_another_taker_does_between_two_calls_one_has_it(over, call, other_ends, monkeypatch):
    """The other one tries to take the tuning, and perhaps ends, before the store's call of this number."""
    calls, holders, other = 0, [], ExitStack()

    def interrupted(method):
        def before(*arguments):
            nonlocal calls
            calls += 1
            if calls == call + 1:
                monkeypatch.undo()
                with suppress(BadInput):
                    other.enter_context(hold(over, "t"))
                    holders.append("the other")
                    if other_ends:
                        other.close()
                        holders.remove("the other")
            return method(*arguments)

        return before

    for name in ("names", "read", "create", "write"):
        monkeypatch.setattr(over, name, interrupted(getattr(over, name)))
    with other:
        with suppress(BadInput), hold(over, "t") as check:
            holders.append("the first")
            check()
            assert len(holders) == 1
        assert holders
    assert not held(over, "t")


def test_a_working_process_renews_its_hold(store, monkeypatch):
    """However long a trial takes, no other machine takes the tuning over; nor after a renewal that failed."""
    monkeypatch.setattr(module, "RENEWED", 0.01)
    with hold(store, "t"):
        write, failures = store.write, [Unavailable("no answer")] * 3

        def failing(*arguments):
            if failures:
                raise failures.pop()
            write(*arguments)

        monkeypatch.setattr(store, "write", failing)
        write(FIRST, DEAD)  # as it looks to another machine after as long
        wait_for(lambda: store.read(FIRST) != DEAD)
        assert not failures
        assert held(store, "t")
        with pytest.raises(BadInput, match="is being done by process"), hold(store, "t"):
            pass


def test_the_first_to_end_does_not_remove_the_hold_of_another(store):
    first = ExitStack()
    check = first.enter_context(hold(store, "t"))
    check()
    store.write(FIRST, DEAD)
    with hold(store, "t") as still_held:
        with pytest.raises(BadInput, match=rf"was taken over by process {os.getpid()} on {HERE}, because this one"):
            check()
        first.close()
        still_held()
        assert held(store, "t")
        with pytest.raises(BadInput, match="is being done by process"), hold(store, "t"):
            pass
    assert not held(store, "t")
