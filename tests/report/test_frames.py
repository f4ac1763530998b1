"""The pandas frames, against the documents that they are read from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import Runs
from pipeline.data import posts
from pipeline.errors import BadInput, StageOutOfOrder
from pipeline.settings import Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED


@pytest.fixture
def changed(two_runs, tmp_path):
    """A copy of the store with the two runs, which may be changed."""
    shutil.copytree(two_runs.url, tmp_path / "store")
    return Store(str(tmp_path / "store"))


def test_a_row_for_each_run_newest_first(two_runs):
    frame, finished = Runs(two_runs.url).frame(), Run(two_runs, "finished")
    assert list(frame.index) == ["second", "finished"]
    evaluated = finished.manifest("evaluate").summary
    row = frame.loc["finished"]
    assert row.created == CREATED
    assert [row[name] for name in ("accuracy", "macro_f1", "loss")] == [
        evaluated[name] for name in ("accuracy", "macro_f1", "loss")
    ]
    assert (row.version, row.verdict, row.refused) == (finished.existing().first_version, "passed", None)
    assert frame.epochs.to_dict() == {"second": 4, "finished": 3}
    assert set(Settings.model_fields) <= set(frame.columns)


def test_a_refused_run_says_why(changed):
    run = Run(changed, "third")
    run.begin(Settings(), CREATED.replace(day=20))
    run.refuse("ingest", "no post was usable")
    row = Runs(changed.url).frame().loc["third"]
    assert row.refused == "no post was usable"
    assert row.isna()[["accuracy", "version"]].all()


def test_a_run_that_cannot_be_read_is_left_out_with_a_warning(changed):
    path = Path(changed.url, "runs/second/run.json")
    path.write_text(path.read_text()[:-9])
    with pytest.warns(UserWarning, match="run second is left out"):
        assert list(Runs(changed.url).frame().index) == ["finished"]


def test_a_store_without_runs_has_an_empty_frame(tmp_path):
    (tmp_path / "store" / "registry").mkdir(parents=True)
    assert Runs(str(tmp_path / "store")).frame().empty


def test_predictions_are_those_of_the_stage_beside_their_posts(two_runs, tmp_path):
    frame, run = Runs(two_runs.url).predictions("finished"), Run(two_runs, "finished")
    for stage in ("ingest", "evaluate"):
        run.files.fetch(run.manifest(stage), tmp_path / stage)
    read = [row for batch in posts.batches(tmp_path / "ingest", "posts/test") for row in batch.to_pylist()]
    answers = [row for batch in posts.batches(tmp_path / "evaluate", "predictions") for row in batch.to_pylist()]
    assert frame[["row", "post", "tag"]].to_dict("records") == [
        {name: row[name] for name in ("row", "post", "tag")} for row in read
    ]
    assert frame.probability.tolist() == pytest.approx([max(answer["probabilities"]) for answer in answers])
    evaluation = json.loads((tmp_path / "evaluate/evaluation.json").read_text())
    assert (frame.tag == frame.predicted).mean() == pytest.approx(evaluation["accuracy"], abs=1e-6)
    assert Runs(two_runs.url).by_tag("finished").T.to_dict() == evaluation["per_tag"]


def test_the_curve_has_a_row_for_each_epoch(two_runs):
    curve = Runs(two_runs.url).curve("second")
    assert list(curve.index) == [1, 2, 3, 4]
    assert (curve.training_loss.diff().dropna() < 0).all()


@pytest.mark.parametrize("name", ["nope", "../x", "second/"])
def test_a_run_that_is_not_there_is_refused(two_runs, name):
    with pytest.raises(BadInput):
        Runs(two_runs.url).curve(name)


def test_a_run_without_the_stage_is_refused(changed):
    Run(changed, "third").begin(Settings(), CREATED)
    for read in (Runs(changed.url).by_tag, Runs(changed.url).predictions):
        with pytest.raises(StageOutOfOrder, match="third"):
            read("third")


def test_the_package_does_not_import_pandas_until_it_is_asked_for_runs():
    code = "import sys, pipeline; print('pandas' in sys.modules); pipeline.Runs; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
