"""What a person does to a store, killed at any write: nothing is half, and the same command ends it."""

from datetime import timedelta

import pytest

from pipeline.execution.gc import removals
from pipeline.execution.verify import verify
from pipeline.registry.registry import Registry
from pipeline.settings import Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, small_version
from tests.faults.conftest import NEVER, assert_nothing_is_half, kind, start

pytestmark = pytest.mark.usefixtures("forks")


@pytest.fixture(scope="module")
def versions(place, tmp_path_factory):
    """A store in which versions 1 and 2 were published, to be copied."""
    store, folder = Store(f"{place.url}versions"), tmp_path_factory.mktemp("versions")
    for version in (1, 2):
        small_version(store, version, folder, created=CREATED + timedelta(days=version))
    return store


def lives_now(store):
    return Registry(store).live()


AFTER = {
    "begin": lambda store: Run(store, "new").record() is not None,
    "promote": lambda store: lives_now(store) == 1,
    "rollback": lambda store: lives_now(store) == 1,
    "gc": lambda store: removals(store, Settings.of({"keep_versions": 0, "keep_days": 0})) == [],
}
"""What holds once a deed is done, and of a store with versions 1 and 2."""


@pytest.mark.parametrize("deed", AFTER)
def test_what_is_done_by_hand_killed_at_every_write(place, versions, deed, tmp_path):
    tried = 0
    for how in place.ways:
        for last in range(1, NEVER):
            store = Store(f"{place.url}{deed}-{how}-{last}")
            versions.fs.copy(versions.root, store.root, recursive=True)
            killed = start(place, store, deed, tmp_path, last, how)
            if killed:
                tried += 1
                assert_nothing_is_half(store)
                assert lives_now(store) in ({1, 2} if deed in {"promote", "rollback"} else {2})
                assert not start(place, store, deed, tmp_path, NEVER, how), "the next try finishes"
            assert AFTER[deed](store)
            assert verify(store).faults == []
            numbers = [event.number for event in Registry(store).events()]
            assert numbers == list(range(1, len(numbers) + 1))
            if not killed:
                break
    assert tried >= len(place.ways)
    print(f"{kind(place)} {deed}: {tried} kills")  # noqa: T201
