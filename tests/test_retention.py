from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from pipeline.registry import Registry, path_of
from pipeline.retention import removals, remove
from pipeline.settings import Settings
from pipeline.store import Store
from pipeline.verify import verify
from tests.conftest import small_version

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=100)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def published(store, tmp_path):
    return partial(small_version, store, folder=tmp_path, created=NOW)


def paths(store, *, keep_versions=1, keep_days=30, now=LATER):
    settings = Settings.of({"keep_versions": keep_versions, "keep_days": keep_days})
    return [removal.path for removal in removals(store, settings, now)]


def test_what_is_young_is_kept(store, published):
    for version in (1, 2, 3):
        published(version)
    published(4, publish=False)
    assert paths(store, keep_versions=0, now=NOW) == []


def test_the_live_version_and_those_before_it_are_kept_with_their_runs(store, published):
    runs = {version: published(version) for version in (1, 2, 3, 4, 5)}
    unpublished = published(6, publish=False)
    gone = paths(store, keep_versions=2)
    stale = [path for path in gone if "/export/" in path]
    assert sorted(set(gone) - set(stale)) == sorted(
        [path_of(1), path_of(2), runs[1].path, runs[2].path, unpublished.path]
    )
    assert {path.split("/")[1] for path in stale} == {"run3", "run4", "run5"}
    assert len(stale) == 3


def test_after_a_rollback_the_withdrawn_version_is_not_one_before_the_live(store, published):
    for version in (1, 2, 3):
        published(version)
    Registry(store).rollback("worse")
    assert {"runs/run3", "runs/run1"} <= set(paths(store, keep_versions=0))
    assert "runs/run2" not in paths(store, keep_versions=0)


def test_nothing_that_a_kept_thing_refers_to_is_removed(store, published):
    for version in (1, 2, 3, 4):
        published(version)
    settings = Settings.of({"keep_versions": 1, "keep_days": 0})
    for removal in removals(store, settings, LATER):
        remove(store, removal)
    assert removals(store, settings, LATER) == []
    assert verify(store).faults == []
    registry = Registry(store)
    assert registry.live() == 4
    assert sorted(store.names("models/stackoverflow_tagger")) == ["3", "4"]
    assert registry.rollback("to what was kept").live == 3
    assert [card.version for card in registry.cards()] == [4, 3, 2, 1], "cards and the log are kept for ever"


def test_a_removal_names_its_size(store, published):
    published(1)
    run = published(2)
    sizes = {removal.path: removal.bytes for removal in removals(store, Settings.of({"keep_versions": 0}), LATER)}
    assert sizes["models/stackoverflow_tagger/1"] == len("graph 1weights 1")
    assert sizes["runs/run1"] == sum(p.stat().st_size for p in Path(store.url, "runs/run1").rglob("*") if p.is_file())
    assert run.path not in sizes


def test_a_removal_cut_short_leaves_no_manifest_to_trust(store, published, monkeypatch):
    run = published(1)
    published(2)
    order = []
    monkeypatch.setattr(store, "remove", order.append)
    (removal,) = [r for r in removals(store, Settings.of({"keep_versions": 0}), LATER) if r.path == run.path]
    remove(store, removal)
    assert order[-1] == run.path
    assert f"{run.path}/export/manifest.json" in order[:-1]
