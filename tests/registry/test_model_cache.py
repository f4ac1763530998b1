"""A model is fetched from the store once, and used only if every byte is what was published."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import BadInput, CorruptArtifact
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import path_of
from pipeline.store.objects import Store
from tests.conftest import CREATED, files_of, small_version

MODEL = {"saved_model.pb": b"graph 1", "variables": b"weights 1"}


@pytest.fixture
def registry(tmp_path):
    store = Store(str(tmp_path / "store"))
    small_version(store, 1, tmp_path, created=CREATED)
    return Registry(store)


@pytest.fixture
def cache():
    return model_cache.cache_folder()


def answered(registry, version=None):
    with model_cache.opened(registry, version) as folder:
        return files_of(folder)


def test_a_model_is_fetched_once(registry, cache, monkeypatch):
    assert answered(registry) == MODEL
    monkeypatch.setattr(registry.store, "download", None)
    assert answered(registry) == answered(registry, 1) == MODEL
    (kept,) = cache.iterdir()
    assert files_of(kept) == MODEL


def damage(path):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_a_live_model_that_is_damaged_where_it_is_served_does_not_answer(registry, cache):
    served = Path(registry.store.url, path_of(1), "variables")
    damage(served)
    for _ in range(2):
        with pytest.raises(CorruptArtifact, match=rf"1 is damaged where it is served: {served} has other bytes"):
            answered(registry)
    registry.promote(1, "to put it right")
    assert answered(registry) == MODEL


def test_a_copy_in_progress_is_not_damage(registry):
    Path(registry.store.url, path_of(1), "saved_model.pb").unlink()
    assert answered(registry) == MODEL


def test_a_damaged_run_does_not_answer_and_leaves_nothing_in_the_cache(registry, cache):
    damage(Path(registry.store.url, registry.card(1).path, "variables"))
    with pytest.raises(CorruptArtifact, match="variables is not the file that was written there"):
        answered(registry)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: damage(kept / "variables"),
        lambda kept: (kept / "variables").unlink(),
        lambda kept: (kept / "more").write_text("?"),
        lambda kept: (shutil.rmtree(kept), kept.write_text("no folder")),
    ],
    ids=["changed", "lost", "foreign", "no folder"],
)
def test_a_damaged_cache_is_repaired(registry, cache, spoil):
    answered(registry)
    (kept,) = cache.iterdir()
    spoil(kept)
    assert answered(registry) == MODEL
    assert files_of(kept) == MODEL
    assert list(cache.iterdir()) == [kept]


@pytest.mark.parametrize("permissions", [0o777, 0o770, 0o707, 0o720, 0o702], ids=oct)
def test_a_cache_that_other_users_may_write_to_is_not_used(registry, cache, permissions):
    answered(registry)
    for folder in (cache, cache.parent):
        mode = folder.stat().st_mode
        folder.chmod(permissions)
        (kept,) = cache.iterdir()
        before = kept.stat().st_mtime_ns
        with model_cache.opened(registry, None) as folder_used:
            assert cache not in folder_used.parents
            assert files_of(folder_used) == MODEL
        assert kept.stat().st_mtime_ns == before
        folder.chmod(mode)


def test_a_cache_of_another_user_is_not_used(registry, cache, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert answered(registry) == MODEL
    assert list(cache.iterdir()) == []


def test_without_a_cache_the_model_is_fetched(registry, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(model_cache, "cache_folder", lambda: tmp_path / "file" / "models")
    assert answered(registry) == MODEL


def test_concurrent_readers_all_get_the_complete_model(registry, cache):
    def ask(_):
        return answered(Registry(Store(registry.store.url)))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(24))) == [MODEL] * 24
    assert len(list(cache.iterdir())) == 1


def test_the_least_recently_used_model_and_abandoned_folders_are_evicted(registry, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(model_cache, "MAX_MODELS", 2)
    for version in (2, 3):
        small_version(registry.store, version, tmp_path, created=CREATED.replace(day=6 + version))
    left = cache / "coming-left"
    left.mkdir()
    for at, version in enumerate((1, 2, 1, 3)):
        answered(registry, version)
        for path in cache.glob(f"{version}-*"):
            os.utime(path, (at, at))
    os.utime(left, (0, 0))
    next(cache.glob("3-*")).rename(tmp_path / "away")
    answered(registry, 3)
    assert sorted(path.name.partition("-")[0] for path in cache.iterdir()) == ["1", "3"]


def test_an_unpublished_version_is_refused(tmp_path):
    with (
        pytest.raises(BadInput, match="does not hold a live version"),
        model_cache.opened(Registry(Store(str(tmp_path))), None),
    ):
        pass
