import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import BadInput, StageOutOfOrder
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.code import _tree_digest, code_digest
from pipeline.store.objects import Store
from pipeline.store.runs import Run, identifier_of, name_of
from tests.conftest import CREATED

PACKAGE = Path(__file__).parents[2] / "pipeline"
DATE = datetime(2026, 1, 5, tzinfo=UTC)


def commit(run, stage, folder, *inputs, content="x"):
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text(content)
    manifests = {name: run.manifest(name) for name in inputs}
    return run.commit(stage, folder, inputs=manifests, summary={"rows": 1}, seconds=1, peak_mib=None)


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("manual__2026-01-05T00:00:00.5+00:00_aB", "manual__2026-01-05T00_00_00.5_00_00_aB"),
        ("../etc/passwd", ".._etc_passwd"),
        ("café run", "caf__run"),
    ],
)
def test_the_name_of_a_run_has_only_portable_characters(identifier, name):
    assert name_of(identifier) == name


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a:b"])
def test_a_name_that_cannot_name_a_folder_is_refused(name):
    with pytest.raises(BadInput, match="cannot name a run"):
        Run(Store("memory://x"), name)


def test_a_temporary_airflow_run_is_known_by_its_date():
    assert identifier_of("scheduled__2026-01-05", None) == "scheduled__2026-01-05"
    temporary = [identifier_of(f"__airflow_temporary_run_{n}__", DATE) for n in range(2)]
    assert temporary == ["test__2026-01-05T00:00:00+00:00"] * 2
    with pytest.raises(BadInput, match="needs a date"):
        identifier_of("__airflow_temporary_run_1__", None)


def test_the_version_is_the_runs_own_time(new_run):
    assert new_run().existing().first_version == 20260105060708


def test_run_json_holds_settings_and_versions_but_no_store(new_run):
    run = new_run(epochs=7)
    document = run.store.read("runs/a/run.json")
    assert document["settings"]["epochs"] == 7
    assert "store" not in document["settings"]
    assert document["packages"]["tensorflow"] == "2.15.1"
    assert run.record().settings.epochs == 7


def test_settings_may_be_corrected_until_a_stage_is_complete(new_run, tmp_path):
    run = new_run(epochs=3)
    new_run(epochs=4)
    assert run.record().settings.epochs == 4

    commit(run, "ingest", tmp_path / "out")
    new_run(epochs=4)
    with pytest.raises(BadInput, match=r"made with other settings \(epochs=4, now 5\)"):
        new_run(epochs=5)


def test_a_retry_keeps_the_runs_time(new_run):
    run = new_run()
    run.begin(run.existing().settings, CREATED + timedelta(days=1))
    assert run.existing().created == CREATED


def test_two_airflow_runs_never_share_a_name():
    run = Run(Store("memory://shared"), "a_b")
    run.begin(Settings(), CREATED, "a:b")
    run.begin(Settings(), CREATED, "a:b")
    run.begin(Settings(), CREATED)
    with pytest.raises(BadInput, match="belongs to the Airflow run 'a:b'"):
        run.begin(Settings(), CREATED, "a+b")


def test_files_without_a_manifest_do_not_count(new_run, tmp_path):
    run = new_run()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "file").write_text("half")
    run.store.upload(tmp_path / "half", "runs/a/ingest/20260105-dead")
    assert run.manifests() == {}
    with pytest.raises(StageOutOfOrder, match="needs ingest, which is not complete: run ingest first"):
        run.inputs("fit_vocabulary", STAGES["fit_vocabulary"].needs)


def test_an_attempt_is_never_reused_and_the_last_manifest_counts(new_run, tmp_path):
    run = new_run()
    attempts = [commit(run, "ingest", tmp_path / "out", content=text).attempt for text in ("one", "two")]
    assert attempts[0] != attempts[1]
    run.files.fetch(run.manifest("ingest"), tmp_path / "back")
    assert (tmp_path / "back" / "file").read_text() == "two"


def test_a_stage_made_from_replaced_files_is_stale(new_run, tmp_path):
    run = new_run()
    commit(run, "ingest", tmp_path / "out", content="one")
    commit(run, "fit_vocabulary", tmp_path / "out", "ingest")
    assert set(run.inputs("vectorize", STAGES["vectorize"].needs)) == {"ingest", "fit_vocabulary"}

    commit(run, "ingest", tmp_path / "out", content="one")
    assert run.inputs("vectorize", STAGES["vectorize"].needs), "the same bytes again are the same input"

    commit(run, "ingest", tmp_path / "out", content="two")
    with pytest.raises(StageOutOfOrder, match="fit_vocabulary of run a was made from another ingest"):
        run.inputs("vectorize", STAGES["vectorize"].needs)


def test_a_missing_run_is_reported():
    with pytest.raises(StageOutOfOrder, match="holds no run 'a': `tagger runs` lists its runs"):
        Run(Store("memory://empty"), "a").existing()


def test_of_two_runs_that_begin_at_once_under_one_name_one_is_refused(tmp_path, monkeypatch):
    store, other = Store(str(tmp_path / "store")), Run(Store(str(tmp_path / "store")), "a_b")
    create = store.create

    def late(path, document):
        monkeypatch.undo()
        other.begin(Settings(), CREATED, "a+b")
        return create(path, document)

    monkeypatch.setattr(store, "create", late)
    with pytest.raises(BadInput, match=r"run a_b belongs to the Airflow run 'a\+b'"):
        Run(store, "a_b").begin(Settings(), CREATED, "a:b")
    assert other.existing().airflow_run_id == "a+b"


def test_the_code_digest_covers_every_file_of_the_package_but_no_cache(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    assert _tree_digest(tmp_path / "pipeline") == code_digest()
    (tmp_path / "pipeline" / "sources" / "__pycache__").mkdir()
    for cache in ("sources/__pycache__/sample.cpython-311.pyc", ".DS_Store"):
        (tmp_path / "pipeline" / cache).write_text("x")
    assert _tree_digest(tmp_path / "pipeline") == code_digest()
    with (tmp_path / "pipeline" / "sources" / "sample.toml").open("a") as words:
        words.write("# changed\n")
    assert _tree_digest(tmp_path / "pipeline") != code_digest()
