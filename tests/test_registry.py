import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import BadInput, VersionTaken
from pipeline.files import entries
from pipeline.registry import Card, Registry, lives
from pipeline.store import Store
from tests.conftest import files_of


@pytest.fixture
def registry(tmp_path):
    return Registry(Store(str(tmp_path / "store")))


@pytest.fixture
def publish(registry, tmp_path):
    """Publish version n of a model made for it, as a run that left it in its export's folder does."""

    def do(version, *, checkpoint=None, run=None, data=None, forced="", invented=False):
        folder = tmp_path / f"model-{version}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_text(f"graph {version}")
        (folder / "variables" / "variables.index").write_text(f"weights {version}")
        path = f"runs/{run or version}/export/one"
        registry.store.upload(folder, path)
        card = Card(
            version=version,
            run=run or str(version),
            data=data or f"2026-01-{version:02d}T00:00:00+00:00",
            path=path,
            checkpoint=checkpoint or f"c{version}",
            accuracy=0.9,
            macro_f1=0.8,
            tags=2,
            invented=invented,
            published="2026-01-01T00:00:00+00:00",
            files=entries(folder),
        )
        return registry.publish(card, folder, forced=forced)

    return do


def served(registry):
    """What a server finds: versions with the number their files say."""
    found = {
        int(name): registry.store.sizes(f"models/stackoverflow_tagger/{name}")
        for name in registry.store.names("models/stackoverflow_tagger")
    }
    for files in found.values():
        assert set(files) == {"saved_model.pb", "variables/variables.index"}
    return sorted(found)


def test_a_version_is_published_where_a_server_looks(registry, publish, tmp_path):
    publish(7)
    assert files_of(tmp_path / "store" / "models" / "stackoverflow_tagger" / "7") == files_of(tmp_path / "model-7")
    assert registry.live() == 7
    assert registry.card(7).accuracy == 0.9
    assert registry.disagreement() is None


def test_published_again_from_the_same_checkpoint_it_is_simply_done(publish, tmp_path):
    publish(7)
    before = files_of(tmp_path / "store")
    publish(7)
    assert files_of(tmp_path / "store") == before


def test_published_again_from_another_checkpoint_it_is_refused(registry, publish, tmp_path):
    publish(7, run="a")
    before = files_of(tmp_path / "store" / "registry")
    with pytest.raises(VersionTaken, match="version 7 is published already, by run a from another checkpoint"):
        publish(7, run="b", checkpoint="d")
    assert files_of(tmp_path / "store" / "registry") == before


def test_older_data_does_not_replace_newer_unless_forced(registry, publish):
    publish(8)
    publish(9)
    publish(7)
    assert registry.live() == 9
    assert served(registry)[-1] == 9
    assert [card.version for card in registry.cards()] == [9, 8, 7]
    publish(6, forced="the newer data is wrong")
    assert registry.live() == 6
    assert registry.events()[-1].reason == "the newer data is wrong"
    assert served(registry) == [6]


def test_invented_posts_are_never_newer_than_real_ones(registry, publish):
    publish(8, invented=True)
    publish(7, invented=True)
    assert registry.live() == 8
    publish(6)
    assert registry.live() == 6


def test_saved_model_is_put_last_and_taken_first(registry, publish, monkeypatch):
    order = []
    put, remove = registry.store.fs.put_file, registry.store.remove
    monkeypatch.setattr(registry.store.fs, "put_file", lambda here, there: (order.append(there), put(here, there)))
    monkeypatch.setattr(registry.store, "remove", lambda path: (order.append(path), remove(path)))
    publish(7)
    watched = [path for path in order if "/models/" in path]
    assert "/7/saved_model.pb." in watched[-1]
    publish(8)
    order.clear()
    registry.rollback("worse")
    assert order == ["models/stackoverflow_tagger/8/saved_model.pb", "models/stackoverflow_tagger/8"]


def test_the_watched_folders_highest_version_is_the_live_one_after_every_operation(registry, publish):
    for act, live in (
        (lambda: publish(7), 7),
        (lambda: publish(8), 8),
        (lambda: publish(9), 9),
        (lambda: registry.rollback("9 is worse"), 8),
        (lambda: registry.rollback("8 too"), 7),
        (lambda: registry.promote(9, "9 was right"), 9),
        (lambda: registry.rollback("no"), 7),
        (lambda: publish(9), 7),
        (lambda: publish(10), 10),
        (lambda: registry.promote(8, "again"), 8),
    ):
        act()
        assert registry.live() == live
        assert served(registry)[-1] == live
        assert registry.disagreement() is None


def test_which_was_live_when_is_replayed_from_the_log(registry, publish):
    start = datetime.now(UTC)
    publish(7)
    publish(8)
    registry.rollback("worse")
    registry.promote(8, "better after all")
    events = registry.events()
    assert [(e.number, e.action, e.version, e.live) for e in events] == [
        (1, "publish", 7, 7),
        (2, "publish", 8, 8),
        (3, "rollback", 7, 7),
        (4, "promote", 8, 8),
    ]
    assert registry.live(start - timedelta(seconds=1)) is None
    for event in events:
        assert registry.live(datetime.fromisoformat(event.at)) == event.live
    assert all(event.by for event in events)
    assert [event.reason for event in events[2:]] == ["worse", "better after all"]


def test_what_went_before_is_a_stack(registry, publish):
    for version in (7, 8, 9):
        publish(version)
    assert lives(registry.events()) == [7, 8, 9]
    registry.rollback("x")
    assert lives(registry.events()) == [7, 8]
    registry.rollback("x")
    with pytest.raises(BadInput, match="no version to go back to"):
        registry.rollback("x")


def test_a_version_is_measured_by_what_was_live_before_it(registry, publish):
    assert registry.live_before(7) is None
    publish(7)
    assert registry.live_before(8) == 7
    publish(8)
    assert (registry.live_before(7), registry.live_before(8), registry.live_before(9)) == (None, 7, 8)


def test_two_that_write_the_log_at_once_take_two_numbers(registry, publish, monkeypatch):
    """Another publisher's event comes between a look at the log and the writing of the next."""
    publish(7)
    other = Registry(Store(registry.store.url))
    publish(8)
    events = registry.events
    calls = []

    def slow_events():
        seen = events()
        if not calls:
            calls.append(other.promote(7, "at the same time"))
        return seen

    monkeypatch.setattr(registry, "events", slow_events)
    registry._log("promote", registry.card(8), by="me", reason="mine")
    monkeypatch.undo()
    assert [(e.number, e.live, e.reason) for e in registry.events()[2:]] == [(3, 7, "at the same time"), (4, 8, "mine")]


def test_an_unfinished_publication_is_no_version_and_the_next_try_finishes_it(registry, publish, monkeypatch):
    publish(7)
    monkeypatch.setattr(registry, "_log", lambda *_, **__: (_ for _ in ()).throw(SystemExit("killed")))
    with pytest.raises(SystemExit):
        publish(8)
    monkeypatch.undo()
    assert (registry.live(), [card.version for card in registry.cards()]) == (7, [7])
    assert "8/saved_model.pb" not in registry.store.sizes("models/stackoverflow_tagger")
    publish(8)
    assert registry.live() == 8
    assert served(registry) == [7, 8]


def test_a_hand_needs_a_reason_and_a_published_version(registry, publish):
    publish(7)
    with pytest.raises(BadInput, match="give one with --reason"):
        registry.promote(7, " ")
    with pytest.raises(BadInput, match="version 8 is not published"):
        registry.promote(8, "because")


def test_a_version_whose_publication_was_cut_off_is_not_fetched(registry, publish, tmp_path):
    publish(7)
    card = registry.card(7)
    registry.store.create("registry/stackoverflow_tagger/versions/8.json", asdict(replace(card, version=8)))
    with pytest.raises(BadInput, match=r"does not hold version 8 \(published: 7\)"):
        registry.fetch(8, tmp_path / "back")


def test_a_version_is_fetched_whole(registry, publish, tmp_path):
    publish(7)
    assert registry.fetch(None, tmp_path / "back").version == 7
    assert files_of(tmp_path / "back") == files_of(tmp_path / "model-7")


@pytest.mark.parametrize("version", [None, 3])
def test_what_is_not_published_is_refused(registry, version, tmp_path):
    with pytest.raises(BadInput, match="published: none yet"):
        registry.fetch(version, tmp_path / "back")
