"""A run's data beside that of the live model, through the runner and a store."""

import shutil

import pytest

from pipeline.errors import BadInput
from pipeline.execution import champion
from pipeline.execution.runner import run_stage
from pipeline.registry.registry import Registry
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, TINY, write_csv


@pytest.fixture
def first(new_run):
    """A run of TINY posts whose version is live."""
    run = new_run("first")
    for stage in STAGES:
        run_stage(stage, run)
    return run


def next_run(first, tmp_path, rows, **values):
    settings = first.existing().settings
    source = write_csv(tmp_path / "next.csv", rows)
    run = Run(first.store, "next")
    run.begin(settings.model_copy(update={"source": str(source)} | values), CREATED.replace(day=12))
    for stage in ("ingest", "fit_vocabulary"):
        run_stage(stage, run)
    return run


def test_the_first_run_is_compared_with_nothing(first):
    summary = first.manifest("vectorize").summary
    assert (summary["drift"], summary["warnings"]) == (None, [])


def test_the_same_posts_are_no_drift(first, tmp_path):
    summary = run_stage("vectorize", next_run(first, tmp_path, TINY))
    assert summary["drift"] == {
        "live": first.existing().version,
        "tag_drift": 0,
        "word_drift": 0,
        "unknown_words": 0,
        "length_change": 1,
    }


FOREIGN = [(f"{text} encore une fois, et encore une", tag) for text, tag in TINY]


def test_other_posts_are_refused_before_anything_is_trained(first, tmp_path):
    run = next_run(first, tmp_path, FOREIGN)
    with pytest.raises(BadInput, match=r"word_drift=0\.15; .*unknown_words=0\.2; .*start a run with force_reason$"):
        run_stage("vectorize", run)
    assert run.manifest("vectorize") is None
    assert Registry(run.store).live() == first.existing().version


def test_a_reason_lets_other_posts_through_and_is_told_wherever_the_verdict_is(first, tmp_path):
    run = next_run(first, tmp_path, FOREIGN, force_reason="we are read in France now")
    for stage in ("vectorize", "train", "evaluate", "export"):
        summary = run_stage(stage, run)
    told = [warning for warning in summary["warnings"] if warning.endswith("; forced: we are read in France now")]
    assert len(told) >= 2
    assert Registry(run.store).card(summary["version"]).warnings == summary["warnings"]
    assert set(told) <= set(run.manifest("vectorize").summary["warnings"])


def test_what_the_live_model_was_trained_on_may_be_lost(first, tmp_path):
    run = next_run(first, tmp_path, FOREIGN)
    version = first.existing().version
    run.store.remove("runs/first")
    assert champion.data_beside(run, run.manifests()) == {
        "drift": None,
        "warnings": [f"what the live model, version {version}, was trained on is lost"],
    }


def test_invented_posts_are_not_compared_with_real_ones(finished_run, tmp_path):
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    run = next_run(Run(Store(str(tmp_path / "store")), finished_run.name), tmp_path, FOREIGN, train_fraction=0.75)
    assert run_stage("vectorize", run)["drift"] is None
