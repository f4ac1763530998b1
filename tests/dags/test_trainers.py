"""The DAG trains by TF_CONFIG, in several tasks that find one another, and does it again when one of them is lost."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from pipeline.run.runner import run_stage
from pipeline.store.runs import Run
from tests.conftest import REAL_POSTS
from tests.dags.conftest import DAG_ID, Airflow, Server, servers, standalone, wait_for

DAG = f"/dags/{DAG_ID}"
pytestmark = pytest.mark.thorough

PROGRAM = "pipeline.model.cluster_process"
RUN = "together"


@pytest.fixture(scope="module")
def server(new_airflow: Callable[..., Airflow]) -> Iterator[Server]:
    made = new_airflow(
        **servers(),
        TAGGER_TRAINERS="2",
        TAGGER_CLUSTER_HOST="127.0.0.1",
        TAGGER_SOURCE=str(REAL_POSTS),
        TAGGER_SCHEDULE="none",
    )
    with standalone(made) as server:
        wait_for("the DAG is listed", lambda: server.api.get(DAG).is_success, seconds=60, otherwise=server.logs)
        yield server


def begin(server: Server, run: str) -> None:
    def ask() -> bool:
        body = {"logical_date": None, "dag_run_id": run, "conf": {}}
        started = server.api.post(f"{DAG}/dagRuns", json=body)
        known = started.is_success or started.status_code == 409
        return known and server.api.patch(DAG, json={"is_paused": False}).is_success

    wait_for("the run starts", ask, seconds=60, otherwise=server.logs)


def trained(server: Server, run: str) -> list[dict[str, Any]]:
    """The tasks that train, once the run has ended."""

    def ended() -> bool:
        return server.get(f"{DAG}/dagRuns/{quote(run)}")["state"] in {"success", "failed"}

    wait_for("the run ends", ended, seconds=240, otherwise=server.logs)
    tasks = server.get(f"{DAG}/dagRuns/{quote(run)}/taskInstances")["task_instances"]
    assert {task["state"] for task in tasks} == {"success"}, server.logs()
    return sorted((t for t in tasks if t["task_id"] == "train.process"), key=lambda t: t["map_index"])


def worker(server: Server) -> psutil.Process | None:
    """The subprocess in which the worker trains."""
    for process in psutil.process_iter():
        try:
            environment = process.environ() if PROGRAM in process.cmdline() else {}
        except psutil.Error:
            continue
        ours = environment.get("AIRFLOW_HOME") == str(server.airflow.home)
        if ours and json.loads(environment["TF_CONFIG"])["task"]["type"] == "worker":
            return process
    return None


def log_of(server: Server, run: str, process: int, attempt: int) -> str:
    place = f"dag_id={DAG_ID}/run_id={run}/task_id=train.process/map_index={process}/attempt={attempt}.log"
    path = server.airflow.home / "logs" / place
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def tasks(server: Server) -> list[dict[str, Any]]:
    """The tasks that trained a run, after the worker was killed in the middle of its training."""
    begin(server, RUN)
    trains = lambda: "worker 0 trains on its share" in log_of(server, RUN, 2, 1)  # noqa: E731
    wait_for("the worker trains", trains, seconds=120, otherwise=server.logs)
    victim = worker(server)
    assert victim, server.logs()
    victim.kill()
    return trained(server, RUN)


def test_a_worker_that_is_killed_costs_a_retry(server, tasks):
    assert [(task["map_index"], task["try_number"]) for task in tasks] == [(0, 2), (1, 2), (2, 2)]
    assert "worker 0: the process ended with status -9" in log_of(server, RUN, 2, 1)
    for other in (0, 1):
        assert "process 2 of the cluster was lost: start all of them again" in log_of(server, RUN, other, 1)
    assert not Path(server.airflow.store.url, f"runs/{RUN}/train/cluster").exists()


def test_two_processes_train_as_well_as_one(server, tasks):
    run = Run(server.airflow.store, RUN)
    assert run.manifest("train").run == RUN
    alone, record = Run(run.store, "alone"), run.existing()
    alone.begin(record.settings.model_copy(update={"publish": False}), record.created)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"):
        run_stage(stage, alone)
    one, two = (each.manifest("evaluate").summary["accuracy"] for each in (alone, run))
    print(f"accuracy of two trainers {two:.4f}, of one {one:.4f}")  # noqa: T201
    assert [alone.manifest(stage).run for stage in ("vectorize", "train")] == [RUN, "alone"]
    assert abs(one - two) <= 0.01
