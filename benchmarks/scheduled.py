"""The DAG on the real posts under Airflow's own scheduler, then once more with nothing changed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.table import NOTEBOOK, Row
from benchmarks.whole import HALF
from pipeline.stages.plan import STAGES
from pipeline.store.runs import Run, name_of
from tests.dags.conftest import DAG_ID, Server, airflow_in, servers, standalone, wait_for

DAG = f"/dags/{DAG_ID}"
RUNS = f"{DAG}/dagRuns"
BESIDE_NOTEBOOK, EACH = 3.1, 1.0
"""At most so many times the notebook's CPU seconds: 45 where it takes 14.5. Seconds of a task where nothing changed."""

WORKER = b"airflow worker -- LocalExecutor"


def scheduled_rows(source: str, notebook_cpu: float) -> list[Row]:
    """Two runs of the DAG, one after the other, on the halves that the notebook has; its CPU seconds are given.

    CPU seconds of a run are the cores' time, user and system, of LocalExecutor's one worker and of all that it waited
    for: the six task processes with their Airflow, and what those started. Scheduler, API server and the DAG's parsing
    are not in it. Seconds of a task are the clock's, from its start to its end as Airflow tells them.
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
        Row("DAG under the scheduler, six tasks", "CPU s", cpu, NOTEBOOK, notebook_cpu, BESIDE_NOTEBOOK, least=True),
        Row("  of which the stages' own work", "CPU s", work, least=True),
        Row("DAG again, nothing changed", "CPU s", cpu_again, "the first run", cpu, least=True),
        *(Row(f"  {stage}, nothing changed", "s", again[stage], reach=EACH, least=True) for stage in STAGES),
    ]


def _run(server: Server, home: Path) -> tuple[dict[str, Any], float, dict[str, float]]:
    """One run from its trigger to its end: its manifests, CPU seconds, and the seconds of each task."""
    before = sum(_worker_cpu(home))
    started = server.api.post(RUNS, json={"logical_date": None}).raise_for_status().json()["dag_run_id"]
    path = f"{RUNS}/{quote(started)}"

    def look() -> str | None:
        state = server.get(path)["state"]
        return state if state in {"success", "failed"} else None

    state = wait_for("the run has ended", look, seconds=600, otherwise=server.logs)
    assert state == "success", server.logs()
    wait_for("its worker is idle", lambda: not _busy(home), seconds=30, otherwise=server.logs)
    tasks = {task["task_id"]: task["duration"] for task in server.get(f"{path}/taskInstances")["task_instances"]}
    return Run(server.airflow.store, name_of(started)).manifests(), sum(_worker_cpu(home)) - before, tasks


def _workers(home: Path) -> Iterator[tuple[Path, bytes]]:
    """The folders under /proc of the home's worker processes, and their titles."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            title = (process / "cmdline").read_bytes()
            if title.startswith(WORKER) and (process / "cwd").readlink() == home:
                yield process, title


def _busy(home: Path) -> bool:
    return any(b"<idle>" not in title for _, title in _workers(home))


def _worker_cpu(home: Path) -> Iterator[float]:
    """Of each worker the seconds of itself and of the processes that it waited for."""
    for process, _ in _workers(home):
        used = (process / "stat").read_text().rpartition(")")[2].split()[11:15]
        yield sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
