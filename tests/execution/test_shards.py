"""The same vocabulary and vectors, byte for byte, for any number of shards; a part that is missing is missed."""

import pytest

from pipeline.errors import StageOutOfOrder
from pipeline.execution.runner import run_part, run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED

PARTED = [stage.name for stage in STAGES.values() if stage.parts]


def run_of(tmp_path, name, shards, **values):
    run = Run(Store(str(tmp_path / name)), name)
    run.begin(Settings.of({"source": "sample://posts?rows=5000&seed=1", "shards": shards} | values), CREATED)
    run_stage("ingest", run)
    return run


def by_parts(run, shards):
    for stage in PARTED:
        for index in reversed(range(shards)):
            run_part(stage, run, index)
        run_stage(stage, run)


def made(run):
    return {stage: run.manifest(stage).files for stage in PARTED}


@pytest.mark.parametrize("values", [{}, {"split": "hash", "vector_mode": "tfidf"}])
def test_the_number_of_shards_changes_nothing(tmp_path, values):
    whole = run_of(tmp_path, "whole", 1, **values)
    for stage in PARTED:
        run_stage(stage, whole)
    for shards in (2, 7):
        run = run_of(tmp_path, f"by{shards}", shards, **values)
        by_parts(run, shards)
        assert made(run) == made(whole)
        for stage in PARTED:
            assert run.manifest(stage).summary == whole.manifest(stage).summary


def test_more_shards_than_posts(tmp_path):
    few = {"source": "sample://posts?rows=40&seed=1", "split": "hash", "max_rejected_fraction": 1}
    whole = run_of(tmp_path, "whole", 1, **few)
    for stage in PARTED:
        run_stage(stage, whole)
    run = run_of(tmp_path, "run", 64, **few)
    by_parts(run, 64)
    assert made(run) == made(whole)


def test_without_parts_the_stage_does_the_whole(tmp_path):
    run = run_of(tmp_path, "run", 3)
    assert run_stage("fit_vocabulary", run)["rows"] == 4000


def test_a_part_that_is_missing_is_named(tmp_path):
    run = run_of(tmp_path, "run", 3)
    for index in (0, 2):
        run_part("fit_vocabulary", run, index)
    with pytest.raises(StageOutOfOrder, match="part 1 of fit_vocabulary of run run is not done"):
        run_stage("fit_vocabulary", run)


def test_a_part_of_other_posts_is_not_taken(tmp_path):
    run = run_of(tmp_path, "run", 2)
    for index in (0, 1):
        run_part("fit_vocabulary", run, index)
    document = run.store.read("runs/run/fit_vocabulary/parts/1.json")
    run.store.write("runs/run/fit_vocabulary/parts/1.json", document | {"inputs": {"ingest": "other"}})
    with pytest.raises(StageOutOfOrder, match="part 1 of"):
        run_stage("fit_vocabulary", run)


def test_a_shard_that_ingest_did_not_make_is_refused(tmp_path):
    run = run_of(tmp_path, "run", 2)
    with pytest.raises(StageOutOfOrder, match="shard 2 of 2 is not there, the posts are in 2: TAGGER_SHARDS was"):
        run_part("fit_vocabulary", run, 2)


def test_where_shards_were_changed_meanwhile_no_posts_are_lost(tmp_path):
    run = run_of(tmp_path, "run", 3)
    run.begin(run.existing().settings.model_copy(update={"shards": 2}), CREATED)
    with pytest.raises(StageOutOfOrder, match="shard 0 of 2 is not there, the posts are in 3: TAGGER_SHARDS was"):
        run_part("fit_vocabulary", run, 0)


def test_a_gather_that_was_cut_off_behind_its_end_is_done_again(tmp_path, monkeypatch):
    run = run_of(tmp_path, "run", 2, reuse=False)
    for index in (0, 1):
        run_part("fit_vocabulary", run, index)
    remove = run.store.remove

    def dies(path):
        remove(path)
        if path.endswith("parts/0.json"):
            raise SystemExit("killed")

    monkeypatch.setattr(run.store, "remove", dies)
    with pytest.raises(SystemExit):
        run_stage("fit_vocabulary", run)
    monkeypatch.undo()
    before = run.manifest("fit_vocabulary").digest
    run_stage("fit_vocabulary", run)
    assert run.manifest("fit_vocabulary").digest == before
    assert [name for name in run.store.names("runs/run/fit_vocabulary") if name.startswith("part")] == []


def test_what_the_parts_left_is_gone_once_it_is_gathered(tmp_path):
    run = run_of(tmp_path, "run", 2)
    by_parts(run, 2)
    for stage in PARTED:
        manifest = run.manifest(stage)
        assert run.store.names(f"runs/run/{stage}") == sorted([manifest.attempt, "manifest.json"])


def test_parts_of_work_that_was_done_before_have_nothing_to_do(tmp_path):
    first = run_of(tmp_path, "store", 2)
    by_parts(first, 2)
    second = Run(first.store, "second")
    second.begin(first.existing().settings, CREATED)
    run_stage("ingest", second)
    assert run_part("fit_vocabulary", second, 0) == {"part": 0, "rows": 0}
    run_stage("fit_vocabulary", second)
    assert second.manifest("fit_vocabulary").run == "store"
