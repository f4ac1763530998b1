"""Measure two runs of the DAG under Airflow's scheduler, the second with nothing changed."""

import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from benchmarks.table import NOTEBOOK, Row
from benchmarks.whole import HALF
from pipeline.stages.plan import STAGES
from pipeline.store.runs import Run, name_of
from tests.dags.conftest import DAG_ID, Server, airflow_in, servers, standalone, wait_for

DAG = f"/dags/{DAG_ID}"
RUNS = f"{DAG}/dagRuns"
NOTEBOOK_RATIO, EACH = 3.1, 1.0
"""The bounds: of the ratio to the notebook's CPU seconds, and of the seconds of a task where nothing changed."""

WORKER = "airflow worker -- LocalExecutor"


def scheduled_rows(source: str, notebook_cpu: float) -> list[Row]:
    """Measure two runs of the DAG, on the same halves of the posts as the notebook, and compare with its CPU seconds.

    The CPU seconds of a run, user and system, include LocalExecutor's one worker and its child processes: the six
    tasks, with Airflow's own share in them, and what they start. Scheduler, API server and DAG parsing are not.
    The seconds of a task are wall time from its start to its end, as Airflow reports them.
    """
    with tempfile.TemporaryDirectory(prefix="tagger-bench-") as home:
        airflow = airflow_in(
            Path(home),
            **servers(),
            TAGGER_SOURCE=source,
            TAGGER_TRAIN_FRACTION=HALF.partition("=")[2],
            TAGGER_SCHEDULE="none",
            AIRFLOW__CORE__PARALLELISM="1",
        )
        with standalone(airflow) as server:
            wait_for("the DAG is listed", lambda: server.api.get(DAG).is_success, seconds=60, otherwise=server.logs)
            server.api.patch(DAG, json={"is_paused": False}).raise_for_status()
            runs = [_run(server, Path(home)) for _ in range(2)]
    [(first, cpu, _), (_, cpu_again, again)] = runs
    work = sum(manifest.cpu_seconds for manifest in first.values())
    return [
        Row("DAG under the scheduler, six tasks", "CPU s", cpu, NOTEBOOK, notebook_cpu, NOTEBOOK_RATIO, least=True),
        Row("  of which the stages' own work", "CPU s", work, least=True),
        Row("DAG again, nothing changed", "CPU s", cpu_again, "the first run", cpu, least=True),
        *(Row(f"  {stage}, nothing changed", "s", again[stage], reach=EACH, least=True) for stage in STAGES),
    ]


def _run(server: Server, home: Path) -> tuple[dict[str, Any], float, dict[str, float]]:
    """One run from its trigger to its end: its manifests, CPU seconds, and the seconds of each task."""
    before = _worker_cpu(home)
    started = server.api.post(RUNS, json={"logical_date": None}).raise_for_status().json()["dag_run_id"]
    path = f"{RUNS}/{quote(started)}"

    def look() -> str | None:
        state = server.get(path)["state"]
        return state if state in {"success", "failed"} else None

    state = wait_for("the run has ended", look, seconds=600, otherwise=server.logs)
    assert state == "success", server.logs()
    wait_for("its worker is idle", lambda: not _busy(home), seconds=30, otherwise=server.logs)
    tasks = {task["task_id"]: task["duration"] for task in server.get(f"{path}/taskInstances")["task_instances"]}
    return Run(server.airflow.store, name_of(started)).manifests(), _worker_cpu(home) - before, tasks


def _workers(home: Path) -> list[psutil.Process]:
    """The worker processes of LocalExecutor that run in this home."""
    return [process for process in psutil.process_iter() if _is_worker(process, home)]


def _is_worker(process: psutil.Process, home: Path) -> bool:
    try:
        return " ".join(process.cmdline()).startswith(WORKER) and Path(process.cwd()) == home
    except psutil.Error:  # it has ended, or is another user's
        return False


def _busy(home: Path) -> bool:
    return any("<idle>" not in " ".join(process.cmdline()) for process in _workers(home))


def _worker_cpu(home: Path) -> float:
    """CPU seconds of the workers and of the processes they waited for."""
    return sum(sum(process.cpu_times()[:4]) for process in _workers(home))
