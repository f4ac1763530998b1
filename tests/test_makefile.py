"""What `make` gives to the programs that it starts."""

import os
import subprocess
from pathlib import Path

from tests.dags.conftest import database_of_make

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
