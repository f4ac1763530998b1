"""The processes that train together find one another by the store, in any order and after a restart."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import tf_config
from pipeline.errors import Unavailable
from pipeline.run import rendezvous
from pipeline.store.objects import Store
from pipeline.store.runs import Run

JOIN = """
import os, sys
from pipeline import tf_config
from pipeline.run.rendezvous import joined
from pipeline.store.objects import Store
from pipeline.store.runs import Run
tf_config.POLL = 0.1
store, number, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with joined(Run(Store(store), "together"), "train", number, count, "127.0.0.1"):
    print(os.environ["TF_CONFIG"], flush=True)
    sys.stdin.readline()
"""


def begin(store: Path, number: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOIN, str(store), str(number), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def configs(started: list[subprocess.Popen[str]]) -> list[dict]:
    return [json.loads(each.stdout.readline()) for each in started]


def end(*started: subprocess.Popen[str]) -> None:
    for each in started:
        each.kill()
        each.communicate()


def test_each_gets_its_place_in_the_same_cluster_whoever_comes_first(tmp_path):
    started = [begin(tmp_path, number, 4) for number in (3, 0, 2, 1)]
    try:
        found = configs(started)
    finally:
        end(*started)
    tasks = [(each["task"]["type"], each["task"]["index"]) for each in found]
    assert tasks == [("worker", 1), ("chief", 0), ("worker", 0), ("ps", 0)]
    [cluster] = {json.dumps(each["cluster"]) for each in found}
    places = [address for kind in json.loads(cluster).values() for address in kind]
    assert len(set(places)) == 4
    for each in found:
        assert tf_config.Place.of(json.dumps(each)) is not None


def test_processes_that_are_started_again_form_a_new_cluster(tmp_path):
    lost = [begin(tmp_path, number, 3) for number in range(3)]
    first = configs(lost)
    end(*lost)
    again = [begin(tmp_path, number, 3) for number in (1, 2)]
    try:
        again.append(begin(tmp_path, 0, 3))
        second = configs(again)
    finally:
        end(*again)
    assert {json.dumps(each["cluster"]) for each in second}.isdisjoint(json.dumps(each["cluster"]) for each in first)
    assert len({json.dumps(each["cluster"]) for each in second}) == 1


@pytest.mark.parametrize(("number", "said"), [(0, "only 1 of the 3 processes"), (2, "the chief .* has not begun")])
def test_who_waits_in_vain_says_what_is_missing(tmp_path, monkeypatch, number, said):
    monkeypatch.setattr(tf_config, "LONGEST_WAIT", 0.3)
    monkeypatch.setattr(tf_config, "POLL", 0.1)
    monkeypatch.setenv("TF_CONFIG", "before")
    run = Run(Store(str(tmp_path)), "together")
    with pytest.raises(Unavailable, match=said), rendezvous.joined(run, "train", number, 3):
        pass
    assert os.environ["TF_CONFIG"] == "before"


def test_nothing_is_left_when_the_stage_is_complete(tmp_path):
    run = Run(Store(str(tmp_path)), "together")
    started = [begin(tmp_path, number, 2) for number in range(2)]
    configs(started)
    end(*started)
    assert run.store.names("runs/together/train/cluster") == ["0.json", "1.json", "members.json"]
    run.files.discard("train")
    assert run.store.names("runs/together/train") == []


def test_the_others_end_when_one_is_started_again(tmp_path):
    started = [begin(tmp_path, number, 3) for number in range(3)]
    again = None
    try:
        configs(started)
        end(started[2])
        assert [process.poll() for process in started[:2]] == [None, None]
        again = begin(tmp_path, 2, 3)
        assert [process.wait(30) for process in started[:2]] == [1, 1]
    finally:
        end(*started[:2], *filter(None, [again]))
