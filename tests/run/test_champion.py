"""The drift of a run's data from the champion's, measured through the runner."""

import shutil
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.registry.registry import Registry
from pipeline.report import page
from pipeline.run.champion import Champion
from pipeline.run.drift_check import check_drift
from pipeline.run.runner import run_shard, run_stage
from pipeline.run.work import Work
from pipeline.settings import Deployment
from pipeline.settings.run import OBJECTIONS
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, TINY, write_csv


def next_run(first, tmp_path, rows, shards=1, **values):
    settings = first.existing().settings
    source = write_csv(tmp_path / "next.csv", rows)
    run = Run(first.store, "next")
    run.begin(
        settings.model_copy(update={"source": str(source)} | values),
        CREATED.replace(day=12),
        deployment=Deployment(shards=shards),
    )
    for stage in ("ingest", "fit_vocabulary"):
        run_stage(stage, run)
    return run


def test_the_first_run_has_no_drift(first):
    summary = first.manifest("vectorize").summary
    assert (summary["drift"], summary["warnings"]) == (None, [])


def test_the_same_posts_have_zero_drift(first, tmp_path):
    summary = run_stage("vectorize", next_run(first, tmp_path, TINY))
    assert summary["drift"] == {
        "live": first.existing().first_version,
        "tag_drift": 0,
        "word_drift": 0,
        "unknown_words": 0,
        "length_change": 1,
    }


FOREIGN = [(text + " encore une fois, et encore une" * 4, tag) for text, tag in TINY]


FRANCE = "we are read in France now"
REFUSED = r"unknown_words=0\.2; .*start a run with force=drift and a force_reason$"


def test_other_posts_are_refused_before_anything_is_trained(first, tmp_path):
    run = next_run(first, tmp_path, FOREIGN)
    with pytest.raises(BadInput, match=REFUSED):
        run_stage("vectorize", run)
    assert run.manifest("vectorize") is None
    assert Registry(run.store).live() == first.existing().first_version
    assert run.refusal().evidence["drift"]["unknown_words"] > 0.2
    report = page.render(run)
    assert "Words whose share changed most" in report
    assert "Tags whose share changed most" not in report


def test_only_forced_drift_overrides_the_limits(first, tmp_path):
    others = ",".join(name for name in OBJECTIONS if name != "drift")
    run = next_run(first, tmp_path, FOREIGN, force=others, force_reason=FRANCE)
    with pytest.raises(BadInput, match=REFUSED):
        run_stage("vectorize", run)


def test_other_posts_are_refused_before_any_shard_is_vectorized(first, tmp_path):
    run = next_run(first, tmp_path, FOREIGN, shards=2)
    with pytest.raises(BadInput, match=REFUSED):
        run_shard("vectorize", run, 0)
    assert list(run.manifests()) == ["ingest", "fit_vocabulary"]
    assert run.refusal().stage == "vectorize"
    assert run.files.saved("report", "page") is not None


def test_a_forced_run_goes_on_and_its_warnings_name_the_reason(first, tmp_path):
    run = next_run(first, tmp_path, FOREIGN, when_unsure="publish", force="drift", force_reason=FRANCE)
    for stage in ("vectorize", "train", "evaluate", "export"):
        summary = run_stage(stage, run)
    forced = [warning for warning in summary["warnings"] if warning.endswith(f"; forced: {FRANCE}")]
    assert len(forced) >= 2
    assert Registry(run.store).card(summary["version"]).warnings == summary["warnings"]
    assert set(forced) <= set(run.manifest("vectorize").summary["warnings"])


def test_drift_is_skipped_if_the_champions_data_is_lost(first, tmp_path):
    run = next_run(first, tmp_path, FOREIGN)
    version = first.existing().first_version
    run.store.remove("runs/first")
    assert check_drift(Work.of("vectorize", run)) == {
        "drift": None,
        "warnings": [
            f"the data that the live model, version {version}, was trained on is lost, because its run was removed or "
            "did its stages again on other posts: drift was not measured"
        ],
    }


def test_synthetic_posts_are_not_compared_with_real_ones(finished_run, tmp_path):
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    run = next_run(Run(Store(str(tmp_path / "store")), finished_run.name), tmp_path, FOREIGN, train_fraction=0.75)
    assert run_stage("vectorize", run)["drift"] is None


@pytest.mark.parametrize("name", ["learned.parquet", "saved_model.pb", "variables/variables.index"])
@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_nothing_of_a_damaged_live_model_is_used(first, tmp_path, name, damage):
    """Without the list of the posts that it learned, it would be asked about them."""
    registry = Registry(first.store)
    card = registry.published(None)
    path = Path(first.store.url, card.path, name)
    path.unlink() if damage == "lost" else path.write_bytes(path.read_bytes() + b"more")
    Champion(registry, card.version, card).fetch(tmp_path / "champion")
    assert [each.name for each in (tmp_path / "champion").iterdir()] == ["card.json"]
