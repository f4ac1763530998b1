import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.errors import CorruptArtifact, GateNotPassed, StageOutOfOrder, Unavailable
from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.stages import ingest as ingest_stage
from pipeline.stages.plan import STAGES, Stage
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import files_of


def run_through(run, last="export"):
    for stage in STAGES:
        summary = run_stage(stage, run)
        if stage == last:
            return summary


@pytest.fixture
def copied_run(finished_run, tmp_path):
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "cache")
    return Run(Store(str(tmp_path / "store")), finished_run.name)


@pytest.mark.parametrize("stage", STAGES)
def test_a_retry_of_a_stage_leaves_the_same_artifacts(copied_run, stage):
    before = copied_run.manifest(stage)
    published = files_of(Path(copied_run.store.url, "models"))
    summary = run_stage(stage, copied_run)
    after = copied_run.manifest(stage)
    assert after.attempt != before.attempt
    assert after.files == before.files
    timed = {"examples_per_second"}
    assert {k: v for k, v in after.summary.items() if k not in timed} == {
        k: v for k, v in before.summary.items() if k not in timed
    }
    assert files_of(Path(copied_run.store.url, "models")) == published
    if stage == "export":
        assert summary["version"] == copied_run.existing().first_version


def test_each_manifest_names_what_it_was_made_from(finished_run):
    manifests = finished_run.manifests()
    for name, stage in STAGES.items():
        assert manifests[name].inputs == {need: manifests[need].digest for need in stage.needs}


def test_a_run_publishes_one_version_that_is_live(finished_run):
    card = Registry(finished_run.store).card(finished_run.existing().first_version)
    assert card.run == finished_run.name
    assert card.accuracy == finished_run.manifest("evaluate").summary["accuracy"]
    assert Registry(finished_run.store).live() == card.version


def test_a_failed_gate_keeps_its_evidence_publishes_nothing_and_stops_export(new_run, tmp_path):
    run = new_run(min_accuracy=1.0, epochs=1, learning_rate=1e-9)
    with pytest.raises(GateNotPassed, match=r"accuracy 0\.\d+ on the test posts is below min_accuracy 1.0"):
        run_through(run)
    run.files.fetch(run.manifest("evaluate"), tmp_path / "evidence")
    assert json.loads((tmp_path / "evidence" / "evaluation.json").read_text())["verdict"] == "failed"
    with pytest.raises(GateNotPassed, match="nothing is exported: accuracy"):
        run_stage("export", run)
    assert run.manifest("export") is None
    assert Registry(run.store).cards() == []
    assert not Path(run.store.url, "models").exists()


def test_without_a_threshold_no_model_passes(new_run):
    with pytest.raises(GateNotPassed, match="min_accuracy is not set, so no model can pass"):
        run_through(new_run(min_accuracy=None), last="evaluate")


def test_a_refusal_leaves_its_reason_and_a_report(new_run):
    run = new_run(tag_column="label")
    with pytest.raises(Exception, match="has no column 'label'"):
        run_stage("ingest", run)
    assert sorted(run.store.names("runs/a")) == ["refused.json", "report", "run.json"]
    assert (run.refusal().stage, run.manifests()) == ("ingest", {})
    assert "has no column 'label'" in run.refusal().why


def test_a_stage_before_its_inputs_is_refused(new_run):
    with pytest.raises(StageOutOfOrder, match="train of run a needs fit_vocabulary"):
        run_stage("train", new_run())


def test_a_changed_input_is_found_before_the_stage_runs(new_run):
    run = new_run()
    run_stage("ingest", run)
    (part,) = Path(run.store.url).glob("runs/a/ingest/*/posts/train/part-00000.parquet")
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptArtifact, match=r"part-00000\.parquet is not the file"):
        run_stage("fit_vocabulary", run)


def test_a_full_disk_can_be_tried_again_and_leaves_nothing(new_run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    run = new_run()
    monkeypatch.setattr(ingest_stage, "run", full)
    with pytest.raises(Unavailable, match=r"ingest: the disk under .* failed \(No space left on device\)"):
        run_stage("ingest", run)
    assert run.manifest("ingest") is None


def test_scratch_folders_are_removed(new_run, monkeypatch, tmp_path):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    run_through(new_run(), last="evaluate")
    left = os.listdir(tmp_path / "scratch")
    assert [name for name in left if not name.startswith("__autograph")] == []  # TensorFlow's own, removed at exit


def test_a_seventh_stage_is_one_module_and_one_entry_of_the_table(copied_run, monkeypatch):
    @dataclass(frozen=True)
    class Counted:
        rows: int
        seed: int

    def run(inputs, out, settings, context):
        (out / "files.txt").write_text("\n".join(sorted(files_of(inputs["fit_vocabulary"]))))
        return Counted(len(inputs), settings.seed)

    module = ModuleType("pipeline.stages.count")
    module.run = run
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(STAGES, "count", Stage("count", needs=("fit_vocabulary",), reads=("seed",), does="Counts."))
    assert run_stage("count", copied_run) == {"rows": 1, "seed": 0}
    manifest = copied_run.manifest("count")
    assert list(manifest.files) == ["files.txt"]
    assert manifest.inputs == {"fit_vocabulary": copied_run.manifest("fit_vocabulary").digest}
    assert run_stage("count", copied_run) == {"rows": 1, "seed": 0}
    assert copied_run.manifest("count").attempt == manifest.attempt, "the second time it comes from the cache"
