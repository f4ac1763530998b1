"""The vocabulary and the vectors are the same bytes for any number of shards, and a missing shard is an error."""

import pytest

from pipeline.errors import StageOutOfOrder
from pipeline.run.runner import run_shard, run_stage
from pipeline.settings import Deployment, Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED

SHARDED = [stage.name for stage in STAGES.values() if stage.sharded_by]


def run_of(tmp_path, name, shards, **values):
    run = Run(Store(str(tmp_path / name)), name)
    settings = Settings.of({"source": "sample://posts?rows=5000&seed=1"} | values)
    run.begin(settings, CREATED, deployment=Deployment(shards=shards))
    run_stage("ingest", run)
    return run


def shard_by_shard(run, shards):
    for stage in SHARDED:
        for index in reversed(range(shards)):
            run_shard(stage, run, index)
        run_stage(stage, run)


def made(run):
    return {stage: run.manifest(stage).files for stage in SHARDED}


@pytest.mark.parametrize("values", [{}, {"split": "hash", "vector_mode": "tfidf"}])
def test_the_number_of_shards_changes_nothing(tmp_path, values):
    whole = run_of(tmp_path, "whole", 1, **values)
    for stage in SHARDED:
        run_stage(stage, whole)
    for shards in (2, 7):
        run = run_of(tmp_path, f"by{shards}", shards, **values)
        shard_by_shard(run, shards)
        assert made(run) == made(whole)
        for stage in SHARDED:
            assert run.manifest(stage).summary == whole.manifest(stage).summary


def test_more_shards_than_posts(tmp_path):
    few = {"source": "sample://posts?rows=40&seed=1", "split": "hash", "max_rejected_fraction": 1}
    whole = run_of(tmp_path, "whole", 1, **few)
    for stage in SHARDED:
        run_stage(stage, whole)
    run = run_of(tmp_path, "run", 64, **few)
    shard_by_shard(run, 64)
    assert made(run) == made(whole)


def test_without_shard_results_the_stage_does_all_shards(tmp_path):
    run = run_of(tmp_path, "run", 3)
    assert run_stage("fit_vocabulary", run)["rows"] == 4000


def test_a_missing_shard_is_named(tmp_path):
    run = run_of(tmp_path, "run", 3)
    for index in (0, 2):
        run_shard("fit_vocabulary", run, index)
    with pytest.raises(StageOutOfOrder, match="shard 1 of fit_vocabulary of run run is not done"):
        run_stage("fit_vocabulary", run)


def test_a_shard_made_from_other_inputs_is_not_gathered(tmp_path):
    run = run_of(tmp_path, "run", 2)
    for index in (0, 1):
        run_shard("fit_vocabulary", run, index)
    document = run.store.read("runs/run/fit_vocabulary/shards/1.json")
    run.store.write("runs/run/fit_vocabulary/shards/1.json", document | {"inputs": {"ingest": "other"}})
    with pytest.raises(StageOutOfOrder, match="shard 1 of"):
        run_stage("fit_vocabulary", run)


def test_a_shard_that_ingest_did_not_make_is_refused(tmp_path):
    run = run_of(tmp_path, "run", 2)
    with pytest.raises(
        StageOutOfOrder, match="shard 2 of 2 does not exist, because the posts are stored as 2: TAGGER_SHARDS was"
    ):
        run_shard("fit_vocabulary", run, 2)


def test_another_number_of_shards_than_ingest_made_is_refused(tmp_path):
    run = run_of(tmp_path, "run", 3)
    run.begin(run.existing().settings, CREATED, deployment=Deployment(shards=2))
    with pytest.raises(
        StageOutOfOrder, match="shard 0 of 2 does not exist, because the posts are stored as 3: TAGGER_SHARDS was"
    ):
        run_shard("fit_vocabulary", run, 0)


def test_a_gather_that_was_interrupted_while_it_cleaned_up_can_be_repeated(tmp_path, monkeypatch):
    run = run_of(tmp_path, "run", 2, reuse=False)
    for index in (0, 1):
        run_shard("fit_vocabulary", run, index)
    remove = run.store.remove

    def dies(path):
        remove(path)
        if path.endswith("shards/0.json"):
            raise SystemExit("killed")

    monkeypatch.setattr(run.store, "remove", dies)
    with pytest.raises(SystemExit):
        run_stage("fit_vocabulary", run)
    monkeypatch.undo()
    before = run.manifest("fit_vocabulary").digest
    run_stage("fit_vocabulary", run)
    assert run.manifest("fit_vocabulary").digest == before
    assert [name for name in run.store.names("runs/run/fit_vocabulary") if name.startswith("shard")] == []


def test_shard_results_are_removed_once_they_are_gathered(tmp_path):
    run = run_of(tmp_path, "run", 2)
    shard_by_shard(run, 2)
    for stage in SHARDED:
        manifest = run.manifest(stage)
        assert run.store.names(f"runs/run/{stage}") == sorted([manifest.attempt, "manifest.json"])


def test_shards_of_a_cached_stage_do_nothing(tmp_path):
    first = run_of(tmp_path, "store", 2)
    shard_by_shard(first, 2)
    second = Run(first.store, "second")
    second.begin(first.existing().settings, CREATED, deployment=Deployment(shards=2))
    run_stage("ingest", second)
    assert run_shard("fit_vocabulary", second, 0) == {"shard": 0, "rows": 0}
    run_stage("fit_vocabulary", second)
    assert second.manifest("fit_vocabulary").run == "store"
