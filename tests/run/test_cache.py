"""A stage is taken from the cache if, and only if, nothing that it depends on has changed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import GateNotPassed, StageOutOfOrder, TaggerError
from pipeline.registry.registry import Registry
from pipeline.run import cache_keys, runner
from pipeline.run.runner import run_stage
from pipeline.run.work import Work
from pipeline.settings import Deployment, Settings
from pipeline.stages.plan import STAGES
from pipeline.store import cache
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.gc import collect
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED, files_of
from tests.upkeep.test_gc import LATER


@pytest.fixture
def first(finished_run, tmp_path):
    """A finished run, whose version is live, in a store of its own."""
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    return Run(Store(str(tmp_path / "store")), finished_run.name)


def second(first, **values):
    run = Run(first.store, "second")
    settings = first.existing().settings
    run.begin(settings.model_copy(update=values), CREATED.replace(day=12))
    return run


def whose(run):
    return {stage: manifest.run for stage, manifest in run.manifests().items()}


def test_if_nothing_changed_every_stage_is_cached_and_nothing_is_published(first):
    run = second(first)
    served = files_of(Path(first.store.url, "models"))
    for stage in STAGES:
        summary = run_stage(stage, run)
    assert set(whose(run).values()) == {first.name}
    assert len(whose(run)) == 6
    assert (summary["version"], summary["live"]) == (first.existing().first_version, True)
    assert len(Registry(run.store).events()) == 1
    assert files_of(Path(first.store.url, "models")) == served
    assert verify(run.store).faults == []


def test_the_same_model_is_one_version_even_from_a_copy_of_the_posts_or_with_another_threshold(new_run, tmp_path):
    """Each run exports again, in scratch folders of its own."""
    first = new_run("first")
    copy = shutil.copy(first.existing().settings.source, tmp_path / "copy.csv")
    runs = [first, Run(first.store, "copy"), Run(first.store, "threshold")]
    settings = first.existing().settings
    for day, run, values in ((12, runs[1], {"source": str(copy)}), (19, runs[2], {"min_accuracy": 0.4})):
        run.begin(settings.model_copy(update=values), CREATED.replace(day=day))
    summaries = [[run_stage(stage, run) for stage in STAGES][-1] for run in runs]
    assert [whose(run)["export"] for run in runs] == ["first", "copy", "threshold"]
    assert [(summary["version"], summary["live"]) for summary in summaries] == [
        (first.existing().first_version, True)
    ] * 3
    assert len(Registry(first.store).events()) == len(Registry(first.store).cards()) == 1


@pytest.mark.parametrize(
    ("changed", "begin"),
    [
        ({"source": "sample://posts?rows=2000&seed=6"}, "ingest"),
        ({"vocabulary_size": 900}, "fit_vocabulary"),
        ({"vector_mode": "count"}, "vectorize"),
        ({"epochs": 2}, "train"),
        ({"min_tag_recall": 0.01}, "evaluate"),
    ],
)
def test_a_changed_setting_runs_the_stages_that_read_it_and_those_after(first, changed, begin):
    run = second(first, **changed)
    names = list(STAGES)
    for stage in names[: names.index(begin) + 1]:
        run_stage(stage, run)
    assert [stage for stage, by in whose(run).items() if by == "second"] == [begin]


def test_changed_data_under_the_same_path_is_a_change(new_run):
    before = new_run("before")
    run_stage("ingest", before)
    source = Path(before.existing().settings.source)
    source.write_text(source.read_text() + "python and java,java\n")
    run = Run(before.store, "after")
    run.begin(before.existing().settings, CREATED)
    assert run_stage("ingest", run)["rows"] == 9


def test_other_code_is_a_change(first, monkeypatch):
    monkeypatch.setattr(cache_keys, "code_digest", lambda: "other")
    run = second(first)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}


def test_reuse_can_be_switched_off(first):
    run = second(first, reuse=False)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"?" + path.read_bytes()[1:])])
def test_a_damaged_result_is_not_taken_from_the_cache(first, damage):
    (part,) = Path(first.store.url).glob("runs/finished/ingest/*/posts/train/part-00000.parquet")
    damage(part)
    run = second(first)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}
    third = Run(first.store, "third")
    third.begin(run.existing().settings, CREATED)
    run_stage("ingest", third)
    assert whose(third) == {"ingest": "second"}, "the new result is found instead"


def test_another_champion_means_another_evaluation(first):
    run = second(first)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
        run_stage(stage, run)
    registry = Registry(first.store)
    card = registry.card(first.existing().first_version)
    other = card.model_copy(update={"version": 20260106000000, "checkpoint": "other", "data": "2026-01-06"})
    registry.publish(other, compared_with=card.version)
    run_stage("evaluate", run)
    assert whose(run)["evaluate"] == "second"
    assert run.manifest("evaluate").summary["champion"] == 20260106000000


def test_the_evaluation_compares_with_the_champion_of_its_cache_key(first, monkeypatch):
    """Another version goes live after the cache key is computed and before the comparison."""
    run = second(first, epochs=2, max_regression=1)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
        run_stage(stage, run)
    registry, find = Registry(first.store), cache.find
    card = registry.card(first.existing().first_version)
    other = card.model_copy(update={"version": 20260106000000, "checkpoint": "other", "data": "2026-01-06"})

    def promote_meanwhile(*arguments):
        monkeypatch.undo()
        registry.publish(other, compared_with=card.version)
        return find(*arguments)

    monkeypatch.setattr(cache, "find", promote_meanwhile)
    assert run_stage("evaluate", run)["champion"] == card.version
    with pytest.raises(StageOutOfOrder, match="run evaluate of run second again, then export"):
        run_stage("export", run)
    assert run_stage("evaluate", run)["champion"] == other.version
    assert run_stage("export", run)["live"]


def test_a_damaged_export_is_made_again_and_published(first):
    """The evaluation, from when no model was live, is cached: its candidate is the live model itself."""
    (labels,) = Path(first.store.url).glob("runs/finished/export/*/assets/labels.txt")
    labels.write_text("?")
    run = second(first)
    for stage in STAGES:
        summary = run_stage(stage, run)
    assert whose(run)["evaluate"] == first.name
    assert (whose(run)["export"], summary["version"], summary["live"]) == ("second", 20260112060708, True)


def test_a_model_that_a_person_took_down_is_not_published_again(first, caplog):
    for name, epochs, day in (("better", 4, 12), ("again", 4, 19), ("forced", 4, 26)):
        run = Run(first.store, name)
        forced = {"force": "withdrawn", "force_reason": "I know"} if name == "forced" else {}
        settings = first.existing().settings.model_copy(update={"epochs": epochs, "max_regression": 1} | forced)
        run.begin(settings, CREATED.replace(day=day))
        for stage in STAGES:
            summary = run_stage(stage, run)
        if name == "better":
            assert summary["live"]
            Registry(first.store).rollback("tags c as c++")
        elif name == "again":
            assert (summary["version"], summary["live"]) == (20260112060708, False)
            assert "the same model as version 20260112060708, which " in caplog.text
            assert [event.action for event in Registry(first.store).events()] == ["publish", "publish", "rollback"]
    assert (summary["version"], summary["live"]) == (20260126060708, True)


def test_a_source_that_changes_while_it_is_read_is_not_cached(new_run, tmp_path, monkeypatch):
    """Even if it is restored afterwards."""
    one, source = new_run("one"), tmp_path / "posts.csv"
    monday = source.read_bytes()
    run, real = runner.import_module("pipeline.stages.ingest").run, Path(source)

    def tuesday(*arguments):
        real.write_bytes(monday.replace(b"python", b"perl"))
        try:
            return run(*arguments)
        finally:
            real.write_bytes(monday)

    monkeypatch.setattr("pipeline.stages.ingest.run", tuesday)
    run_stage("ingest", one)
    monkeypatch.undo()
    two = new_run("two")
    run_stage("ingest", two)
    assert whose(two) == {"ingest": "two"}


@pytest.mark.parametrize("source", ["/proc/self/mem", "x" * 300])
def test_a_source_without_a_digest_is_refused_by_ingest(new_run, source):
    run = new_run("a", source=source)
    with pytest.raises(TaggerError):
        run_stage("ingest", run)


def test_an_object_is_identified_by_its_entity_tag(s3, tmp_path):
    source = "s3://stores/weekly.csv"
    store = Store(str(tmp_path / "store"))
    fs = Store("s3://stores").fs

    def ingested(name):
        run = Run(store, name)
        run.begin(Settings.of({"source": source}), CREATED)
        run_stage("ingest", run)
        return whose(run)["ingest"]

    fs.pipe_file("stores/weekly.csv", b"post,tags\nhow to,java\nwhy not,c\n")
    assert [ingested("one"), ingested("two")] == ["one", "one"]
    fs.pipe_file("stores/weekly.csv", b"post,tags\nhow to,java\nwhy not,d\n")
    assert ingested("three") == "three"


def test_a_result_that_is_collected_while_it_is_adopted_is_made_again(first, monkeypatch):
    adopt = Run.adopt

    def slow(run, manifest):
        cache.evict(first.store, {first.name})
        return adopt(run, manifest)

    monkeypatch.setattr(Run, "adopt", slow)
    run = second(first)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}


def test_a_damaged_cache_entry_is_ignored_and_evicted(first):
    (note,) = Path(first.store.url).glob("cache/ingest/*.json")
    note.write_text("?")
    cache.evict(first.store, {"other"})
    assert not note.exists()
    run = second(first)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}


def test_a_refusal_is_not_cached(new_run):
    for name in ("a", "b"):
        run = new_run(name, min_accuracy=1.0, epochs=1, learning_rate=1e-9)
        for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
            run_stage(stage, run)
        with pytest.raises(GateNotPassed):
            run_stage("evaluate", run)
    assert whose(run) == dict.fromkeys(("ingest", "fit_vocabulary", "vectorize", "train"), "a") | {"evaluate": "b"}


def test_garbage_collection_keeps_the_files_that_a_kept_run_adopted(first):
    for day, name in ((12, "second"), (13, "third")):
        run = Run(first.store, name)
        run.begin(
            first.existing().settings.model_copy(update={"epochs": day, "max_regression": 1}), CREATED.replace(day=day)
        )
        for stage in STAGES:
            run_stage(stage, run)
    settings = Deployment.of({"keep_versions": 0})
    assert [removal.path for removal in collect(run.store, settings, LATER)][-1] == "runs/second"
    assert run.store.names("runs") == ["finished", "third"]
    assert verify(run.store).faults == []
    again = Run(first.store, "again")
    again.begin(run.existing().settings, CREATED.replace(day=14))
    for stage in STAGES:
        run_stage(stage, again)
    assert whose(again) == whose(run)


SEEN: set[str] = set()


def recording(kind):
    """A subclass of the settings that records in SEEN which of them are read."""

    class Recorder(kind):
        def __getattribute__(self, name):
            if name in kind.model_fields:
                SEEN.add(name)
            return super().__getattribute__(name)

    return Recorder


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_settings_and_none_that_its_cache_key_does_not_name(first, stage):
    work = Work.of(stage, first)
    watched = {
        name: recording(type(values))(**values.model_dump())
        for name, values in (("settings", work.record.settings), ("deployment", work.record.deployment))
    }
    SEEN.clear()
    runner._do(replace(work, record=work.record.model_copy(update=watched)), {})
    assert SEEN, "nothing was recorded"
    by_runner = {"shards"} if STAGES[stage].sharded_by else set()
    assert {*STAGES[stage].reads, *by_runner} >= SEEN
