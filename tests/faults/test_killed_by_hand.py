"""A command killed at any write leaves nothing incomplete, and the same command completes it."""

from datetime import timedelta

import pytest

from pipeline.registry.registry import Registry
from pipeline.settings import Deployment
from pipeline.store.runs import Run
from pipeline.upkeep.gc import removals
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED, small_version
from tests.faults.conftest import NEVER, assert_nothing_is_half, is_killed, kind

pytestmark = pytest.mark.usefixtures("forks")


@pytest.fixture(scope="module")
def versions(place, tmp_path_factory):
    """A store with the published versions 1 and 2, to be copied."""
    store, folder = place.store("versions"), tmp_path_factory.mktemp("versions")
    for version in (1, 2):
        small_version(store, version, folder, created=CREATED + timedelta(days=version))
    return store


def live_version(store):
    return Registry(store).live()


DONE = {
    "begin": lambda store: Run(store, "new").record() is not None,
    "promote": lambda store: live_version(store) == 1,
    "rollback": lambda store: live_version(store) == 1,
    "gc": lambda store: removals(store, Deployment.of({"keep_versions": 0, "keep_days": 0})) == [],
}
"""For each command, whether it has been done."""


@pytest.mark.parametrize("command", DONE)
def test_commands_killed_at_every_write(place, versions, command, tmp_path):
    tried = 0
    for first, how in enumerate(place.ways, 1):
        for last in range(first, NEVER, place.step):
            store = place.store(f"{command}-{how}-{last}")
            versions.fs.copy(versions.root, store.root, recursive=True)
            killed = is_killed(place, store, command, tmp_path, last, how)
            if killed:
                tried += 1
                assert_nothing_is_half(store)
                assert live_version(store) in ({1, 2} if command in {"promote", "rollback"} else {2})
                assert not is_killed(place, store, command, tmp_path, NEVER, how), "the retry completes it"
            assert DONE[command](store)
            assert verify(store).faults == []
            numbers = [event.number for event in Registry(store).events()]
            assert numbers == list(range(1, len(numbers) + 1))
            if not killed:
                break
    assert tried >= len(place.ways)
    print(f"{kind(place)} {command}: {tried} kills")  # noqa: T201
