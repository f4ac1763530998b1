import pytest

from pipeline.errors import BadInput, VersionTaken
from pipeline.registry import Registry
from pipeline.store import Store
from tests.conftest import files_of


@pytest.fixture
def registry(tmp_path):
    return Registry(Store(str(tmp_path / "store")))


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "saved_model.pb").write_text("graph")
    (tmp_path / "model" / "variables" / "variables.index").write_text("weights")
    return tmp_path / "model"


def publish(registry, model, version, checkpoint="c", run="a"):
    return registry.publish(model, version=version, run=run, checkpoint=checkpoint, accuracy=0.9, macro_f1=0.8, tags=2)


def test_a_version_is_published_where_a_server_looks(registry, model, tmp_path):
    publish(registry, model, 7)
    assert files_of(tmp_path / "store" / "models" / "stackoverflow_tagger" / "7") == files_of(model)
    assert registry.live() == 7
    assert registry.card(7).accuracy == 0.9


def test_published_again_from_the_same_checkpoint_it_is_simply_done(registry, model, tmp_path):
    publish(registry, model, 7)
    before = files_of(tmp_path / "store")
    publish(registry, model, 7)
    assert files_of(tmp_path / "store") == before


def test_published_again_from_another_checkpoint_it_is_refused(registry, model, tmp_path):
    publish(registry, model, 7)
    before = files_of(tmp_path / "store")
    with pytest.raises(VersionTaken, match="version 7 is published already, by run a from another checkpoint"):
        publish(registry, model, 7, checkpoint="d", run="b")
    assert files_of(tmp_path / "store") == before


def test_the_newest_version_is_live_whatever_the_order(registry, model):
    for version in (8, 9, 7):
        publish(registry, model, version, checkpoint=str(version))
    assert registry.live() == 9
    assert [card.version for card in registry.cards()] == [9, 8, 7]


def test_saved_model_is_put_last_and_the_card_after_it(registry, model, monkeypatch):
    """Killed before its card, a version is not published, and the next try completes it."""
    order = []
    put, write = registry.store.fs.put_file, registry.store.write
    monkeypatch.setattr(registry.store.fs, "put_file", lambda here, there: (order.append(there), put(here, there)))
    monkeypatch.setattr(registry.store, "write", lambda path, document: (order.append(path), write(path, document)))
    publish(registry, model, 7)
    assert [path.rsplit("/", 1)[-1] for path in order] == ["variables.index", "saved_model.pb", "7.json", "live.json"]


def test_a_version_is_fetched_whole(registry, model, tmp_path):
    publish(registry, model, 7)
    assert registry.fetch(None, tmp_path / "back").version == 7
    assert files_of(tmp_path / "back") == files_of(model)


@pytest.mark.parametrize("version", [None, 3])
def test_what_is_not_published_is_refused(registry, version, tmp_path):
    with pytest.raises(BadInput, match="published: none yet"):
        registry.fetch(version, tmp_path / "back")
