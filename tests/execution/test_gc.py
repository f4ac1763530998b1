from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import CorruptArtifact
from pipeline.execution import cache
from pipeline.execution.gc import collect, removals
from pipeline.execution.verify import verify
from pipeline.registry.registry import CARDS, Registry
from pipeline.registry.serving_dir import path_of
from pipeline.settings import Deployment, Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
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
    settings = Deployment.of({"keep_versions": keep_versions, "keep_days": keep_days})
    return [removal.path for removal in removals(store, settings, now)]


def test_young_runs_and_versions_are_kept(store, published):
    for version in (1, 2, 3):
        published(version)
    published(4, publish=False)
    assert paths(store, keep_versions=0, now=NOW) == []


def test_why_a_run_was_refused_before_it_began_is_kept_as_long_as_a_run(store):
    Run(store, "refused").refuse("ingest", "the source that it was given is not a valid URL: correct it")
    assert paths(store, now=NOW) == []
    assert paths(store) == ["runs/refused"]


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


def test_a_version_that_was_rolled_back_is_not_kept(store, published):
    for version in (1, 2, 3):
        published(version)
    Registry(store).rollback("worse")
    assert {"runs/run3", "runs/run1"} <= set(paths(store, keep_versions=0))
    assert "runs/run2" not in paths(store, keep_versions=0)


def test_everything_that_a_kept_version_needs_is_kept(store, published):
    for version in (1, 2, 3, 4):
        published(version)
    settings = Deployment.of({"keep_versions": 1, "keep_days": 0})
    planned = paths(store, keep_days=0)
    assert [removal.path for removal in collect(store, settings, LATER)] == planned
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
    sizes = {removal.path: removal.bytes for removal in removals(store, Deployment.of({"keep_versions": 0}), LATER)}
    assert sizes["models/stackoverflow_tagger/1"] == len("graph 1weights 1")
    assert sizes["runs/run1"] == sum(p.stat().st_size for p in Path(store.url, "runs/run1").rglob("*") if p.is_file())
    assert run.path not in sizes


def collected(store, **values):
    settings = Deployment.of({"keep_versions": 0, "keep_days": 30} | values)
    return [removal.path for removal in collect(store, settings, LATER)]


def test_a_removal_removes_the_manifests_first(store, published, monkeypatch):
    run = published(1)
    published(2)
    order = []
    remove = store.remove
    monkeypatch.setattr(store, "remove", lambda path: (order.append(path), remove(path)))
    assert run.path in collected(store)
    at = order.index(run.path)
    assert f"{run.path}/export/manifest.json" in order[:at]
    assert "garbage collection removed its files" in Registry(store).collected(1)
    assert verify(store).faults == []


def test_the_run_that_published_another_runs_files_is_kept_with_them(store, published):
    """As after a cached export: drift is measured from the data of the run that the card names."""
    published(1)
    Run(store, "publisher").begin(Settings(), NOW)
    card = Registry(store).card(1)
    Registry(store).publish(
        card.model_copy(update={"version": 2, "run": "publisher", "checkpoint": "2"}), compared_with=1
    )
    assert not [path for path in paths(store, keep_versions=0) if path in {"runs/run1", "runs/publisher"}]


def test_a_version_that_goes_live_before_its_removal_is_kept(store, published, monkeypatch):
    for version in (1, 2, 3):
        published(version)
    evict = cache.evict

    def then_promote(*arguments):
        evict(*arguments)
        Registry(store).promote(1, "the best")

    monkeypatch.setattr(cache, "evict", then_promote)
    assert "runs/run2" in collected(store)
    assert Registry(store).live() == 1
    assert verify(store).faults == []
    assert Registry(store).fetch(None, Path(store.url, "back")).version == 1


def test_a_version_that_goes_live_between_two_removals_is_kept(store, published):
    for version in (1, 2, 3, 4):
        published(version)
    removing = collect(store, Deployment.of({"keep_versions": 0, "keep_days": 0}), LATER)
    gone = {next(removing).path}
    Registry(store).promote(2, "the best")
    gone |= {removal.path for removal in removing}
    assert {"runs/run1", "runs/run3", "runs/run4"} <= gone
    assert "runs/run2" not in gone
    assert verify(store).faults == []


def test_a_lost_card_of_a_kept_version_stops_garbage_collection(store, published):
    published(1)
    published(2)
    store.remove(f"{CARDS}/2.json")
    with pytest.raises(CorruptArtifact, match=r"2\.json is gone, so it is not known which run version 2 comes from"):
        paths(store)


def test_a_run_whose_settings_cannot_be_read_is_kept_and_stops_nothing(store, published):
    for version in (1, 2, 3):
        published(version)
    Path(store.url, "runs/run1/run.json").write_text("?")
    gone = paths(store, keep_versions=0)
    assert "runs/run2" in gone
    assert "runs/run1" not in gone


@pytest.mark.parametrize("stray", [".DS_Store", "my copy/file"])
def test_other_files_among_the_runs_are_ignored(store, published, stray):
    published(1)
    path = Path(store.url, "runs", stray)
    path.parent.mkdir(exist_ok=True)
    path.write_text("?")
    assert not any(removed.startswith(f"runs/{stray[:3]}") for removed in paths(store))
    assert verify(store).faults == []


def test_unfinished_work_in_a_kept_run_is_removed(store, published, tmp_path):
    run = published(1)
    run.save("train", "checkpoint", tmp_path / "out1", {})
    assert f"{run.path}/train/checkpoint" not in paths(store, now=NOW)
    assert f"{run.path}/train/checkpoint" in collected(store)
    assert store.names(f"{run.path}/train") == []
    assert verify(store).faults == []


def test_old_tunings_are_removed_but_the_latest(store):
    for name, finished in {"old": NOW - timedelta(days=90), "latest": NOW - timedelta(days=60)}.items():
        store.write(f"tunings/{name}/tuning.json", {"created": (finished - timedelta(days=1)).isoformat()})
        store.write(f"tunings/{name}/trials/runs/trial1/run.json", {"run": "trial1"})
        store.write(f"tunings/{name}/result.json", {"finished": finished.isoformat()})
    store.write("tunings/interrupted/tuning.json", {"created": (NOW - timedelta(days=50)).isoformat()})
    store.write("tunings/running/tuning.json", {"created": (NOW - timedelta(hours=1)).isoformat()})
    gone = [removal for removal in collect(store, Deployment(), NOW) if removal.path.startswith("tunings/")]
    assert [removal.path for removal in gone] == ["tunings/old", "tunings/interrupted"]
    assert gone[0].bytes > 0
    assert sorted(store.folders("tunings")) == ["latest", "running"]
