import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import BadInput, CorruptArtifact, Forbidden, StageOutOfOrder
from pipeline.files import FileEntry, entries
from pipeline.registry.card import Card
from pipeline.registry.events import Event, live_history
from pipeline.registry.registry import CARDS, LOG, Registry
from pipeline.store.objects import Store
from tests.conftest import files_of

LIVE = object()


@pytest.fixture
def registry(tmp_path):
    return Registry(Store(str(tmp_path / "store")))


@pytest.fixture
def publish(registry, tmp_path):
    """A function that publishes a version with a tiny model of its own, as a run does."""

    def do(
        version, *, checkpoint=None, run=None, data=None, forced="", synthetic=False, compared_with=LIVE, warnings=()
    ):
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
            synthetic=synthetic,
            published="2026-01-01T00:00:00+00:00",
            files=entries(folder),
            warnings=list(warnings),
        )
        return registry.publish(
            card, compared_with=registry.live() if compared_with is LIVE else compared_with, forced=forced
        )

    return do


def served(registry):
    """The versions that a server finds in the serving directory."""
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


def test_publishing_again_from_the_same_checkpoint_changes_nothing(publish, tmp_path):
    publish(7)
    before = files_of(tmp_path / "store")
    publish(7)
    assert files_of(tmp_path / "store") == before


def test_a_model_whose_number_is_taken_gets_the_next_free_one(registry, publish):
    publish(7, run="a")
    assert publish(7, run="b", checkpoint="d").version == 8
    assert publish(7, run="a", checkpoint="e").version == 9
    assert publish(8, run="c", checkpoint="f").version == 10
    assert registry.live() == 10
    assert [(card.version, card.run, card.checkpoint) for card in registry.cards()] == [
        (10, "c", "f"),
        (9, "a", "e"),
        (8, "b", "d"),
        (7, "a", "c7"),
    ]


def test_the_same_model_of_another_run_is_another_version(registry, publish):
    publish(7, run="a")
    publish(8)
    assert publish(7, run="b", checkpoint="c7", data="2026-02-01").version == 9
    assert [card.run for card in registry.cards()] == ["b", "8", "a"]


def test_a_run_that_goes_back_to_its_first_model_publishes_it_again(registry, publish, tmp_path):
    publish(7, run="a")
    publish(7, run="a", checkpoint="d")
    assert publish(7, run="a").version == registry.live() == 9
    before = files_of(tmp_path / "store")
    assert publish(7, run="a").version == 9
    assert files_of(tmp_path / "store") == before


def test_a_number_whose_card_is_lost_is_not_given_again(registry, publish):
    publish(7, run="a")
    publish(9)
    registry.store.remove(f"{CARDS}/7.json")
    with pytest.raises(CorruptArtifact, match=r"7\.json is gone, though the log names version 7: restore it"):
        publish(7, run="b", checkpoint="d")
    assert registry.store.names(CARDS) == ["9.json"]


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


def test_synthetic_posts_are_never_newer_than_real_ones(registry, publish):
    publish(8, synthetic=True)
    publish(7, synthetic=True)
    assert registry.live() == 8
    publish(6)
    assert registry.live() == 6


def test_saved_model_is_copied_last_and_removed_first(registry, publish, monkeypatch):
    order = []
    put, remove = registry.store.fs.put_file, registry.store.remove
    monkeypatch.setattr(registry.store.fs, "put_file", lambda here, there: (order.append(there), put(here, there)))
    monkeypatch.setattr(registry.store, "remove", lambda path: (order.append(path), remove(path)))
    publish(7)
    copied = [path for path in order if "/models/" in path]
    assert "/7/saved_model.pb." in copied[-1]
    publish(8)
    order.clear()
    registry.rollback("worse")
    removed = [path for path in order if path.startswith("models/")]
    assert removed == ["models/stackoverflow_tagger/8/saved_model.pb", "models/stackoverflow_tagger/8"]


def test_the_highest_version_in_the_serving_directory_is_always_the_live_one(registry, publish):
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


def test_the_log_tells_which_version_was_live_when(registry, publish):
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


def test_each_rollback_goes_back_one_version(registry, publish):
    for version in (7, 8, 9):
        publish(version)
    assert live_history(registry.events()) == [7, 8, 9]
    registry.rollback("x")
    assert live_history(registry.events()) == [7, 8]
    registry.rollback("x")
    with pytest.raises(BadInput, match="no earlier live version to go back to"):
        registry.rollback("x")


def test_a_version_is_compared_with_the_one_live_before_it(registry, publish):
    assert registry.live_before(7) is None
    publish(7)
    assert registry.live_before(8) == 7
    publish(8)
    assert (registry.live_before(7), registry.live_before(8), registry.live_before(9)) == (None, 7, 8)


@pytest.fixture
def meanwhile(registry, monkeypatch):
    """A function that lets another process act just before the next entry of the log is written."""

    def let(action):
        create = registry.store.create

        def late(path, document):
            if path.startswith(LOG):
                monkeypatch.undo()
                action(Registry(Store(registry.store.url)))
            return create(path, document)

        monkeypatch.setattr(registry.store, "create", late)

    return let


def log_of(registry):
    return [(event.number, event.action, event.live) for event in registry.events()]


def test_two_that_write_the_log_at_once_take_two_numbers(registry, publish, meanwhile):
    publish(7)
    publish(8)
    meanwhile(lambda other: other.promote(7, "at the same time"))
    registry.promote(8, "mine")
    assert log_of(registry)[2:] == [(3, "promote", 7), (4, "promote", 8)]
    assert served(registry)[-1] == 8
    assert registry.disagreement() is None


def test_of_two_rollbacks_at_once_the_second_changes_nothing(registry, publish, meanwhile):
    for version in (6, 7, 8):
        publish(version)
    meanwhile(lambda other: other.rollback("8 is worse"))
    said = (
        r"nothing was changed: version 8 is not live, version 7 is since the rollback at \S+ by \w+: 8 is worse; to go"
    )
    with pytest.raises(BadInput, match=said):
        registry.rollback("8 is worse, as I found, too")
    assert log_of(registry)[3:] == [(4, "rollback", 7)]
    assert served(registry) == [6, 7]


def test_a_rollback_that_names_another_version_than_is_live_changes_nothing(registry, publish):
    for version in (6, 7, 8):
        publish(version)
    assert registry.rollback("8 is worse", 8).live == 7
    with pytest.raises(BadInput, match="nothing was changed: version 8 is not live, version 7 is since the rollback"):
        registry.rollback("8 is worse, as I found a minute later", 8)
    with pytest.raises(BadInput, match="nothing was changed: version 5 is not live, version 7 is; to go back"):
        registry.rollback("never live", 5)
    assert log_of(registry)[3:] == [(4, "rollback", 7)]


@pytest.mark.parametrize(
    ("steps", "history"),
    [
        ([("publish", 1), ("publish", 2), ("publish", 3), ("rollback", 2), ("rollback", 2)], [1, 2]),
        ([("publish", 1), ("publish", 2), ("publish", 3), ("rollback", 1)], [1]),
        ([("publish", 1), ("publish", 2), ("promote", 1), ("rollback", 2)], [1, 2]),
        ([("publish", 1), ("publish", 1), ("rollback", 4)], [1, 4]),
    ],
)
def test_the_history_of_live_versions(steps, history):
    events = [
        Event(number=at, at="", action=action, version=live, live=live, by="", reason="")
        for at, (action, live) in enumerate(steps, 1)
    ]
    assert live_history(events) == history


def test_reconcile_follows_a_change_that_happens_meanwhile(registry, publish, monkeypatch):
    publish(7)
    publish(8)
    withdraw = registry.serving.withdraw

    def late(version):
        monkeypatch.undo()
        Registry(Store(registry.store.url)).promote(8, "at the same time")
        withdraw(version)

    monkeypatch.setattr(registry.serving, "withdraw", late)
    registry.rollback("worse")
    assert (registry.live(), served(registry), registry.disagreement()) == (8, [7, 8], None)


def test_a_rollback_does_not_undo_a_publication_that_happens_meanwhile(registry, publish, meanwhile):
    publish(7)
    publish(8)
    meanwhile(lambda other: publish(9))
    with pytest.raises(BadInput, match=r"version 8 is not live, version 9 is since the publish at .* by run 9; to go"):
        registry.rollback("worse")
    assert (registry.live(), live_history(registry.events())) == (9, [7, 8, 9])


def test_a_model_compared_with_another_than_is_live_is_not_published(registry, publish, meanwhile):
    publish(6)
    publish(7)
    meanwhile(lambda other: other.rollback("worse"))
    with pytest.raises(StageOutOfOrder, match=r"version 6 went live since this run was compared with 7: run evaluate"):
        publish(8, compared_with=7)
    assert (registry.live(), served(registry)) == (6, [6])
    publish(8, compared_with=6)
    assert registry.live() == 8


def test_published_from_the_live_models_checkpoint_it_was_compared_with_none(registry, publish):
    """Its export was lost and is made again, with the evaluation of then."""
    publish(7)
    publish(8, checkpoint="c7", compared_with=None)
    assert registry.live() == 8


def test_an_entry_whose_answer_was_lost_is_written_once(registry, publish, monkeypatch):
    """An object store's client retries, and then finds its own entry."""
    publish(7)
    publish(8)
    create = registry.store.create
    monkeypatch.setattr(registry.store, "create", lambda path, document: create(path, document) and CARDS in path)
    registry.rollback("worse")
    assert log_of(registry)[2:] == [(3, "rollback", 7)]


def test_nothing_goes_live_on_a_store_whose_create_overwrites(registry, publish, monkeypatch):
    """As an S3 server does that does not support If-None-Match."""
    publish(7)
    monkeypatch.setattr(registry.store, "create", lambda path, document: not registry.store.write(path, document))
    with pytest.raises(Forbidden, match=r"overwrites a file that it is asked to create.*: nothing is made live"):
        publish(8)
    assert registry.live() == 7


def test_an_unfinished_publication_is_no_version_and_the_next_try_finishes_it(registry, publish, monkeypatch):
    publish(7)
    monkeypatch.setattr(registry, "_log", lambda *_, **__: (_ for _ in ()).throw(SystemExit("killed")))
    with pytest.raises(SystemExit):
        publish(8)
    monkeypatch.undo()
    assert (registry.live(), [card.version for card in registry.cards()], served(registry)) == (7, [7], [7])
    publish(8, warnings=["of the second try"])
    assert registry.live() == 8
    assert registry.card(8).warnings == ["of the second try"]
    assert served(registry) == [7, 8]


def test_an_interrupted_rollback_is_completed_and_not_done_twice(registry, publish, monkeypatch):
    for version in (6, 7, 8):
        publish(version)
    monkeypatch.setattr(registry, "reconcile", lambda: (_ for _ in ()).throw(SystemExit("killed")))
    with pytest.raises(SystemExit):
        registry.rollback("worse")
    monkeypatch.undo()
    assert served(registry) == [6, 7, 8]
    with pytest.raises(BadInput, match=r"the rollback at .* had been interrupted, and was completed just now"):
        registry.rollback("worse")
    assert (registry.live(), served(registry)) == (7, [6, 7])
    assert registry.rollback("further").live == 6


def test_a_version_with_lost_or_damaged_files_does_not_go_live(registry, publish, tmp_path):
    publish(6)
    publish(7)
    before = files_of(tmp_path / "store")
    weights = tmp_path / "store" / "runs" / "6" / "export" / "one" / "variables" / "variables.index"
    for damage, fault in ((lambda: weights.write_text("weights 9"), "other bytes"), (weights.unlink, "is gone")):
        damage()
        for action in (lambda: registry.promote(6, "because"), lambda: registry.rollback("because")):
            with pytest.raises(
                CorruptArtifact, match=rf"version 6 cannot go live: .*{fault}.*; the live version is unchanged"
            ):
                action()
    registry.note_collected("runs/6", "old")
    with pytest.raises(
        CorruptArtifact, match=r"version 6 cannot go live: garbage collection removed its files on .* \(old\)"
    ):
        registry.promote(6, "because")
    with pytest.raises(CorruptArtifact, match="version 6 cannot be fetched: garbage collection removed its files"):
        registry.fetch(6, tmp_path / "back")
    assert registry.live() == 7
    kept = {name: content for name, content in files_of(tmp_path / "store").items() if name in before}
    assert {name for name, content in before.items() if kept.get(name) != content} == {
        "runs/6/export/one/variables/variables.index"
    }


@pytest.mark.parametrize(
    "damage",
    [
        lambda live: (live / "saved_model.pb").write_text("graph 9"),
        lambda live: (live / "variables" / "variables.index").unlink(),
        lambda live: (live / ".DS_Store").write_text("?"),
    ],
    ids=["changed", "lost", "foreign"],
)
def test_promoting_the_live_version_repairs_the_serving_directory(registry, publish, tmp_path, damage):
    publish(7)
    live = tmp_path / "store" / "models" / "stackoverflow_tagger" / "7"
    whole = files_of(live)
    damage(live)
    assert registry.disagreement() == f"live version 7 is incomplete or damaged in {live}: `tagger promote 7` fixes it"
    registry.promote(7, "repaired")
    assert files_of(live) == whole
    assert registry.disagreement() is None


def test_a_version_that_was_taken_down_is_recognized_by_its_model(registry, publish):
    for version in (6, 7, 8):
        publish(version)
    assert registry.taken_down(registry.card(8)) is None
    registry.rollback("tags c as c++")
    card, event = registry.taken_down(registry.card(8))
    assert (card.version, event.action, event.reason) == (8, "rollback", "tags c as c++")
    renamed = card.model_copy(update={"files": card.files | {"assets/labels.txt": FileEntry(1, "other tags")}})
    assert registry.taken_down(renamed) is None
    assert registry.taken_down(registry.card(6)) is None, "7 was put over it by a run"
    registry.promote(6, "the best")
    assert registry.taken_down(registry.card(7))
    registry.promote(8, "it was right")
    assert registry.taken_down(registry.card(8)) is None


def test_a_user_without_a_name_is_logged_by_number(registry, publish, monkeypatch):
    """As in a container."""
    publish(7)
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("uid not found")))
    assert registry.promote(7, "because").by == f"user {os.getuid()}"


def test_a_reason_is_kept_as_one_line_of_visible_characters(registry, publish):
    publish(7)
    assert registry.promote(7, " a\nb \x1b[31m \udcff ").reason == r"a\nb \x1b[31m \udcff"


def test_promote_needs_a_reason_and_a_published_version(registry, publish):
    publish(7)
    with pytest.raises(BadInput, match="give one with --reason"):
        registry.promote(7, " ")
    with pytest.raises(BadInput, match=r"does not hold version 8 \(published: 7\)"):
        registry.promote(8, "because")


def test_a_version_whose_publication_was_interrupted_is_not_fetched(registry, publish, tmp_path):
    publish(7)
    card = registry.card(7)
    registry.store.create(f"{CARDS}/8.json", card.model_copy(update={"version": 8}).to_dict())
    with pytest.raises(BadInput, match=r"does not hold version 8 \(published: 7\)"):
        registry.fetch(8, tmp_path / "back")


def test_a_version_is_fetched_whole(registry, publish, tmp_path):
    publish(7)
    assert registry.fetch(None, tmp_path / "back").version == 7
    assert files_of(tmp_path / "back") == files_of(tmp_path / "model-7")


@pytest.mark.parametrize(("version", "said"), [(None, "does not hold a live version"), (3, "published: none yet")])
def test_an_unpublished_version_is_refused(registry, version, said, tmp_path):
    with pytest.raises(BadInput, match=said):
        registry.fetch(version, tmp_path / "back")
