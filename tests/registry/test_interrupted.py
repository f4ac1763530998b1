"""A publication that is killed at any write to the store: the next one completes it, or gc and verify are at peace."""

import shutil
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.registry import cards
from pipeline.registry.cards import CARDS
from pipeline.registry.collected import COLLECTED
from pipeline.registry.registry import Registry
from pipeline.settings import Deployment
from pipeline.store import signatures
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.gc import collect
from pipeline.upkeep.verify import verify
from tests.conftest import small_version
from tests.keys import new_key
from tests.registry.interleaving import WRITES, Killed, at_call, kill

CREATED = datetime(2026, 1, 5, tzinfo=UTC)
LATER = datetime.now(UTC) + timedelta(days=400)


def export(store, checkpoint="2"):
    """Publish the model that the run exported last."""
    run, first = Run(store, "run2"), Registry(store).card(1)
    exported = run.manifest("export")
    changed = {"version": 2, "run": run.name, "path": exported.path, "files": exported.files}
    card = first.model_copy(update=changed | {"checkpoint": checkpoint, "data": CREATED.isoformat()})
    return Registry(store).publish(card, compared_with=Registry(store).live())


def train_again(store):
    """Leave another model, as a run does that is trained again with other settings."""
    folder = Path(store.url).parent / "again"
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_text("graph of another model")
    Run(store, "run2").commit("export", folder, inputs={}, summary={"rows": 1}, seconds=1, peak_mib=None)


@pytest.fixture(scope="module", params=["unsigned", "signed"])
def killed(request, tmp_path_factory):
    """Makes stores, one for each write of a publication at which it was killed."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        for name in (signatures.SIGNING_KEY, signatures.TRUSTED_KEYS):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        if request.param == "signed":
            keys = new_key(folder, "ours")
            patch.setenv(signatures.SIGNING_KEY, str(keys[0]))
            patch.setenv(signatures.TRUSTED_KEYS, str(keys[1]))
        store = Store(str(folder / "made"))
        small_version(store, 1, folder, created=CREATED.replace(day=1))
        small_version(store, 2, folder, created=CREATED, publish=False)

        def stores(target):
            for number in count(1):
                shutil.rmtree(target, ignore_errors=True)
                shutil.rmtree(folder / "cache", ignore_errors=True)  # its log is another one each time
                shutil.copytree(folder / "made", target)
                there = Store(str(target))
                try:
                    with at_call(number, kill, WRITES):
                        export(there)
                except Killed:
                    yield there
                    continue
                assert number > 5, "so many writes there were"
                return

        yield stores
        assert bool(signatures.keys().trusted) == (request.param == "signed")
    signatures._keys.cache_clear()


@pytest.fixture(autouse=True)
def no_settings_of_the_environment():
    """Here the keys that `killed` has set count, so they are not taken away as for other tests."""


def test_export_run_again_completes_it(killed, tmp_path):
    for store in killed(tmp_path / "store"):
        event = export(store)
        assert (event.version, Registry(store).live()) == (2, 2)
        assert Registry(store).disagreement() is None
        assert verify(store).faults == []
        assert len(Registry(store).events()) == 2


def test_a_run_that_is_trained_again_publishes_its_new_model(killed, tmp_path):
    for store in killed(tmp_path / "store"):
        train_again(store)
        event = export(store, checkpoint="3")
        assert event.live == event.version == Registry(store).live()
        assert Registry(store).card(event.version).checkpoint == "3"
        list(collect(store, Deployment(), LATER))
        assert verify(store).faults == []


def test_once_its_run_is_collected_nothing_is_at_fault_and_the_run_can_be_made_again(killed, tmp_path):
    interrupted = 0
    for store in killed(tmp_path / "store"):
        registry = Registry(store)
        if registry.live() == 2:
            registry.reconcile()
            continue  # its entry is in the log, so its run is kept
        list(collect(store, Deployment(), LATER))
        assert store.names("runs") == ["run1"]
        assert verify(store).faults == []
        interrupted += bool(store.names(COLLECTED))
        with pytest.raises(BadInput, match=r"does not hold version 2 \(published: 1\)"):
            registry.promote(2, "it was never published")
        small_version(store, 2, tmp_path / "again", created=CREATED, publish=False)
        assert export(store).live == 2
        assert verify(store).faults == []
        assert store.names(COLLECTED) == []
    assert interrupted


def test_the_cure_that_verify_names_works(killed, tmp_path):
    """As where garbage collection was killed, too, or was that of an older version of the pipeline."""
    for store in killed(tmp_path / "store"):
        if Registry(store).live() == 2:
            return
        [card] = [card for card in map(Registry(store).card, (2,)) if card] or [None]
        store.remove("runs/run2")
        faults = verify(store).faults
        if card is None:
            assert faults == []
            continue
        assert {fault.partition(": ")[2] for fault in faults} == {
            "its publication was interrupted, run export of run run2 again, or `tagger gc` to forget it"
        }
        list(collect(store, Deployment()))
        assert verify(store).faults == []


def test_a_file_among_the_cards_that_is_no_card_is_passed_over(tmp_path):
    store = Store(str(tmp_path))
    small_version(store, 1, tmp_path / "out", created=CREATED)
    store.write_bytes(f"{CARDS}/notes.txt", b"mine")
    Registry(store).note_unpublished()
    assert verify(store).faults == []
    assert cards.numbers(store) == [1]
