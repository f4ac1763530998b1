"""One run on two workers, one of which is killed, beside the same run on one machine without Airflow.

Then a tuning on the other worker and a third one, of which one is killed, too.
"""

import re
import subprocess
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from pipeline.files import digest
from pipeline.registry.card import MODEL
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import SAVED_MODEL
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run, name_of
from pipeline.tuning.documents import Result
from pipeline.tuning.winner import result_of
from tests.cluster.cluster import Cluster
from tests.cluster.compose import SERVICES
from tests.cluster.conftest import ALONE, HOMES, MODELS, PARTS, SERVE, WORKERS
from tests.conftest import REAL_POSTS, files_of
from tests.dags.conftest import DAG_ID, TUNE_ID

SHARDS = int(SERVICES["worker"]["environment"]["TAGGER_SHARDS"])
SOURCE = "s3://tagger/posts.csv" if REAL_POSTS.exists() else "sample://posts?rows=16000"
VARIABLES = {"TAGGER_SOURCE": SOURCE, "TAGGER_SCHEDULE": "none", "TAGGER_TRAIN_FRACTION": "0.5"}

LOST = "vectorize.shard"
"""A task of this name is at work on the worker that is killed."""

TOLD = ("task_id", "map_index", "try_number", "state")

NEW_WORKER = "worker-3"
"""Started after one of the others was killed."""

TRIALS = 6
TUNING = {
    "source": SOURCE,
    "search_space": {
        "vocabulary_size": [20_000],
        "word_rule": ["keras", "signs"],
        "ngrams": [1, 2],
        "vector_mode": ["log_tfidf"],
        "hidden_units": [128],
        "dropout": {"low": 0.4, "high": 0.8},
        "learning_rate": {"low": 0.001, "high": 0.004, "log": True},
    },
    "trials": TRIALS,
    "max_epochs": 6,
}

DENIED = re.compile("read-only file system|not a writable directory", re.IGNORECASE)

SAME = {"fit_vocabulary": ("vocabulary.txt", "counts.parquet"), "vectorize": ("train/", "test/")}


@dataclass(frozen=True)
class Outcome:
    """A finished run: the worker that was killed, the task it had, and every try of every task.

    `alone` is the same run on one machine; `healthy` says of each part whether its health check was content after that.
    `served` is the sha256 of each file that TensorFlow Serving would see, `answered` what `tagger serve` says of its
    versions, and `denied` what was said of files that could not be written.
    """

    run: Run
    alone: Run
    killed: str
    lost: dict[str, Any]
    tries: list[dict[str, Any]]
    healthy: dict[str, bool]
    served: dict[str, str]
    answered: dict[str, Any]
    denied: list[str]


def worker(instance: dict[str, Any]) -> str:
    return Path(instance["hostname"]).name


@pytest.fixture(scope="module")
def places(places: Cluster) -> Cluster:
    places.variables.update(VARIABLES)
    return places


@pytest.fixture(scope="module")
def outcome(cluster: Cluster) -> Outcome:
    """While the scheduler has not noticed yet that a worker is lost, the single machine takes its turn."""
    if REAL_POSTS.exists():
        Store("s3://tagger").fs.put_file(str(REAL_POSTS), "tagger/posts.csv")
    else:
        warnings.warn(f"the 16,000 real posts are not beside this checkout: the cluster has {SOURCE}", stacklevel=1)
    cluster.api.patch(f"/dags/{DAG_ID}", json={"is_paused": False}).raise_for_status()
    began = cluster.api.post(f"/dags/{DAG_ID}/dagRuns", json={"logical_date": None}).raise_for_status().json()
    run = f"/dags/{DAG_ID}/dagRuns/{quote(began['dag_run_id'])}"
    lost = cluster.wait("a worker is killed at its work", lambda: kill(cluster, run), 240)
    print(f"{datetime.now(UTC):%H:%M:%S} {worker(lost)} is killed, at work on {LOST} {lost['map_index']}")  # noqa: T201
    alone = start_alone(cluster)
    cluster.finish("alone")
    checks = {part: cluster.check_health(part) for part in PARTS}
    checks |= {worker: cluster.check_health("worker", worker) for worker in WORKERS}
    checks |= {part: cluster.check_health(part) for part in (MODELS, SERVE)}
    healthy = {part: cluster.finished(check) for part, check in checks.items()}
    assert cluster.wait("the run ends", lambda: ended(cluster, run), 420) == "success", cluster.logs()
    tries = [each for task in instances(cluster, run) for each in tries_of(cluster, run, task)]
    for each in sorted(tries, key=lambda each: each["start_date"]):
        start, end = (each[key][11:19] for key in ("start_date", "end_date"))
        print(start, end, worker(each), *map(each.get, TOLD))  # noqa: T201
    store = Store(cluster.environment("worker", WORKERS[0])["TAGGER_STORE"])
    served = cluster.wait("the model is brought", lambda: brought(cluster, store), 60)
    answered = cluster.wait("tagger serve answers", lambda: answer_of(cluster), 60)
    logs = cluster.folder.glob("**/*.log")
    denied = [line for log in logs for line in log.read_text().splitlines() if DENIED.search(line)]
    return Outcome(
        Run(store, name_of(began["dag_run_id"])), alone, worker(lost), lost, tries, healthy, served, answered, denied
    )


def start_alone(cluster: Cluster) -> Run:
    """Start the same run by `tagger run`, in a local store, with the posts in one piece."""
    home = cluster.folder / "alone"
    (home / "tmp").mkdir(parents=True)
    variables = cluster.environment("worker", "alone") | {"TAGGER_STORE": str(home / "store"), "TAGGER_SHARDS": "1"}
    cluster.spawn("alone", ["tagger", "run", "--run", "alone"], home, variables)
    return Run(Store(variables["TAGGER_STORE"]), "alone")


def instances(cluster: Cluster, run: str) -> list[dict[str, Any]]:
    return cluster.get(f"{run}/taskInstances?limit=100")["task_instances"]


def tries_of(cluster: Cluster, run: str, task: dict[str, Any]) -> list[dict[str, Any]]:
    mapped = f"/{task['map_index']}" if task["map_index"] >= 0 else ""
    return cluster.get(f"{run}/taskInstances/{task['task_id']}{mapped}/tries")["task_instances"]


def kill(cluster: Cluster, run: str, lost: str = LOST) -> dict[str, Any] | None:
    """Kill the worker that has a task of this name; the task, or None where none was at work just now."""
    at_work = [task for task in instances(cluster, run) if task["task_id"] == lost and task["state"] == "running"]
    for task in at_work:

        def unfinished(task: dict[str, Any] = task) -> bool:
            return any(each["id"] == task["id"] and each["state"] == "running" for each in instances(cluster, run))

        if cluster.kill_if(worker(task), unfinished):
            return task
    return None


def ended(cluster: Cluster, run: str) -> str | None:
    state = cluster.get(run)["state"]
    return state if state in {"success", "failed"} else None


def brought(cluster: Cluster, store: Store) -> dict[str, str]:
    """The files of the folder that TensorFlow Serving watches, once the live version is there, and their sha256."""
    folder = cluster.place("/models", MODELS) / MODEL
    if not (folder / str(Registry(store).live())).exists():
        return {}
    return {path.relative_to(folder).as_posix(): digest(path) for path in folder.rglob("*") if path.is_file()}


def answer_of(cluster: Cluster) -> dict[str, Any] | None:
    """What `tagger serve` says of its versions to whoever has the token, once one of them answers."""
    address = f"http://{cluster.addresses['localhost:8501']}/v1/models/{MODEL}"
    headers = {"Authorization": f"Bearer {cluster.secrets['SERVE_TOKEN']}"}
    assert httpx.get(address, trust_env=False).status_code == 401
    answer = httpx.get(address, headers=headers, trust_env=False)
    return answer.json() if answer.is_success and "AVAILABLE" in answer.text else None


def files(run: Run, stage: str, folder: Path) -> dict[str, bytes]:
    """What the stage left that must not depend on where it ran."""
    run.files.fetch(run.manifest(stage), folder)
    return {name: data for name, data in files_of(folder).items() if name.startswith(SAME[stage])}


def test_both_workers_take_part(outcome):
    parts = [each for each in outcome.tries if each["task_id"] == "fit_vocabulary.shard"]
    assert sorted(each["map_index"] for each in parts) == list(range(SHARDS))
    assert {worker(each) for each in parts} == set(WORKERS)


def test_the_lost_task_is_done_again_on_the_other_worker(outcome):
    [survivor] = set(WORKERS) - {outcome.killed}
    lost = (outcome.lost["task_id"], outcome.lost["map_index"])
    tries = sorted(
        (each["try_number"], worker(each), each["state"])
        for each in outcome.tries
        if (each["task_id"], each["map_index"]) == lost
    )
    assert tries == [(1, outcome.killed, "failed"), (2, survivor, "success")]


@pytest.mark.parametrize("stage", SAME)
def test_vocabulary_and_vectors_are_those_of_one_machine(outcome, stage, tmp_path):
    cluster, single = files(outcome.run, stage, tmp_path / "cluster"), files(outcome.alone, stage, tmp_path / "alone")
    assert all(any(name.startswith(start) for name in single) for start in SAME[stage])
    assert cluster == single


def test_the_model_is_as_good(outcome):
    assert list(outcome.run.manifests()) == list(outcome.alone.manifests()) == list(STAGES)
    accuracies = [run.manifest("evaluate").summary["accuracy"] for run in (outcome.run, outcome.alone)]
    assert abs(accuracies[0] - accuracies[1]) <= 0.01


def test_every_part_is_healthy_but_the_worker_that_is_gone(outcome):
    assert outcome.healthy == {part: part != outcome.killed for part in (*PARTS, *WORKERS, MODELS, SERVE)}


def test_the_server_of_models_sees_the_live_version_whole_and_no_other(outcome):
    registry = Registry(outcome.run.store)
    card = registry.card(registry.live())
    assert card.run == outcome.run.name
    assert outcome.served == {f"{card.version}/{name}": entry.sha256 for name, entry in card.files.items()}
    assert f"{card.version}/{SAVED_MODEL}" in outcome.served


def test_the_live_version_answers_whoever_has_the_token(outcome):
    [version] = outcome.answered["model_version_status"]
    assert version["version"] == str(Registry(outcome.run.store).live())


def test_nothing_is_written_but_where_it_may_be(outcome):
    assert outcome.denied == []


@pytest.mark.parametrize(
    ("path", "may"),
    [("tmp/new", True), ("logs/new", True), ("new", False), ("dags/new", False), ("../new", False)],
)
def test_what_may_be_written_is_what_compose_says(tmp_path, path, may):
    alone = Cluster(tmp_path, {}, {})
    if not alone.read_only:
        pytest.skip("needs root, to mount file systems read-only")
    home = alone.furnish("worker", "worker")
    tried = subprocess.run(alone.contained("worker", "worker", ["touch", path]), capture_output=True, check=False)
    assert (tried.returncode == 0) == (home / path).exists() == may


@dataclass(frozen=True)
class Tuned:
    """A finished tuning: its result, the worker that was killed and the one that was not, the lost trial, every try."""

    result: Result
    killed: str
    survivor: str
    lost: dict[str, Any]
    tries: list[dict[str, Any]]


@pytest.fixture(scope="module")
def tuned(cluster: Cluster, outcome: Outcome) -> Tuned:
    workers = (set(WORKERS) - {outcome.killed}) | {NEW_WORKER}
    cluster.start("worker", NEW_WORKER, [*ALONE, "--celery-hostname", NEW_WORKER], **HOMES)
    cluster.api.patch(f"/dags/{TUNE_ID}", json={"is_paused": False}).raise_for_status()
    asked = {"logical_date": None, "conf": TUNING}
    began = cluster.api.post(f"/dags/{TUNE_ID}/dagRuns", json=asked).raise_for_status().json()
    run = f"/dags/{TUNE_ID}/dagRuns/{quote(began['dag_run_id'])}"

    def kill_when_both_take_part() -> dict[str, Any] | None:
        trials = [task for task in instances(cluster, run) if task["task_id"] == "trial" and task["start_date"]]
        return kill(cluster, run, "trial") if {worker(task) for task in trials} == workers else None

    lost = cluster.wait("a worker is killed in a trial", kill_when_both_take_part, 240)
    assert cluster.wait("the tuning ends", lambda: ended(cluster, run), 420) == "success", cluster.logs()
    trials = [task for task in instances(cluster, run) if task["task_id"] == "trial"]
    tries = [each for task in trials for each in tries_of(cluster, run, task)]
    for each in sorted(tries, key=lambda each: each["start_date"]):
        start, end = (each[key][11:19] for key in ("start_date", "end_date"))
        print(start, end, worker(each), *map(each.get, TOLD))  # noqa: T201
    result = result_of(outcome.run.store, name_of(began["dag_run_id"]))
    assert result is not None
    print(result.sentence)  # noqa: T201
    [survivor] = workers - {worker(lost)}
    return Tuned(result, worker(lost), survivor, lost, tries)


@pytest.mark.thorough
def test_the_lost_trial_is_done_again_on_the_other_worker(tuned):
    tries = sorted(
        (each["try_number"], worker(each), each["state"])
        for each in tuned.tries
        if each["map_index"] == tuned.lost["map_index"]
    )
    assert tries == [(1, tuned.killed, "failed"), (2, tuned.survivor, "success")]


@pytest.mark.thorough
def test_no_trial_is_missing_and_none_is_there_twice(tuned):
    assert [trial.number for trial in tuned.result.trials] == list(range(1 + TRIALS))
    assert tuned.result.best.accuracy == max(trial.accuracy or 0 for trial in tuned.result.trials)
