"""docs/reference/store.md and the table of stages, against what a real store has in it."""

import re
from pathlib import Path

import pytest

from pipeline.registry.serving_dir import MODEL
from pipeline.store import signatures
from pipeline.store.needs import Collector, needing
from pipeline.tuning.tuning import TuningRun
from pipeline.upkeep.sign import sign_store
from tests.rich_store import rich_store
from tests.server.test_forger import new_key
from tests.test_tables import quoted, table

STORE = (Path(__file__).parents[1] / "docs" / "reference" / "store.md").read_text()
STAGES = (Path(__file__).parents[1] / "docs" / "reference" / "stages.md").read_text()


@pytest.fixture
def files(once, tmp_path, monkeypatch) -> list[str]:
    """Every file of a store in which all that writes to one has been done, by its path."""
    monkeypatch.setenv(signatures.SIGNING_KEY, str(new_key(tmp_path, "ours")[0]))
    store = rich_store(once, tmp_path)
    sign_store(store)
    with TuningRun(store, "t").held():
        pass
    with TuningRun(store, "t").held(), needing(store, "runs/first"), Collector(store):
        return sorted(store.sizes(""))


def patterns(rows: list[str], top: str = "") -> list[str]:
    """The paths of the rows' first cells; one behind a comma is beside the first of its row."""
    found = []
    for row in rows:
        beside = ""
        for path in quoted(row.split(" | ")[0]):
            found.append(f"{top}{beside}{path}")
            beside = path.rpartition("/")[0] + "/" if "." in path else beside
    return found


def expression(pattern: str) -> str:
    """A path with <names> as a regular expression; a folder stands for all that is in it."""
    parts = re.split(r"<\w+>", pattern.replace("MODEL", MODEL))
    return "[^/]+".join(map(re.escape, parts)) + (".*" if pattern.endswith("/") else "")


def test_the_page_of_the_store_has_every_file_and_no_other(files):
    listed = patterns(table(STORE, "path")) + patterns(table(STORE, "path in `tunings/<name>/`"), "tunings/<name>/")
    listed.remove("tunings/<name>/")  # what is in it has a table of its own
    matches = {pattern: [file for file in files if re.fullmatch(expression(pattern), file)] for pattern in listed}
    assert [pattern for pattern, found in matches.items() if not found] == []
    assert [file for file in files if not any(file in found for found in matches.values())] == []


def test_the_table_of_stages_has_all_that_a_stage_leaves(first):
    """Of a run of tiny posts with one tag."""
    rows = [row.split(" | ") for row in table(STAGES, "stage", "does")]
    leaves = {quoted(row[0])[0]: quoted(row[2]) for row in rows}
    del leaves["export"]  # a SavedModel, whose files are TensorFlow's
    for stage, names in leaves.items():
        for file in first.manifest(stage).files:
            assert any(f"{file}/".startswith(f"{name.rstrip('/')}/") for name in names), (stage, file)
