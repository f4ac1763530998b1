"""What `make` gives to the programs that it starts."""

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import pytest_ignore_collect
from tests.dags.conftest import database_of_make
from tests.slow import SLOW

ROOT = Path(__file__).parents[1]


def test_airflow_waits_a_minute_for_its_database(tmp_path):
    assert database_of_make(tmp_path) == f"sqlite:///{tmp_path}/airflow.db?timeout=60"


def test_a_database_of_the_operators_own_wins(monkeypatch):
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://theirs")
    printed = subprocess.run(
        ["make", "--silent", "--eval", "said: ; @printenv AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "said"],
        cwd=ROOT,
        env={n: v for n, v in os.environ.items() if not n.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == "postgresql://theirs"


@pytest.fixture(scope="module")
def marks_of_quick():
    """The expression of marks that `make quick` gives to pytest."""
    printed = subprocess.run(
        ["make", "--dry-run", "--silent", "quick"],
        cwd=ROOT,
        env={n: v for n, v in os.environ.items() if not n.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    )
    (marks,) = re.findall(r"pytest .*-m '([^']*)'", printed.stdout)
    return marks


def test_make_quick_does_not_even_import_the_slow_tests(marks_of_quick):
    def ignored(marks, name):
        config = SimpleNamespace(option=SimpleNamespace(markexpr=marks))
        return pytest_ignore_collect(Path(__file__).parent / name, config)

    assert {ignored(marks_of_quick, name) for name in SLOW} == {True}
    assert ignored(marks_of_quick, "test_makefile.py") is None
    assert {ignored("not thorough", name) for name in SLOW} == {None}


def test_the_page_for_contributors_names_the_marks_of_make_quick(marks_of_quick):
    line = f"    .venv/bin/pytest -m '{marks_of_quick}'"
    assert [text for text in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if text.startswith(line)]
