"""`airflow tasks test`, task by task, as a person does who looks for a fault."""

from collections.abc import Callable
from datetime import UTC, datetime
from subprocess import CompletedProcess

import pytest

from pipeline.registry.registry import Registry
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.manifest import RUNS
from pipeline.store.runs import Run
from pipeline.upkeep.verify import verify
from tests.dags.conftest import DAG_ID, GC_ID, Airflow

DATE = "2026-01-05"
RUN = "test__2026-01-05T00_00_00_00_00"
VERSION = 20260105000000


@pytest.fixture(scope="module")
def airflow(new_airflow: Callable[..., Airflow]) -> Airflow:
    return new_airflow()


@pytest.fixture(scope="module")
def called(airflow: Airflow) -> dict[str, CompletedProcess[str]]:
    """What each of the six calls printed, in order, with one date."""
    return {stage: task_test(airflow, stage, DATE) for stage in STAGES}


def task_test(airflow: Airflow, *arguments: str, **variables: str) -> CompletedProcess[str]:
    return airflow("tasks", "test", DAG_ID, *arguments, **variables)


@pytest.mark.parametrize("stage", STAGES)
def test_each_task_succeeds(called, stage):
    assert called[stage].returncode == 0, called[stage].stdout
    assert "new_state=success" in called[stage].stdout  # its exit status is 0 for a failed task too


def test_six_calls_with_one_date_are_one_run(called, airflow):
    assert airflow.store.names(RUNS) == [RUN]
    assert list(Run(airflow.store, RUN).manifests()) == list(STAGES)


def test_the_date_is_the_published_version(called, airflow):
    registry = Registry(airflow.store)
    assert ([card.version for card in registry.cards()], registry.live()) == ([VERSION], VERSION)


def test_export_twice_leaves_the_same_version(called, airflow):
    cards = Registry(airflow.store).cards()
    again = task_test(airflow, "export", DATE)
    assert "new_state=success" in again.stdout, again.stdout
    assert Registry(airflow.store).cards() == cards


def test_retention_removes_by_its_own_dag(called, airflow):
    keep = {"TAGGER_KEEP_DAYS": "0", "TAGGER_KEEP_VERSIONS": "0"}
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    record = Run(airflow.store, "unfinished").begin(Settings(), begun).model_copy(update={"started": begun})
    airflow.store.write(f"{RUNS}/unfinished/run.json", record.to_dict())
    done = airflow("tasks", "test", GC_ID, "gc", DATE, **keep)
    assert "new_state=success" in done.stdout, done.stdout
    assert "removed runs/unfinished" in done.stdout
    assert airflow.store.names(RUNS) == [RUN]
    assert verify(airflow.store).faults == []


def test_retention_is_refused_in_one_sentence_too(called, airflow):
    done = airflow("tasks", "test", GC_ID, "gc", DATE, TAGGER_STORE="nowhere://models")
    assert "store 'nowhere://models' cannot be used: Protocol not known: nowhere; set TAGGER_STORE" in done.stdout
    assert "Traceback" not in done.stdout


def test_shards_are_tried_one_by_one_too(airflow):
    sharded = {"TAGGER_SHARDS": "2", "TAGGER_REUSE": "false"}
    date = "2026-03-02"
    run = Run(airflow.store, "test__2026-03-02T00_00_00_00_00")
    for arguments in (
        ("ingest", date),
        ("fit_vocabulary.shard", date, "--map-index", "1"),
        ("fit_vocabulary.shard", date, "--map-index", "0"),
        ("fit_vocabulary.gather", date),
    ):
        done = task_test(airflow, *arguments, **sharded)
        assert "new_state=success" in done.stdout, done.stdout
    whole = Run(airflow.store, RUN).manifest("fit_vocabulary")
    assert run.manifest("fit_vocabulary").run == run.name
    assert run.manifest("fit_vocabulary").files == whole.files


def test_a_source_without_its_tag_column_is_refused_in_one_sentence(airflow, tmp_path):
    source = tmp_path / "posts.csv"
    source.write_text("post,label\nhow do I center a div,css\n")
    done = task_test(airflow, "ingest", "2026-02-02", TAGGER_SOURCE=str(source))
    assert f"{source} has no column 'tags' (it has: post, label)" in done.stdout
    assert_refused(done)


def test_a_date_is_asked_for(airflow):
    done = task_test(airflow, "ingest")
    assert "`airflow tasks test` needs a date here, the same for all six tasks" in done.stdout
    assert_refused(done)


def assert_refused(done: CompletedProcess[str]) -> None:
    assert "new_state=failed" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout
