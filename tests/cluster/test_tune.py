"""A tuning on two workers, one of which is killed in a trial: the trial is done again, and nothing scored is lost."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.store.objects import Store
from pipeline.store.runs import name_of
from pipeline.tuning.documents import Result
from pipeline.tuning.winner import result_of
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import WORKERS
from tests.cluster.test_cluster import ended, instances, tries_of, worker
from tests.dags.conftest import TUNE_ID

SPACE = {"hidden_units": [64, 128], "dropout": {"low": 0.2, "high": 0.7}}
TRIALS = 6
VARIABLES = {
    "TAGGER_SOURCE": "sample://posts?rows=16000",
    "TAGGER_SEARCH_SPACE": json.dumps(SPACE),
    "TAGGER_TRIALS": str(TRIALS),
    "TAGGER_MAX_EPOCHS": "6",
}


@dataclass(frozen=True)
class Outcome:
    """A finished tuning: its result, the worker that was killed, the trial it had, and every try of every trial."""

    result: Result
    killed: str
    lost: dict[str, Any]
    tries: list[dict[str, Any]]


@pytest.fixture(scope="module")
def places(places: Cluster) -> Cluster:
    places.variables.update(VARIABLES)
    return places


@pytest.fixture(scope="module")
def outcome(cluster: Cluster) -> Outcome:
    cluster.api.patch(f"/dags/{TUNE_ID}", json={"is_paused": False}).raise_for_status()
    began = cluster.api.post(f"/dags/{TUNE_ID}/dagRuns", json={"logical_date": None}).raise_for_status().json()
    run = f"/dags/{TUNE_ID}/dagRuns/{quote(began['dag_run_id'])}"
    lost = cluster.wait("a worker is killed in a trial", lambda: kill(cluster, run), 240)
    assert cluster.wait("the tuning ends", lambda: ended(cluster, run), 420) == "success", cluster.logs()
    trials = [task for task in instances(cluster, run) if task["task_id"] == "trial"]
    tries = [each for task in trials for each in tries_of(cluster, run, task)]
    for each in sorted(tries, key=lambda each: each["start_date"]):
        start, end = (each[key][11:19] for key in ("start_date", "end_date"))
        print(start, end, worker(each), each["map_index"], each["try_number"], each["state"])  # noqa: T201
    store = Store(cluster.environment("worker", WORKERS[0])["TAGGER_STORE"])
    result = result_of(store, name_of(began["dag_run_id"]))
    assert result is not None
    print(result.sentence)  # noqa: T201
    return Outcome(result, worker(lost), lost, tries)


def kill(cluster: Cluster, run: str) -> dict[str, Any] | None:
    """Kill the worker that has a trial, when both workers have had one; the task, or None where that is not so yet."""
    trials = [task for task in instances(cluster, run) if task["task_id"] == "trial" and task["start_date"]]
    if {worker(task) for task in trials} != set(WORKERS):
        return None
    for task in (task for task in trials if task["state"] == "running"):

        def unfinished(task: dict[str, Any] = task) -> bool:
            return any(each["id"] == task["id"] and each["state"] == "running" for each in instances(cluster, run))

        if cluster.kill_if(worker(task), unfinished):
            return task
    return None


def test_the_lost_trial_is_done_again_on_the_other_worker(outcome):
    [survivor] = set(WORKERS) - {outcome.killed}
    tries = sorted(
        (each["try_number"], worker(each), each["state"])
        for each in outcome.tries
        if each["map_index"] == outcome.lost["map_index"]
    )
    assert tries == [(1, outcome.killed, "failed"), (2, survivor, "success")]


def test_no_trial_is_missing_and_none_is_there_twice(outcome):
    assert [trial.number for trial in outcome.result.trials] == list(range(1 + TRIALS))
    assert outcome.result.best.accuracy == max(trial.accuracy or 0 for trial in outcome.result.trials)
