"""The DAG as Airflow reads it: each parse in a fork that has imported Airflow only, so that its imports can be seen."""

import json
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from subprocess import CompletedProcess
from typing import Any

import pytest

from pipeline.errors import StageOutOfOrder
from pipeline.registry.registry import Registry
from pipeline.settings import Deployment, Settings, trigger_form
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.verify import verify
from tests.dags.conftest import DAG_ID, GC_ID, ROOT, TUNE_ID, WATCH_ID, Forks, clean_environment

READ = """
import json, os, sys
from airflow.dag_processing.dagbag import DagBag

sys.path.append(sys.argv[1])  # as Airflow's own processes do
bag = DagBag(sys.argv[1])
report = {"errors": list(bag.import_errors.values()), "dags": sorted(bag.dags), "imported": list(sys.modules)}
report["home"] = os.environ["AIRFLOW_HOME"]
for dag in (dag for name, dag in bag.dags.items() if name == "stackoverflow_tagger"):
    report |= {name: getattr(dag, name) for name in ("catchup", "max_active_runs", "doc_md", "description")}
    times = getattr(dag.timetable, "timetable", None)
    report["schedule"] = times and times.expression
    report["started_by"] = [asset.name for asset in dag.timetable.asset_condition.objects]
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


LOAD = """
import json, logging, sys
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from airflow.sdk.exceptions import AirflowSkipException
from pipeline.stages.plan import STAGES

sys.path.append(str(Path(sys.argv[1]).parent))  # as Airflow's own processes do
spec = spec_from_file_location("dag", sys.argv[1])
dag = module_from_spec(spec)
spec.loader.exec_module(dag)
form = dag.trigger_form(dag.settings, dag.deployment)
params = {name: param["default"] for name, param in form.items()}
this = SimpleNamespace(run_id="by_hand", run_after=datetime.now(UTC))
"""

WORK = f"""{LOAD}
params |= json.loads(sys.argv[2])
logging.basicConfig(format="%(message)s", force=True)
print(dag.do_stage(STAGES["ingest"], params, this)["posts"])
"""

TUNED = f"""{LOAD}
from pipeline.errors import BadInput
dag.with_tuned = lambda store, chosen, known: chosen.model_copy(update={{"source": sys.argv[2]}})
try:
    dag.do_stage(STAGES["ingest"], params, this)
except BadInput as refused:
    print(refused)
"""

EXPERIMENT = f"""{LOAD}
try:
    for stage in STAGES.values():
        dag.do_stage(stage, params, this)
except AirflowSkipException as skipped:
    print(stage.name, skipped)
"""


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    home = tmp_path_factory.mktemp("parse")
    made = Forks(clean_environment() | {"AIRFLOW_HOME": str(home)}, home, Forks.PARSE)
    yield made
    made.end()


@pytest.fixture(scope="module")
def read(forks: Forks) -> Callable[..., dict[str, Any]]:
    def report(**variables: str) -> dict[str, Any]:
        command = ("-c", READ, str(ROOT / "dags"))
        done = forks(command, {"TAGGER_STORE": str(forks.folder / "store")} | variables, forks.folder)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return report


@pytest.fixture(scope="module")
def dag(read: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return read()


def test_there_is_one_dag_and_it_has_no_errors(dag):
    assert (dag["errors"], dag["dags"]) == ([], [DAG_ID, GC_ID, TUNE_ID, WATCH_ID])


def test_the_tasks_are_the_stages_in_a_chain(dag):
    order = list(STAGES)
    chain = {earlier: [later] for earlier, later in pairwise(order)} | {order[-1]: []}
    assert {name: task["downstream"] for name, task in dag["tasks"].items()} == chain


def test_with_an_approval_a_person_stands_between_evaluate_and_export(read):
    tasks = read(TAGGER_APPROVAL="on")["tasks"]
    assert list(tasks) == [*list(STAGES)[:-1], "approve", "export"]
    assert (tasks["evaluate"]["downstream"], tasks["approve"]["downstream"]) == (["approve"], ["export"])
    assert "approves or rejects" in tasks["approve"]["doc"]


@pytest.mark.parametrize(("choice", "asks"), [("ask", True), ("keep", False), ("publish", False)])
def test_the_same_person_is_there_where_the_gate_may_ask(read, choice, asks):
    tasks = read(TAGGER_WHEN_UNSURE=choice)["tasks"]
    assert ("approve" in tasks) == asks


def test_a_notifier_that_there_is_not_is_an_import_error_that_says_what_to_write(read):
    report = read(TAGGER_NOTIFY="fax:1")
    assert DAG_ID not in report["dags"]
    assert "TAGGER_NOTIFY=fax:1: write smtp:ADDRESS, slack:CHANNEL or apprise:TAG" in report["errors"][0]


def test_the_trigger_form_is_made_of_the_settings(dag, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", dag["home"])  # the form names the folder that files may be in
    assert dag["params"] == trigger_form(Settings(), Deployment())
    assert list(dag["params"]) == list(Settings.model_fields)


def test_a_variable_changes_the_form_s_default(read):
    assert read(TAGGER_EPOCHS="7")["params"]["epochs"]["default"] == 7


def test_the_schedule_is_a_setting_of_the_installation(dag, read):
    assert dag["schedule"] == "0 0 * * 0"
    assert read(TAGGER_SCHEDULE="30 4 * * 1")["schedule"] == "30 4 * * 1"
    assert read(TAGGER_SCHEDULE="none")["schedule"] is None


@pytest.mark.parametrize("schedule", ["@weekly", "none"])
def test_a_live_model_that_has_declined_starts_it_too(read, schedule):
    assert read(TAGGER_SCHEDULE=schedule)["started_by"] == ["stackoverflow_tagger_declined"]


def test_runs_are_neither_caught_up_nor_side_by_side(dag):
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)


def test_everything_is_explained(dag):
    assert dag["description"]
    for what in (
        "To start a run",
        "When a task is red",
        "tab **Report**",
        "tagger show",
        "tagger models",
        "tagger predict",
    ):
        assert what in dag["doc_md"]
    assert {name: task["doc"] for name, task in dag["tasks"].items()} == {s.name: s.does for s in STAGES.values()}


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
def ingest(forks: Forks, tmp_path) -> Callable[..., CompletedProcess[str]]:
    """The first task's work on what was sent with the trigger form."""

    def work(variables: dict[str, str] | None = None, **sent: str) -> CompletedProcess[str]:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "posts.csv").write_text("post,tags\nhow,c#\nwhy,java\n")
        command = ("-c", WORK, str(ROOT / "dags" / f"{DAG_ID}.py"), json.dumps(sent))
        return forks(command, {"AIRFLOW_HOME": str(tmp_path)} | (variables or {}), tmp_path)

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
        f"the source {url} is not one that Airflow's runs may read: put the file in {tmp_path / 'data'}, or ask the "
        "operator to add it to TAGGER_ALLOWED_SOURCES"
    )
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("elsewhere*"))
    noted = Run(Store(str(tmp_path / "store")), "by_hand")
    assert noted.store.names("runs/by_hand") == ["refused.json"]
    assert noted.refusal().why == (
        f"the source that it was given is not one that Airflow's runs may read: put the file in {tmp_path / 'data'}, "
        "or ask the operator to add it to TAGGER_ALLOWED_SOURCES"
    )


SECRET = "s3cr3t-0f-mine"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"source": f"https://me:{SECRET}@example.org/posts.csv"}, "contains a user, password or token"),
        ({"source": f"https://me:{SECRET} x@example.org/posts.csv"}, "contains a user, password or token"),
        ({"source": f"s3://key:{SECRET}@bucket/posts.csv"}, "contains a user, password or token"),
        ({"source": f"https://example.org/posts.csv?token={SECRET}"}, "contains a user, password or token"),
        ({"source": f"bigquery://p.d.t?api_key={SECRET}"}, "contains a user, password or token"),
        ({"source": f"http://me:{SECRET}/posts.csv"}, "is not a valid URL: correct it"),
        ({"source": f"https://example.org/{SECRET}/posts.csv"}, "is not one that Airflow's runs may read"),
        ({"source": f"me:{SECRET}@example.org/posts.csv"}, "is not one that Airflow's runs may read"),
        ({"source": f"simplecache::http+x://{SECRET}"}, "contains one URL within another"),
        ({"tuned": "unknown"}, "tuned=unknown: tuning 'unknown' is not finished"),
        ({"tuned": "../../data/evil"}, "'../../data/evil' cannot name a tuning: use up to 255 letters, digits"),
        ({"tuned": "/etc"}, "'/etc' cannot name a tuning"),
        ({"tuned": ".."}, "'..' cannot name a tuning"),
        ({"epochs": "many"}, "epochs='many': input should be a valid integer"),
    ],
)
def test_a_run_that_is_refused_before_it_begins_leaves_why_and_no_secret(ingest, tmp_path, sent, why):
    done = ingest(**sent)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    run = Run(Store(str(tmp_path / "store")), "by_hand")
    assert (run.record(), run.refusal().stage) == (None, "ingest")
    assert why in run.refusal().why
    assert run.refusal().evidence == {"airflow_run_id": "by_hand"}
    left = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert [data for data in left if SECRET.encode() in data] == []
    with pytest.raises(StageOutOfOrder, match="run by_hand was refused before it began: "):
        run.existing()
    assert verify(run.store).faults == []
    assert ingest(source=str(tmp_path / "data" / "posts.csv")).returncode == 0
    assert (run.refusal(), run.existing().airflow_run_id) == (None, "by_hand")


def test_the_source_policy_judges_the_settings_that_the_run_really_has(forks, tmp_path):
    """Whatever gave a run its source after the form was read."""
    command = ("-c", TUNED, str(ROOT / "dags" / f"{DAG_ID}.py"), "/etc/passwd")
    done = forks(command, {"TAGGER_STORE": str(tmp_path / "store"), "AIRFLOW_HOME": str(tmp_path)}, tmp_path)
    assert "the source /etc/passwd is not one that Airflow's runs may read" in done.stdout, done.stderr
    assert Run(Store(str(tmp_path / "store")), "by_hand").record() is None


def test_a_file_in_the_data_folder_is_read(ingest, tmp_path):
    done = ingest(source=str(tmp_path / "data" / "posts.csv"))
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["2"]), done.stderr


def test_an_experiment_ends_skipped_so_that_no_one_is_told_of_a_new_model(forks, tmp_path):
    variables = {"TAGGER_PUBLISH": "false", "TAGGER_STORE": str(tmp_path / "store"), "AIRFLOW_HOME": str(tmp_path)}
    variables |= {"TAGGER_SOURCE": "sample://posts?rows=400&seed=0", "TAGGER_MIN_ACCURACY": "0"}
    done = forks(("-c", EXPERIMENT, str(ROOT / "dags" / f"{DAG_ID}.py")), variables, tmp_path)
    assert done.stdout.splitlines()[-1:] == [
        "export nothing is published, because the run's setting publish is false"
    ], done.stderr
    assert Registry(Store(str(tmp_path / "store"))).events() == []


@pytest.mark.parametrize(
    ("name", "store", "sentence"),
    [
        ("theirs", "s3://stores", "TAGGER_STORE_CONNECTION=theirs: Airflow has no connection of that name; add it"),
        (
            "ours",
            "./store",
            "TAGGER_STORE_CONNECTION=ours has type aws and the store is ./store: only type aws",
        ),
        ("web", "s3://stores", "TAGGER_STORE_CONNECTION=web has type http and the store is s3://stores: only type aws"),
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
        [f"{stage.name}.{task}" for stage in STAGES.values() if stage.sharded_by] for task in ("shard", "gather")
    )
    assert {stage.split(".")[0] for stage in tasks} == set(STAGES)
    assert {name: about["mapped"] for name, about in tasks.items() if about["mapped"]} == dict.fromkeys(parts, 3)
    order = ["ingest", parts[0], gathers[0], parts[1], gathers[1], "train", "evaluate", "export"]
    assert list(tasks) == order
    assert [(a, tasks[a]["downstream"]) for a in order] == [(a, [b]) for a, b in pairwise(order)] + [("export", [])]


def test_the_dags_are_read_also_where_their_folder_is_not_on_the_path(new_airflow):
    """As `airflow dags list-import-errors -l` reads them."""
    listed = new_airflow().in_a_new_process("dags", "list-import-errors", "-l")
    assert (listed.returncode, "No data found" in listed.stdout) == (0, True), listed.stdout
