"""No work is done twice: and none is taken over that is not the very same."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.test_retention import LATER

from pipeline.errors import GateNotPassed, TaggerError
from pipeline.execution import cache, runner
from pipeline.execution.gc import collect
from pipeline.execution.runner import run_stage
from pipeline.execution.verify import verify
from pipeline.registry.registry import Registry
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, files_of


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


def test_where_nothing_changed_no_stage_runs_and_nothing_new_is_published(first):
    run = second(first)
    served = files_of(Path(first.store.url, "models"))
    for stage in STAGES:
        summary = run_stage(stage, run)
    assert set(whose(run).values()) == {first.name}
    assert len(whose(run)) == 6
    assert (summary["version"], summary["live"]) == (first.existing().version, True)
    assert len(Registry(run.store).events()) == 1
    assert files_of(Path(first.store.url, "models")) == served
    assert verify(run.store).faults == []


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
    monkeypatch.setattr(cache, "code_digest", lambda: "other")
    run = second(first)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}


def test_reuse_can_be_switched_off(first):
    run = second(first, reuse=False)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"?" + path.read_bytes()[1:])])
def test_damaged_work_is_done_anew(first, damage):
    (part,) = Path(first.store.url).glob("runs/finished/ingest/*/posts/part-00000.parquet")
    damage(part)
    run = second(first)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}
    third = Run(first.store, "third")
    third.begin(run.existing().settings, CREATED)
    run_stage("ingest", third)
    assert whose(third) == {"ingest": "second"}, "what was done anew is found instead"


def test_a_run_compared_with_another_live_model_is_evaluated_anew(first):
    run = second(first)
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
        run_stage(stage, run)
    registry = Registry(first.store)
    card = registry.card(first.existing().version)
    other = replace(card, version=20260106000000, checkpoint="other", data="2026-01-06")
    registry.publish(other, beside=card.version)
    run_stage("evaluate", run)
    assert whose(run)["evaluate"] == "second"
    assert run.manifest("evaluate").summary["champion"] == 20260106000000


def test_a_damaged_export_is_made_anew_and_published(first):
    """The verdict, reached when no model was live, is taken over: it is of the very model that is live."""
    (labels,) = Path(first.store.url).glob("runs/finished/export/*/assets/labels.txt")
    labels.write_text("?")
    run = second(first)
    for stage in STAGES:
        summary = run_stage(stage, run)
    assert whose(run)["evaluate"] == first.name
    assert (whose(run)["export"], summary["version"], summary["live"]) == ("second", 20260112060708, True)


def test_what_a_person_took_down_does_not_come_back_by_itself(first, caplog):
    for name, epochs, day in (("better", 4, 12), ("again", 4, 19), ("forced", 4, 26)):
        run = Run(first.store, name)
        settings = first.existing().settings.model_copy(
            update={"epochs": epochs, "max_regression": 1, "force_reason": "I know" if name == "forced" else None}
        )
        run.begin(settings, CREATED.replace(day=day))
        for stage in STAGES:
            summary = run_stage(stage, run)
        if name == "better":
            assert summary["live"]
            Registry(first.store).rollback("tags c as c++")
        elif name == "again":
            assert (summary["version"], summary["live"]) == (20260112060708, False)
            assert "the very model of version 20260112060708, which " in caplog.text
            assert [event.action for event in Registry(first.store).events()] == ["publish", "publish", "rollback"]
    assert (summary["version"], summary["live"]) == (20260126060708, True)


def test_a_source_that_is_replaced_while_it_is_read_is_not_remembered(new_run, tmp_path, monkeypatch):
    """Even where it is put back afterwards."""
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
def test_a_source_whose_digest_cannot_be_taken_is_ingests_to_refuse(new_run, source):
    run = new_run("a", source=source)
    with pytest.raises(TaggerError):
        run_stage("ingest", run)


def test_an_object_is_known_by_its_tag_and_another_in_its_place_is_a_change(s3, tmp_path):
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


def test_what_retention_removes_while_it_is_taken_over_is_done_anew(first, monkeypatch):
    adopt = Run.adopt

    def slow(run, manifest):
        cache.forget(first.store, {first.name})
        adopt(run, manifest)

    monkeypatch.setattr(Run, "adopt", slow)
    run = second(first)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}


def test_a_note_that_cannot_be_read_is_no_hindrance(first):
    (note,) = Path(first.store.url).glob("reuse/ingest/*.json")
    note.write_text("?")
    cache.forget(first.store, {"other"})
    assert not note.exists()
    run = second(first)
    run_stage("ingest", run)
    assert whose(run) == {"ingest": "second"}


def test_a_refusal_is_not_taken_over(new_run):
    for name in ("a", "b"):
        run = new_run(name, min_accuracy=1.0, epochs=1, learning_rate=1e-9)
        for stage in ("ingest", "fit_vocabulary", "vectorize", "train"):
            run_stage(stage, run)
        with pytest.raises(GateNotPassed):
            run_stage("evaluate", run)
    assert whose(run) == dict.fromkeys(("ingest", "fit_vocabulary", "vectorize", "train"), "a") | {"evaluate": "b"}


def test_retention_keeps_what_a_kept_run_has_taken_over(first):
    for day, name in ((12, "second"), (13, "third")):
        run = Run(first.store, name)
        run.begin(
            first.existing().settings.model_copy(update={"epochs": day, "max_regression": 1}), CREATED.replace(day=day)
        )
        for stage in STAGES:
            run_stage(stage, run)
    settings = Settings.of({"keep_versions": 0})
    assert [removal.path for removal in collect(run.store, settings, LATER)][-1] == "runs/second"
    assert run.store.names("runs") == ["finished", "third"]
    assert verify(run.store).faults == []
    again = Run(first.store, "again")
    again.begin(run.existing().settings, CREATED.replace(day=14))
    for stage in STAGES:
        run_stage(stage, again)
    assert whose(again) == whose(run)


class Recorder(Settings):
    """Settings that remember which of them were read."""

    def __getattribute__(self, name):
        if name in Settings.model_fields:
            SEEN.add(name)
        return super().__getattribute__(name)


SEEN: set[str] = set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_no_setting_that_it_does_not_name(first, stage, monkeypatch):
    record = first.existing()
    inputs = first.inputs(STAGES[stage])
    monkeypatch.setattr(Run, "existing", lambda _: replace(record, settings=Recorder(**record.settings.model_dump())))
    settings = first.existing().settings
    SEEN.clear()
    runner._worked(first, stage, inputs, settings, {})
    reads = {*STAGES[stage].reads, "shards"}  # the runner itself reads shards
    assert reads >= SEEN
