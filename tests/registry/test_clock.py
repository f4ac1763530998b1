"""Clocks that are wrong: those of machines that wrote the log, and this one's."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.cli import app, run_and_exit
from pipeline.errors import BadInput
from pipeline.registry import registry as module
from pipeline.registry.registry import Registry
from pipeline.store.objects import Store
from tests.conftest import small_version

MONDAY = datetime(2026, 11, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TO_COME = datetime(2040, 5, 4, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch):
    """A function that sets the clock of this machine."""
    return lambda time: monkeypatch.setattr(module, "_now", lambda: time)


@pytest.fixture
def registry(tmp_path, clock):
    """Version 1 was published on Monday, 2 a day later."""
    store = Store(str(tmp_path / "store"))
    for number in (1, 2):
        clock(MONDAY + (number - 1) * DAY)
        small_version(store, number, tmp_path, created=datetime(2026, 1, number, tzinfo=UTC))
    return Registry(store)


def test_what_was_written_by_a_clock_that_ran_ahead_hides_only_when_it_happened(registry, clock, caplog):
    clock(TO_COME)
    registry.promote(1, "with a wrong clock, on Wednesday")
    clock(MONDAY + 3 * DAY)
    assert registry.live() == 1
    assert registry.live(MONDAY + 3 * DAY) == 1
    assert registry.live(MONDAY + DAY / 2) == 1
    for unknown in (DAY, 2 * DAY, 2.9 * DAY):
        with pytest.raises(
            BadInput, match=r"not known: entry 3 of the log, of version 1, has the time 2040-05-04T00:00"
        ):
            registry.live(MONDAY + unknown)
    assert "entry 3 of the log, its last, has the time 2040-05-04T00:00, which is to come" in registry.clock_fault()
    registry.promote(2, "the clock was wrong")
    assert "`tagger promote 1 --reason 'the clock was wrong'`" in caplog.text
    clock(MONDAY + 9 * DAY)
    assert registry.clock_fault() is None
    for day, live in ((0.5, 1), (3, 2), (4, 2), (9, 2)):
        assert registry.live(MONDAY + day * DAY) == live
    with pytest.raises(BadInput, match="not known: entry 3 of the log"):
        registry.live(MONDAY + 2 * DAY)


def test_a_clock_that_goes_back_hides_nothing_that_was_before(registry, clock):
    clock(datetime(2020, 1, 1, tzinfo=UTC))
    assert "if it is this machine's (2020-01-01T00:00), set it right" in registry.clock_fault()
    registry.rollback("worse")
    clock(MONDAY + 3 * DAY)
    assert registry.clock_fault() is None
    registry.promote(2, "better after all")
    clock(MONDAY + 9 * DAY)
    for day, live in ((-1, None), (0, 1), (0.5, 1), (1, 1), (2, 1), (3, 2), (8, 2)):
        assert registry.live(MONDAY + day * DAY) == live, day
    assert registry.live(datetime(2021, 1, 1, tzinfo=UTC)) is None


def test_clocks_that_differ_by_seconds_are_put_in_order_without_a_word(registry, clock, caplog):
    clock(MONDAY + DAY - timedelta(seconds=90))
    registry.promote(1, "by a machine that is late by 90 seconds")
    assert [event.at for event in registry.events()] == sorted(event.at for event in registry.events())
    assert registry.clock_fault() is None
    assert caplog.text == ""
    assert registry.live(MONDAY + DAY) == 1


@pytest.mark.parametrize(
    "command",
    [
        "models",
        "models --at 2026-11-02T18:00Z",
        "models --log",
        "promote 2 --reason x",
        "rollback --reason x",
        "verify",
    ],
)
@pytest.mark.parametrize("wrong", [True, False])
def test_every_command_about_what_is_live_says_that_a_clock_is_wrong(registry, clock, capfd, caplog, command, wrong):
    clock(TO_COME if wrong else MONDAY + 2 * DAY)
    registry.promote(1, "third")
    clock(MONDAY + 3 * DAY)
    with pytest.raises(SystemExit) as ended:
        run_and_exit(lambda: app([*command.split(), "--store", registry.store.url], standalone_mode=False))
    assert not ended.value.code
    said = capfd.readouterr().err + caplog.text
    assert ("entry 3 of the log, its last, has the time 2040-05-04T00:00" in said) == wrong


def test_a_publication_says_that_a_clock_is_wrong(registry, clock, caplog, tmp_path):
    clock(TO_COME)
    registry.promote(1, "third")
    clock(MONDAY + 3 * DAY)
    small_version(registry.store, 3, tmp_path, created=datetime(2026, 1, 3, tzinfo=UTC))
    assert "entry 3 of the log, its last, has the time 2040-05-04T00:00" in caplog.text
