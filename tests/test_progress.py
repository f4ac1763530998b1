import logging
import time

from pipeline import progress


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_the_end_is_told(caplog):
    with caplog.at_level(logging.INFO), progress.track("train", "steps", 400) as advance:
        advance(150)
        advance(250)
    assert len(lines(caplog)) == 1
    assert lines(caplog)[0].startswith("train: 400 of 400 steps in 0 s (")


def test_a_long_silence_is_broken_though_nothing_advances(caplog, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.01)
    with caplog.at_level(logging.INFO), progress.track("ingest", "posts") as advance:
        advance(7)
        until = time.monotonic() + 30
        while len(caplog.records) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(lines(caplog)) >= 3
    assert all(line.startswith("ingest: 7 posts in ") for line in lines(caplog))


def test_ten_seconds_are_the_promise():
    assert progress.SECONDS_BETWEEN_LINES <= 10
