import os
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import CorruptArtifact, Unavailable
from pipeline.registry.registry import CARDS, Registry
from pipeline.registry.serving_dir import path_of
from pipeline.settings import Deployment, Settings
from pipeline.store import cache
from pipeline.store.needs import needing
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.tuning.tuning import TuningRun
from pipeline.upkeep.gc import collect, removals
from pipeline.upkeep.verify import verify
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
    run.files.save("train", "checkpoint", tmp_path / "out1", {})
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


def begun(store, name, started):
    """A run that was begun at that time and did nothing yet."""
    run = Run(store, name)
    record = run.begin(Settings(), started)
    store.write(f"{run.path}/run.json", record.model_copy(update={"started": started}).to_dict())
    return run


def test_a_run_that_was_begun_is_kept_until_it_is_old(store):
    run = begun(store, "begun", NOW)
    assert paths(store, now=NOW + timedelta(days=29)) == []
    assert paths(store, now=NOW + timedelta(days=31)) == [run.path]


@pytest.mark.parametrize(
    ("days", "keep_days", "approval_hours", "kept"),
    [
        (0.1, 0, 1, True),
        (6.9, 0, 1, True),
        (7.1, 0, 1, False),
        (31, 30, 1, False),
        (31, 30, 32 * 24, True),
        (33, 30, 32 * 24, False),
    ],
)
def test_a_run_that_has_not_ended_is_kept_as_long_as_work_or_an_approval_may_take(
    store, tmp_path, days, keep_days, approval_hours, kept
):
    run = begun(store, "waiting", NOW)
    (tmp_path / "out").mkdir()
    run.commit("evaluate", tmp_path / "out", inputs={}, summary={"rows": 1}, seconds=1, peak_mib=None)
    settings = Deployment.of({"keep_versions": 0, "keep_days": keep_days, "approval_hours": approval_hours})
    planned = removals(store, settings, datetime.now(UTC) + timedelta(days=days))
    assert [removal.path for removal in planned] == ([] if kept else [run.path])


def test_a_run_that_has_ended_is_kept_for_keep_days_only(store, published):
    published(1)
    published(2)
    soon = datetime.now(UTC) + timedelta(seconds=5)
    assert "runs/run1" in paths(store, keep_versions=0, keep_days=0, now=soon)
    Run(store, "refused").begin(Settings(), NOW)
    Run(store, "refused").refuse("ingest", "no")
    assert "runs/refused" in paths(store, keep_versions=0, keep_days=0, now=soon)


def test_a_run_that_was_begun_or_approved_again_has_not_ended(store, tmp_path):
    run = begun(store, "rejected", NOW - timedelta(days=2))
    (tmp_path / "out").mkdir()
    run.commit("evaluate", tmp_path / "out", inputs={}, summary={"rows": 1}, seconds=1, peak_mib=None)
    run.refuse("export", "rejected by a person")
    soon = datetime.now(UTC) + timedelta(seconds=5)
    assert paths(store, keep_days=0, now=soon) == [run.path]
    run.approve("another person", "it is good", run.evaluated().attempt)
    assert paths(store, keep_days=0, now=soon) == []
    run.refuse("export", "rejected again")
    assert paths(store, keep_days=0, now=soon) == [run.path]
    run.begin(Settings(), NOW)
    assert paths(store, keep_days=0, now=soon) == []


def test_what_somebody_needs_or_holds_is_kept_though_it_is_old(store, published):
    for version in (1, 2, 3):
        published(version)
    for name in ("old", "other", "latest"):
        store.write(f"tunings/{name}/tuning.json", {"created": NOW.isoformat()})
        store.write(f"tunings/{name}/result.json", {"finished": (NOW + timedelta(hours=name == "latest")).isoformat()})
    everything = paths(store, keep_versions=0)
    assert {"runs/run1", "models/stackoverflow_tagger/1", "tunings/old"} <= set(everything)
    with needing(store, "runs/run1"), needing(store, path_of(1)), TuningRun(store, "old").held():
        planned = paths(store, keep_versions=0)
        assert not {"runs/run1", "models/stackoverflow_tagger/1", "tunings/old"} & set(planned)
        assert {"runs/run2", "models/stackoverflow_tagger/2", "tunings/other"} <= set(planned)
    assert paths(store, keep_versions=0) == everything


def test_a_tuning_is_kept_while_a_process_of_another_release_renews_its_hold(store):
    now = datetime.now(UTC)
    for name in ("held", "left", "latest"):
        store.write(f"tunings/{name}/tuning.json", {"created": (now - timedelta(days=40)).isoformat()})
    store.write("tunings/held/held.json", {"host": "elsewhere", "process": 1, "at": now.timestamp()})
    store.write("tunings/left/held.json", {"host": "elsewhere", "process": 1, "at": now.timestamp() - 901})
    assert paths(store, now=now) == ["tunings/latest", "tunings/left"]


FOLDERS = ["", "runs/run1", "runs/run1/ingest/x", "registry/stackoverflow_tagger/log", "cache/train", "feedback/asked"]


@pytest.mark.parametrize(
    "folder", [*FOLDERS, "tunings/t/trials/runs/trial1", "models/stackoverflow_tagger/1", "gc/needed"]
)
def test_a_file_that_a_killed_process_was_writing_is_removed_after_a_day(store, folder):
    begun(store, "run1", NOW)
    place = Path(store.url, folder)
    place.mkdir(parents=True, exist_ok=True)
    for name, hours in {"old": 25, "young": 23}.items():
        (place / f"{name}.json.0123.writing").write_text("half")
        os.utime(place / f"{name}.json.0123.writing", (NOW.timestamp() - 3600 * hours,) * 2)
    (planned,) = removals(store, Deployment(), NOW)
    assert (planned.path, planned.bytes) == (f"{folder}/old.json.0123.writing".lstrip("/"), 4)
    assert [removal.path for removal in collect(store, Deployment(), NOW)] == [planned.path]
    assert [path.name for path in place.glob("*.writing")] == ["young.json.0123.writing"]


def test_notes_of_killed_processes_count_for_a_while_and_are_then_removed(store, published, monkeypatch):
    for version in (1, 2, 3):
        published(version)
    store.write("gc/needed/dead.json", {"paths": ["runs/run1"], "at": time.time()})
    store.write("gc/collectors/dead.json", {"paths": ["runs/run2"], "at": time.time()})
    with pytest.raises(Unavailable, match=r"garbage collection is removing .*runs/run2: try again in a minute"):
        Registry(store).promote(2, "better")
    assert "runs/run1" not in collected(store)
    assert len(store.names("gc/needed")) == len(store.names("gc/collectors")) == 1
    later = time.time() + 8 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert "runs/run1" in collected(store)
    assert store.names("gc/needed") == store.names("gc/collectors") == []
