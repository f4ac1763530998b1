import shutil
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.registry.registry import CARDS, LOG, Registry
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.verify import verify
from tests.conftest import attempts


@pytest.fixture
def store(finished_run, tmp_path):
    shutil.copytree(finished_run.store.url, tmp_path / "store")
    return Store(str(tmp_path / "store"))


def test_an_undamaged_store_has_no_faults(store):
    whole = verify(store)
    assert whole.faults == []
    files = [path for path in Path(store.url).rglob("*") if path.is_file()]
    assert whole.files >= len(files)


def test_one_run_or_one_version_alone(store, finished_run):
    (path,) = Path(store.url).glob("models/*/*/saved_model.pb")
    path.write_bytes(path.read_bytes()[:-1])
    assert verify(store, finished_run.name).faults == []
    (fault,) = verify(store, "20260105060708").faults
    assert fault.startswith(f"{path} has other bytes than were written: `tagger promote 20260105060708` fixes it")
    with pytest.raises(BadInput, match="neither a run nor a version named 'x'"):
        verify(store, "x")


def test_a_lost_live_version_is_named_with_its_cure(store):
    shutil.rmtree(Path(store.url, "models"))
    assert verify(store).faults == [
        "live version 20260105060708 is incomplete or damaged in "
        f"{store.display_path('models/stackoverflow_tagger/20260105060708')}: "
        "`tagger promote 20260105060708` fixes it"
    ]


def test_a_file_that_nobody_published_is_named(store):
    (Path(store.url, "models/stackoverflow_tagger/20260105060708/extra.txt")).write_text("?")
    assert any("extra.txt belongs to no published version" in fault for fault in verify(store).faults)


def test_files_without_a_manifest_are_ignored(store, finished_run):
    Path(store.url, "runs", finished_run.name, "train", "20260101T000000-deadbeef").mkdir()
    assert verify(store).faults == []
    assert attempts(Run(store, finished_run.name), "train")[0] == "20260101T000000-deadbeef"


LOST = {
    "the settings of a run": ("runs/finished/run.json", "is gone: restore it, or start a new run"),
    "an entry of the log": (
        f"{LOG}/00000001.json",
        "00000001.json is gone: restore it",
    ),
    "the card of the live version": (f"{CARDS}/20260105060708.json", "is gone, though the log names version 2026"),
}


@pytest.mark.parametrize("what", LOST)
def test_a_lost_document_is_named(store, what):
    path, sentence = LOST[what]
    Registry(store).promote(20260105060708, "a second entry")
    Path(store.url, path).unlink()
    assert any(sentence in fault for fault in verify(store).faults)


def test_the_lost_run_of_the_live_version_is_named(store):
    shutil.rmtree(Path(store.url, "runs"))
    faults = verify(store).faults
    assert any(
        "/export/" in fault and "saved_model.pb is gone: this version cannot be served again" in fault
        for fault in faults
    )


@pytest.mark.parametrize("name", ["checkpoint", "shards/0"])
def test_a_flipped_bit_in_unfinished_work_is_found(store, tmp_path, name):
    run = Run(store, "finished")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("half of it")
    run.files.save("train", name, tmp_path / "kept", {})
    assert verify(store).faults == []
    (file,) = Path(store.url, "runs/finished/train", name).glob("*/file")
    for path, whole in ((file, "half of it"), (Path(store.url, f"runs/finished/train/{name}.json"), None)):
        whole = whole or path.read_text()
        path.write_text("?" + whole[1:])
        assert [str(path) in fault for fault in verify(store).faults] == [True]
        path.write_text(whole)


def test_other_files_among_the_cards_are_ignored(store):
    Path(store.url, CARDS, "1 (copy).json").write_text("?")
    assert verify(store).faults == []
