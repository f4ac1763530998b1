"""docs/reference/store.md and the table of stages, against what a real store has in it."""

import re
from pathlib import Path

import pytest

from pipeline.execution import feedback
from pipeline.execution.rendezvous import joined
from pipeline.execution.runner import run_shard, run_stage
from pipeline.execution.sign import sign_store
from pipeline.registry.registry import Registry
from pipeline.registry.series import Agreement, Series
from pipeline.registry.serving_dir import MODEL
from pipeline.settings import Deployment, Settings, Tuning
from pipeline.store import signatures
from pipeline.store.needs import Collector, needing
from pipeline.store.runs import CHECKPOINT, Run
from pipeline.tuning.tuning import TuningRun, asked_of
from tests.conftest import CREATED
from tests.server.test_forger import new_key
from tests.test_tables import quoted, table

STORE = (Path(__file__).parents[1] / "docs" / "reference" / "store.md").read_text()
STAGES = (Path(__file__).parents[1] / "docs" / "reference" / "stages.md").read_text()


def unfinished(run: Run, folder: Path) -> None:
    """Leave what is there while stages are done: a shard, a checkpoint, and a cluster that has announced itself."""
    run.begin(run.existing().settings, CREATED, deployment=Deployment.of({"shards": 2}))
    run_stage("ingest", run)
    run_shard("fit_vocabulary", run, 0)
    folder.mkdir()
    (folder / "weights").write_text("some")
    run.save("train", CHECKPOINT, folder, {})
    with joined(run, "train", 0, 1):
        pass


def a_tuning(tuning: TuningRun) -> None:
    """Do a tuning of one trial besides the present settings."""
    few = {"source": "sample://posts?rows=600&seed=4", "vocabulary_size": 200, "hidden_units": 8, "epochs": 1}
    options = Tuning.of({"search_space": {"hidden_units": [8, 16]}, "trials": 1, "max_epochs": 1})
    asked = tuning.begin(asked_of("t", Settings.of(few), options, Deployment(), CREATED))
    for number in range(len(asked.references) + 1):
        tuning.do_trial(asked, number)
    tuning.finish(asked)


@pytest.fixture
def files(first: Run, new_run, tmp_path, monkeypatch) -> list[str]:
    """Every file of a store in which all that writes to one has been done, by its path."""
    monkeypatch.setenv(signatures.SIGNING_KEY, str(new_key(tmp_path, "ours")[0]))
    store, registry = first.store, Registry(first.store)
    unfinished(new_run("second"), tmp_path / "checkpoint")
    first.refuse("vectorize", "drift")
    first.approve("a person", "it is good")
    row = {"id": "a-0.0", "at": CREATED, "version": 1, "sha256": "0", "predicted": "java", "probability": 0.5}
    feedback.write(store, feedback.ASKED, "a", [row])
    feedback.write(store, feedback.TAGGED, "b", [row | {"tags": "java", "told": CREATED}])
    seen = {"at": CREATED.isoformat(), "live": 1, "shadow": 2, "posts": 3, "same": 3}
    Series(store).append(lambda number, previous, _: Agreement(number=number, previous=previous, **seen))
    sign_store(store)
    registry.note_collected(first.path, "old")
    tuning = TuningRun(store, "t")
    a_tuning(tuning)
    with tuning.held(), needing(store, first.path), Collector(store):
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
