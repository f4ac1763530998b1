"""The log of the DAG that watches the live model says what `tagger watch` says, in the same words."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.registry.series import Series
from pipeline.scoring.watch import NOTHING_NEW
from pipeline.store.objects import Store
from tests.conftest import Once, write_csv
from tests.dags.conftest import WATCH_ID, Airflow
from tests.scoring.test_watch import mistagged, posts, published


@pytest.fixture(scope="module")
def airflow(new_airflow: Callable[..., Airflow], once: Once) -> Airflow:
    made = new_airflow()
    shutil.copytree(once("watched", published) / "store", made.store.url, dirs_exist_ok=True)
    return made


def watched(airflow: Airflow, source: str | Path) -> str:
    """The log of a run of the DAG on this source, without line breaks inside a sentence."""
    done = airflow("dags", "test", WATCH_ID, TAGGER_SOURCE=str(source))
    return " ".join(done.stdout.split())


def by_hand(airflow: Airflow, source: Path) -> subprocess.CompletedProcess[str]:
    """The same by the command line."""
    command = [Path(sys.executable).with_name("tagger"), "watch", "--source", source, "--store", airflow.store.url]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_decline_is_a_warning_in_the_words_of_the_command_line(airflow, tmp_path):
    source = write_csv(tmp_path / "new.csv", mistagged(posts(300, 9)))
    log = watched(airflow, source)
    [seen] = Series(airflow.store).observations()
    for said in (*seen.lines(), *seen.warnings, seen.decline):
        assert said in log
    assert re.search(rf"\[warning *\] warning: {re.escape(seen.decline)}", log)
    done = by_hand(airflow, source)
    assert done.returncode == 3
    assert done.stdout.splitlines()[: len(seen.lines())] == seen.lines()
    assert seen.decline in done.stderr
    assert "the accuracy is" in watched(airflow, source)
    assert "a retraining was started before" in watched(airflow, source)


def test_nothing_new_is_said(airflow, tmp_path):
    source = write_csv(tmp_path / "old.csv", posts(1000, 5)[:50])
    assert NOTHING_NEW in watched(airflow, source)
    done = by_hand(airflow, source)
    assert (done.returncode, done.stdout) == (0, f"{NOTHING_NEW}\n")


def test_the_default_of_the_form_does_not_judge_a_model_of_real_posts(airflow):
    before = len(Series(airflow.store).observations())
    log = " ".join(airflow("dags", "test", WATCH_ID).stdout.split())
    assert re.search(r"\[error *\] version \d+ learned real posts, and sample://\S+ names synthetic ones", log)
    assert len(Series(Store(airflow.store.url)).observations()) == before
