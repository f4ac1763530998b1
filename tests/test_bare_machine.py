"""The tests on a machine that has no more than Python: what needs more is skipped, and one line at the end says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PACKAGES, skipped

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment whose path has all programs of this one's but those that the tests can do without."""
    for folder in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(folder).glob("*"):
            if program.name not in PACKAGES:
                (tmp_path / program.name).unlink(missing_ok=True)
                (tmp_path / program.name).symlink_to(program)
    return os.environ | {"PATH": str(tmp_path)}


def run_tests(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *arguments]
    own = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, env=own, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_scheduler_is_tested_without_a_browser(bare):
    assert shutil.which("chromium", path=bare["PATH"]) is None
    done = run_tests(bare, "tests/dags/test_scheduler.py", "-k", "documentation", "--no-header")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "skipped: 1 test needs chromium (apt-get install chromium)"


def test_what_does_not_need_the_browser_is_not_skipped_for_it(bare):
    def collected(*options: str) -> int:
        done = run_tests(bare, "tests/dags/test_scheduler.py", "--collect-only", "--quiet", *options)
        assert done.returncode == 0, done.stdout
        return sum("::test_" in line for line in done.stdout.splitlines())

    assert collected() - collected("-m", "not needs") == 7


def test_the_line_says_what_is_missing_and_how_to_get_it():
    browser, databases = "Skipped: needs chromium (apt-get install chromium)", "Skipped: needs root, to mount a tmpfs"
    assert skipped([databases, browser, browser]) == (
        "skipped: 2 tests need chromium (apt-get install chromium), 1 test needs root, to mount a tmpfs"
    )
