"""The folder that TensorFlow Serving watches holds the live version, whole, and no other."""

import importlib.util
import shutil

import pytest

from pipeline.registry.registry import Registry
from pipeline.store.objects import Store
from tests.cluster.compose import FOLDER
from tests.conftest import files_of

spec = importlib.util.spec_from_file_location("bring_models", FOLDER / "bring_models.py")
bring_models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bring_models)


@pytest.fixture
def watched(tmp_path):
    return tmp_path / "models" / "stackoverflow_tagger"


@pytest.fixture
def registry(finished_run, tmp_path):
    """A copy of a store with one live version, which may be changed."""
    shutil.copytree(finished_run.store.root, tmp_path / "store")
    return Registry(Store(str(tmp_path / "store")))


def test_without_a_live_version_the_folder_is_left_alone(tmp_path, watched):
    assert bring_models.bring(Registry(Store(str(tmp_path / "empty"))), watched) is None
    assert not watched.exists()


def test_the_live_version_comes_whole_and_what_was_there_goes(registry, watched):
    (watched / "1").mkdir(parents=True)
    (watched.parent / "coming").mkdir()
    (watched.parent / "coming" / "half").write_text("of an earlier try")
    [card] = registry.cards()
    assert bring_models.bring(registry, watched) == card.version
    assert {name: len(data) for name, data in files_of(watched).items()} == {
        f"{card.version}/{name}": entry.bytes for name, entry in card.files.items()
    }
    assert [path.name for path in watched.parent.iterdir()] == [watched.name]


def test_a_version_that_is_there_is_not_brought_again(registry, watched):
    version = bring_models.bring(registry, watched)
    before = (watched / str(version)).stat()
    assert bring_models.bring(registry, watched) == version
    assert (watched / str(version)).stat() == before
