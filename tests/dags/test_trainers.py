"""The DAG trains by TF_CONFIG, in several tasks that find one another, and does it again when one of them is lost."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from pipeline.execution.runner import run_stage
from pipeline.store.runs import Run
from tests.conftest import REAL_POSTS
from tests.dags.conftest import DAG_ID, Airflow, Server, servers, standalone, wait_for

DAG = f"/dags/{DAG_ID}"
PROGRAM = "pipeline.model.cluster_process"


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


def begin(server: Server, run: str, **conf: Any) -> None:
    def ask() -> bool:
        body = {"logical_date": None, "dag_run_id": run, "conf": conf}
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
    assert {task["state"] for task in tasks} <= {"success", "skipped"}, server.logs()
    return sorted((t for t in tasks if t["task_id"] == "train.process"), key=lambda t: t["map_index"])


def children(server: Server) -> list[psutil.Process]:
    """The subprocesses in which a worker and a parameter server train."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = PROGRAM in process.cmdline() and process.environ().get("AIRFLOW_HOME") == str(server.airflow.home)
        except psutil.Error:
            continue
        found += [process] if ours else []
    return found


def test_two_processes_train_as_well_as_one(server):
    begin(server, "together")
    tasks = trained(server, "together")
    assert [task["map_index"] for task in tasks] == [0, 1, 2]
    run = Run(server.airflow.store, "together")
    assert run.manifest("train").inputs.keys() == {"fit_vocabulary", "vectorize"}
    alone = Run(server.airflow.store, "alone")
    record = run.existing()
    alone.begin(record.settings.model_copy(update={"publish": False}), record.created)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"):
        run_stage(stage, alone)
    one, two = (each.manifest("evaluate").summary["accuracy"] for each in (alone, run))
    print(f"accuracy of two trainers {two:.4f}, of one {one:.4f}")  # noqa: T201
    assert alone.manifest("train").run == "alone"
    assert alone.manifest("vectorize").run == "together"
    assert abs(one - two) <= 0.01


def test_a_worker_that_is_killed_costs_a_retry(server):
    begin(server, "lost", epochs=4, publish=False, max_regression=1.0)

    def worker() -> psutil.Process | None:
        """The process of a worker once it trains, which takes a second or two of processor time to get there."""
        alive = [child for child in children(server) if child.cpu_times().user > 6]
        return alive[0] if len(alive) == 2 else None

    victim = wait_for("both train", worker, seconds=120, otherwise=server.logs)
    victim.kill()
    killed = time.monotonic()
    tasks = trained(server, "lost")
    print(f"done {time.monotonic() - killed:.0f} s after the loss; tries {[t['try_number'] for t in tasks]}")  # noqa: T201
    assert max(task["try_number"] for task in tasks) == 2
    manifest = Run(server.airflow.store, "lost").manifest("train")
    assert manifest.run == "lost"
    assert not Path(server.airflow.store.url, "runs/lost/train/cluster").exists()
    log = "".join(path.read_text() for path in (server.airflow.home / "logs").rglob("attempt=1.log"))
    assert "start all processes of the cluster again" in log or "start all of them again" in log
