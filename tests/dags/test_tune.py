"""The DAG that tunes: its trials are mapped tasks, and a run of the other DAG takes the winner's settings."""

import json

import pytest

from pipeline.store.runs import Run, name_of
from pipeline.tuning.tuning import PRESENT, TuningRun
from pipeline.tuning.winner import latest
from tests.dags.conftest import DAG_ID, TUNE_ID

SPACE = {"hidden_units": [8, 16], "vector_mode": ["binary", "log_tfidf"]}
SMALL = {
    "TAGGER_SOURCE": "sample://posts?rows=1200&seed=4",
    "TAGGER_VOCABULARY_SIZE": "200",
    "TAGGER_HIDDEN_UNITS": "8",
}
DATE = "2026-03-02T00:00:00+00:00"


@pytest.fixture(scope="module")
def airflow(new_airflow):
    return new_airflow()


@pytest.fixture(scope="module")
def called(airflow):
    options = {"TAGGER_SEARCH_SPACE": json.dumps(SPACE), "TAGGER_TRIALS": "2", "TAGGER_MAX_EPOCHS": "2"}
    return airflow("dags", "test", TUNE_ID, **SMALL, **options)


def test_the_trials_and_their_winner_are_in_the_store(called, airflow):
    assert called.returncode == 0, called.stdout
    result = latest(airflow.store)
    assert result.tuning.startswith("manual__")
    assert [trial.origin for trial in result.trials] == [PRESENT, "search", "search"]
    assert sorted(result.searched) == sorted(SPACE)
    assert result.sentence in called.stdout
    assert TuningRun(airflow.store, result.tuning).asked().settings.drop_test_posts


def test_a_trial_is_a_mapped_task(called):
    assert called.stdout.count("end task task_id=trial map_index=") == 3


def test_a_run_takes_the_winners_settings(called, airflow):
    done = airflow("tasks", "test", DAG_ID, "ingest", DATE, **SMALL, TAGGER_TUNED="latest")
    assert "new_state=success" in done.stdout, done.stdout
    result = latest(airflow.store)
    settings = Run(airflow.store, name_of(f"test__{DATE}")).existing().settings
    assert settings.tuned == result.tuning
    assert {name: getattr(settings, name) for name in result.winning_settings} == result.winning_settings


def test_a_search_space_that_makes_no_sense_is_one_sentence(airflow):
    done = airflow("dags", "list-import-errors", "-l", TAGGER_SEARCH_SPACE="{}")
    assert "it must name settings to search" in done.stdout.replace("\n", " ")
