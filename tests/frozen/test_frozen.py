"""A store in format 1, made by the pipeline's first release: this version reads it and continues it.

The archive has a published run, an Airflow run whose version is live, a refused run, one whose stages are cached from
others, one interrupted in train, one with a shard not gathered yet, a collected version, and six entries of the log.
"""

import json
import shutil
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import CorruptArtifact, NewerFormat, StageOutOfOrder
from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.settings import Deployment
from pipeline.store.objects import Store
from pipeline.store.runs import Run, every_run
from pipeline.upkeep.gc import collect, removals
from pipeline.upkeep.verify import verify

ARCHIVE = Path(__file__).with_name("format-1.tar.xz")
FIRST, AIRFLOWS, COLLECTED = 20260105060708, 20260112060708, 20260119060708
AIRFLOW_RUN = "manual__2026-01-12T06_07_08_00_00"
RUNS = ["cut_off", "first", AIRFLOW_RUN, "refused", "sharded", "unchanged"]
LATER = datetime(2027, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    with tarfile.open(ARCHIVE) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.extractfile(member).read())
    return folder / "store"


@pytest.fixture
def frozen(unpacked, tmp_path):
    shutil.copytree(unpacked, tmp_path / "store")
    return Store(str(tmp_path / "store"))


@pytest.fixture
def tagger(frozen, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["tagger", *arguments, "--store", frozen.url])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


def edit(store, path, **fields):
    """Write fields into a document as another version of the pipeline would have."""
    store.write(path, store.read(path) | fields)


def test_only_new_documents_have_a_format(frozen):
    assert "format" not in frozen.read("runs/first/run.json")
    Registry(frozen).promote(FIRST, "to see what is written")
    assert frozen.read("registry/stackoverflow_tagger/log/00000007.json")["format"] == 2


def listed(table: str) -> list[str]:
    """The first cells of the table's rows; the lines below a run that say why it was refused have none."""
    return [line.split()[0] for line in table.splitlines()[1:] if not line.startswith(" ")]


def test_it_is_listed(tagger):
    status, out, _ = tagger("runs")
    assert status == 0
    assert sorted(listed(out)) == RUNS
    status, out, _ = tagger("models")
    state = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert (status, state[str(AIRFLOWS)], state[str(COLLECTED)]) == (0, "live", "collected")
    assert len(tagger("models", "--log")[1].splitlines()) == 7


def test_a_run_of_it_is_shown_by_the_id_that_airflow_shows(tagger):
    status, out, _ = tagger("show", "manual__2026-01-12T06:07:08+00:00")
    assert (status, f"version {AIRFLOWS}" in out) == (0, True)


def test_its_settings_are_a_run_s_and_a_deployment_s(frozen):
    record = Run(frozen, "sharded").existing()
    assert (record.settings.source, record.deployment.shards) == ("sample://posts?rows=300&seed=2", 2)
    assert record.unknown_settings == {}


def test_it_is_verified_without_faults(frozen):
    assert verify(frozen).faults == []


def test_its_versions_go_live_and_back(frozen):
    registry = Registry(frozen)
    registry.promote(FIRST, "it was better")
    assert registry.live() == FIRST
    assert registry.rollback("it was not").live == AIRFLOWS
    with pytest.raises(CorruptArtifact, match="garbage collection removed its files on 2026-11-24"):
        registry.promote(COLLECTED, "cannot be")
    assert verify(frozen).faults == []


def test_its_garbage_is_collected(frozen):
    deployment = Deployment(keep_versions=0, keep_days=1)
    gone = sorted(removal.path for removal in collect(frozen, deployment, LATER))
    assert gone[1:] == ["runs/cut_off", "runs/refused", "runs/sharded", "runs/unchanged"]
    assert [run.name for run in every_run(frozen)] == ["first", AIRFLOW_RUN], (
        "the live version's, and whose work it took"
    )
    assert frozen.names("reuse") == []
    assert verify(frozen).faults == []
    assert Registry(frozen).live() == AIRFLOWS


def test_unfinished_work_of_a_kept_run_is_collected(frozen):
    document = frozen.read("runs/first/ingest/manifest.json")
    frozen.write(
        "runs/manual__2026-01-12T06_07_08_00_00/train/partial.json", frozen.read("runs/cut_off/train/partial.json")
    )
    frozen.write("runs/manual__2026-01-12T06_07_08_00_00/train/partial/1/checkpoint", document)
    planned = [removal.path for removal in removals(frozen, Deployment(keep_versions=0, keep_days=1), LATER)]
    assert f"runs/{AIRFLOW_RUN}/train/partial" in planned


def test_a_new_run_is_published_over_it(frozen):
    run = Run(frozen, "next")
    settings = Run(frozen, "first").existing().settings
    run.begin(settings, datetime(2026, 2, 2, tzinfo=UTC))
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        summary = run_stage(stage, run)
    assert summary["drift"]["live"] == AIRFLOWS
    assert summary["drift"]["word_drift"] == 0


def test_a_run_of_format_1_cannot_be_continued(frozen):
    with pytest.raises(StageOutOfOrder, match=r"has no validation: it was made by an older version .* start a new run"):
        run_stage("train", Run(frozen, "refused"))


class TestOtherVersions:
    def test_an_unknown_setting_is_kept_and_does_no_harm(self, frozen, tagger):
        settings = frozen.read("runs/first/run.json")["settings"]
        edit(frozen, "runs/first/run.json", settings=settings | {"stemming": "porter"})
        record = Run(frozen, "first").existing()
        assert record.unknown_settings == {"stemming": "porter"}
        assert record.to_dict()["unknown_settings"] == {"stemming": "porter"}
        assert tagger("show", "first")[0] == 0

    def test_an_unknown_field_is_kept(self, frozen):
        path = f"registry/stackoverflow_tagger/versions/{FIRST}.json"
        edit(frozen, path, calibration=0.03)
        assert Registry(frozen).card(FIRST).to_dict()["calibration"] == 0.03
        edit(frozen, "runs/first/ingest/manifest.json", host="a")
        assert Run(frozen, "first").manifest("ingest").to_dict()["host"] == "a"

    @pytest.mark.parametrize("document", ["run.json", "train/manifest.json"])
    def test_a_newer_format_is_refused_for_its_run_alone(self, frozen, tagger, document):
        edit(frozen, f"runs/unchanged/{document}", format=3)
        sentence = f"runs/unchanged/{document} was written by a newer version of this pipeline (format 3, "
        status, out, err = tagger("runs")
        assert (status, len(listed(out)), err.count(sentence)) == (0, len(RUNS) - 1, 1)
        status, _, err = tagger("show", "unchanged")
        assert (status, err.count(sentence), len(err.splitlines())) == (1, 1, 1)
        assert tagger("show", "first")[0] == 0

    @pytest.mark.parametrize("document", ["run.json", "train/manifest.json"])
    def test_a_run_of_a_newer_format_is_kept_with_all_that_it_names(self, frozen, document):
        """Its train is that of the Airflow run, whose version is not needed otherwise."""
        Registry(frozen).promote(FIRST, "so that only the run of the newer format names the other's train")
        edit(frozen, f"runs/unchanged/{document}", format=3)
        gone = [removal.path for removal in collect(frozen, Deployment(keep_versions=0, keep_days=1), LATER)]
        assert "runs/refused" in gone
        manifest = json.loads(Path(frozen.path("runs/unchanged/train/manifest.json")).read_text())
        assert frozen.names(f"runs/{manifest['run']}/train/{manifest['attempt']}/model")
        assert Run(frozen, "unchanged").store.exists("runs/unchanged/run.json")

    def test_a_document_that_lacks_a_field_is_named(self, frozen):
        document = frozen.read("runs/first/train/manifest.json")
        del document["attempt"]
        frozen.write("runs/first/train/manifest.json", document)
        with pytest.raises(
            CorruptArtifact, match=r"train/manifest\.json is not a manifest that .*\(attempt: Field required\)"
        ):
            Run(frozen, "first").manifests()

    def test_a_newer_card_is_left_out_of_the_list_and_its_run_is_kept(self, frozen, tagger, caplog):
        edit(frozen, f"registry/stackoverflow_tagger/versions/{AIRFLOWS}.json", format=3)
        status, out, err = tagger("models")
        assert (status, str(FIRST) in out, str(AIRFLOWS) in out) == (0, True, False)
        assert f"version {AIRFLOWS} is left out: " in err + caplog.text
        removed = [removal.path for removal in removals(frozen, Deployment(keep_versions=0, keep_days=1), LATER)]
        assert "runs/refused" in removed
        assert f"runs/{AIRFLOW_RUN}" not in removed

    def test_a_newer_card_is_refused_in_a_sentence(self, frozen):
        edit(frozen, f"registry/stackoverflow_tagger/versions/{FIRST}.json", format=3)
        with pytest.raises(NewerFormat, match="update the pipeline to use it"):
            Registry(frozen).promote(FIRST, "cannot be")
        assert Registry(frozen).live() == AIRFLOWS
