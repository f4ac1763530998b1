"""The versions of runs that have one logical time, and of a run whose stages are done again."""

import shutil

import pytest

from pipeline.errors import BadInput, StageOutOfOrder
from pipeline.registry.registry import Registry
from pipeline.report import page
from pipeline.report.runs import card_of, described
from pipeline.run.runner import run_stage
from pipeline.settings import Deployment
from pipeline.stages.plan import STAGES
from pipeline.store.runs import Run
from pipeline.upkeep.gc import collect
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED, TINY, write_csv

OTHERS = [(f"{text} now", tag) for text, tag in TINY]
FOREIGN = [(f"{text} encore une fois, et encore une", tag) for text, tag in TINY]
LOOSE = {"max_regression": 1, "min_accuracy": 0, "fail_word_drift": 1, "fail_unknown_words": 1}


def done(run, *stages):
    """Do these stages, or all, and return the last one's summary."""
    for stage in stages or STAGES:
        summary = run_stage(stage, run)
    return summary


def done_again(run, tmp_path, rows=OTHERS, **settings):
    """Do all stages of the run again after its source has changed, as when a person clears a run in Airflow."""
    write_csv(tmp_path / "posts.csv", rows)
    run.begin(run.existing().settings, CREATED)
    return done(run)


@pytest.mark.thorough
def test_two_runs_of_one_second_are_two_versions(new_run):
    first, second = new_run("a", epochs=2, **LOOSE), new_run("b", epochs=2, seed=1, **LOOSE)
    versions = [done(run)["version"] for run in (first, second)]
    assert versions == [20260105060708, 20260105060709]
    assert second.manifest("evaluate").summary["champion"] == versions[0]
    assert Registry(first.store).live() == versions[1]
    assert [card_of(run, run.manifests()).version for run in (first, second)] == versions


def test_two_runs_of_one_second_under_way_at_once_are_two_versions(new_run):
    first, second = new_run("a", epochs=2, **LOOSE), new_run("b", epochs=2, seed=1, **LOOSE)
    *before, last = STAGES
    for run in (first, second):
        done(run, *before)
    version = done(first, last)["version"]
    with pytest.raises(StageOutOfOrder, match=f"version {version} went live since this run was compared with no model"):
        done(second, last)
    assert done(second, "evaluate", last)["version"] == version + 1
    assert second.manifest("evaluate").summary["champion"] == version


def test_a_run_done_again_on_other_posts_is_compared_with_its_own_version_and_is_another(new_run, tmp_path):
    run = new_run("a", epochs=2, **LOOSE)
    version = done(run)["version"]
    again = done_again(run, tmp_path)
    assert (again["version"], again["live"]) == (version + 1, True)
    assert run.manifest("evaluate").summary["champion"] == version
    assert described(run)["version"] == version + 1
    assert f"Published as version {version + 1}." in page.render(run)
    (warning,) = run.manifest("vectorize").summary["warnings"]
    assert warning.startswith(f"the data that the live model, version {version}, was trained on is lost")
    assert done(run)["version"] == version + 1
    assert [event.version for event in Registry(run.store).events()] == [version, version + 1]
    assert verify(run.store).faults == []


def test_a_run_done_again_on_the_same_posts_changes_nothing(new_run):
    for reuse in (True, False):
        run = new_run("a", epochs=2, reuse=reuse, **LOOSE)
        version = done(run)["version"]
        champion = run.manifest("evaluate").summary["champion"]
        log = len(Registry(run.store).events())
        run.begin(run.existing().settings, CREATED)
        assert done(run)["version"] == version
        assert described(run)["version"] == version
        assert run.manifest("evaluate").summary["champion"] == champion
        assert len(Registry(run.store).events()) == log
        shutil.rmtree(run.store.url)


def test_a_run_done_again_shows_no_version_before_it_has_published_the_new_model(new_run, tmp_path):
    run = new_run("a", epochs=2, **LOOSE)
    version = done(run)["version"]
    write_csv(tmp_path / "posts.csv", OTHERS, header=("text", "tags"))
    with pytest.raises(BadInput, match="has no column"):
        done(run)
    assert described(run)["version"] == version
    write_csv(tmp_path / "posts.csv", OTHERS)
    done(run, "ingest", "fit_vocabulary", "vectorize", "train", "evaluate")
    assert (described(run)["version"], Registry(run.store).live()) == (None, version)
    assert "Published as version" not in page.render(run)


def test_drift_is_not_measured_from_posts_that_the_live_model_never_had(new_run, tmp_path):
    run = new_run("a", epochs=2, **LOOSE)
    version = done(run)["version"]
    write_csv(tmp_path / "posts.csv", FOREIGN)
    done(run, "ingest", "fit_vocabulary")
    later = Run(run.store, "later")
    later.begin(run.existing().settings, CREATED.replace(day=12))
    summary = done(later, "ingest", "fit_vocabulary", "vectorize")
    assert summary["drift"] is None
    assert f"version {version}, was trained on is lost" in summary["warnings"][0]


def test_garbage_collection_keeps_both_versions_of_a_run(new_run, tmp_path):
    run = new_run("a", epochs=2, **LOOSE)
    version = done(run)["version"]
    done_again(run, tmp_path)
    list(collect(run.store, Deployment.of({"keep_days": 0, "keep_versions": 1})))
    assert verify(run.store).faults == []
    assert Registry(run.store).rollback("the posts before were right").live == version
    assert verify(run.store).faults == []


def test_the_model_of_an_experiment_is_published_by_a_run_of_another_name(new_run):
    experiment = new_run("a", epochs=2, publish=False, **LOOSE)
    assert done(experiment)["version"] is None
    with pytest.raises(BadInput, match=r"was made with other settings \(publish=False, now True\)"):
        new_run("a", epochs=2, **LOOSE)
    run = new_run("b", epochs=2, **LOOSE)
    version = done(run)["version"]
    assert {manifest.run for manifest in run.manifests().values()} == {"a"}
    assert (Registry(run.store).live(), Registry(run.store).card(version).run) == (version, "b")
    assert [described(each)["version"] for each in (experiment, run)] == [None, version]
