"""The DAG as Airflow reads it: parsed in a fresh process, so that what the parse imports can be seen."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from tests.dags.conftest import DAG_ID, GC_ID, ROOT, clean_environment

READ = """
import json, sys
from airflow.dag_processing.dagbag import DagBag

sys.path.append(sys.argv[1])  # as Airflow's own processes do
bag = DagBag(sys.argv[1])
report = {"errors": list(bag.import_errors.values()), "dags": sorted(bag.dags), "imported": list(sys.modules)}
for dag in (dag for name, dag in bag.dags.items() if name == "stackoverflow_tagger"):
    report |= {name: getattr(dag, name) for name in ("schedule", "catchup", "max_active_runs", "doc_md", "description")}
    report["tags"] = sorted(dag.tags)
    report["params"] = {
        name: {"default": param.value, "description": param.description, **param.schema}
        for name, param in dag.params.items()
    }
    report["tasks"] = {
        task.task_id: {
            "downstream": sorted(task.downstream_task_ids),
            "doc": task.doc_md,
            "retries": task.retries,
            "outlets": [asset.name for asset in task.outlets],
            "mapped": len(task.op_kwargs_expand_input.value["index"]) if task.is_mapped else None,
        }
        for task in dag.tasks
    }
print(json.dumps(report))
"""


WORK = """
import json, logging, sys
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from pipeline.stages.plan import STAGES

sys.path.append(str(Path(sys.argv[1]).parent))  # as Airflow's own processes do
spec = spec_from_file_location("dag", sys.argv[1])
dag = module_from_spec(spec)
spec.loader.exec_module(dag)
params = {name: param["default"] for name, param in dag.settings.params().items()} | json.loads(sys.argv[2])
logging.basicConfig(format="%(message)s", force=True)
print(dag.work(STAGES["ingest"], params, SimpleNamespace(run_id="by_hand", run_after=datetime.now(UTC)))["posts"])
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    home = tmp_path_factory.mktemp("parse")

    def report(**variables: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", READ, str(ROOT / "dags")],
            env=clean_environment() | {"AIRFLOW_HOME": str(home), "TAGGER_STORE": str(home / "store")} | variables,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return report


@pytest.fixture(scope="module")
def dag(read: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return read()


def test_there_is_one_dag_and_it_has_no_errors(dag):
    assert (dag["errors"], dag["dags"]) == ([], [DAG_ID, GC_ID])


def test_the_tasks_are_the_stages_in_a_chain(dag):
    order = list(STAGES)
    chain = {earlier: [later] for earlier, later in pairwise(order)} | {order[-1]: []}
    assert {name: task["downstream"] for name, task in dag["tasks"].items()} == chain


def test_the_trigger_form_is_made_of_the_settings(dag):
    assert dag["params"] == Settings.of({}).params()
    assert list(dag["params"]) == list(Settings.per_run())


def test_a_variable_changes_the_form_s_default(read):
    assert read(TAGGER_EPOCHS="7")["params"]["epochs"]["default"] == 7


@pytest.mark.parametrize(
    ("variable", "schedule"),
    [({}, "@weekly"), ({"TAGGER_SCHEDULE": "30 4 * * 1"}, "30 4 * * 1"), ({"TAGGER_SCHEDULE": "none"}, None)],
)
def test_the_schedule_is_a_setting_of_the_installation(read, variable, schedule):
    assert read(**variable)["schedule"] == schedule


def test_runs_are_neither_caught_up_nor_side_by_side(dag):
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)


def test_everything_is_explained(dag):
    assert dag["description"]
    for what in ("To start a run", "When a task is red", "tagger show RUN", "tagger models", "tagger predict"):
        assert what in dag["doc_md"]
    assert {name: task["doc"] for name, task in dag["tasks"].items()} == {s.name: s.does for s in STAGES.values()}


def test_it_is_found_by_its_tags(dag):
    assert dag["tags"] == ["retraining", "stackoverflow", "tensorflow"]


def test_only_export_announces_a_model(dag):
    announced = {name: task["outlets"] for name, task in dag["tasks"].items() if task["outlets"]}
    assert announced == {"export": ["stackoverflow_tagger_model"]}


def test_every_task_is_tried_four_times(dag):
    assert {task["retries"] for task in dag["tasks"].values()} == {3}


def test_the_parse_is_light(dag):
    heavy = {"tensorflow", "pandas", "pyarrow", "sklearn", "matplotlib", "scipy"}
    assert heavy & set(dag["imported"]) == set()


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ({"TAGGER_EPOCHS": "0"}, "epochs='0': input should be greater than or equal to 1"),
        ({"TAGGER_EPOCS": "3"}, "no setting is named 'epocs': did you mean epochs?"),
    ],
)
def test_a_bad_variable_is_an_import_error_that_names_the_setting(read, variable, sentence):
    report = read(**variable)
    assert report["dags"] == [GC_ID]
    assert [error for error in report["errors"] if sentence in error] == report["errors"] != []


@pytest.fixture
def ingest(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The first task's work on what was sent with the trigger form."""

    def work(variables: dict[str, str] | None = None, **sent: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "posts.csv").write_text("post,tags\nhow,c#\nwhy,java\n")
        return subprocess.run(
            [sys.executable, "-c", WORK, str(ROOT / "dags" / f"{DAG_ID}.py"), json.dumps(sent)],
            env=clean_environment() | {"AIRFLOW_HOME": str(tmp_path)} | (variables or {}),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return work


def test_a_forbidden_source_is_refused_in_one_sentence_and_not_touched(ingest, tmp_path):
    """Also where the list itself was sent along, which is no field of the form."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/posts.csv"
        done = ingest(source=url, allowed_sources=url, store=str(tmp_path / "elsewhere"))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"the source {url} is none that Airflow's runs may read; put the file in {tmp_path / 'data'}, or ask the "
        "operator to add it to TAGGER_ALLOWED_SOURCES"
    )
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("store*")) + list(tmp_path.glob("elsewhere*"))


def test_a_file_in_the_data_folder_is_read(ingest, tmp_path):
    done = ingest(source=str(tmp_path / "data" / "posts.csv"))
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["2"]), done.stderr


@pytest.mark.parametrize(
    ("name", "store", "sentence"),
    [
        ("theirs", "s3://stores", "TAGGER_STORE_CONNECTION=theirs: Airflow has no connection of that name; add it"),
        (
            "ours",
            "./store",
            "TAGGER_STORE_CONNECTION=ours is of type aws and the store is ./store: only one of type aws",
        ),
        ("web", "s3://stores", "TAGGER_STORE_CONNECTION=web is of type http and the store is s3://stores: only one of"),
    ],
)
def test_a_connection_that_cannot_open_the_store_is_refused_in_one_sentence(ingest, name, store, sentence):
    connections = {"AIRFLOW_CONN_OURS": '{"conn_type": "aws"}', "AIRFLOW_CONN_WEB": '{"conn_type": "http"}'}
    done = ingest({"TAGGER_STORE_CONNECTION": name, "TAGGER_STORE": store} | connections)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in done.stderr


def test_with_shards_two_stages_are_groups_of_mapped_tasks(read: Callable[..., dict[str, Any]]) -> None:
    tasks = read(TAGGER_SHARDS="3")["tasks"]
    parts, gathers = (
        [f"{stage.name}.{task}" for stage in STAGES.values() if stage.parts] for task in ("part", "gather")
    )
    assert {stage.split(".")[0] for stage in tasks} == set(STAGES)
    assert {name: about["mapped"] for name, about in tasks.items() if about["mapped"]} == dict.fromkeys(parts, 3)
    order = ["ingest", parts[0], gathers[0], parts[1], gathers[1], "train", "evaluate", "export"]
    assert list(tasks) == order
    assert [(a, tasks[a]["downstream"]) for a in order] == [(a, [b]) for a, b in pairwise(order)] + [("export", [])]
