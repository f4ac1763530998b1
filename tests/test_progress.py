import logging
import time

from pipeline import progress


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_line_is_logged_at_the_end(caplog):
    with caplog.at_level(logging.INFO), progress.log_lines("train", "steps", 400) as advance:
        advance(150)
        advance(250)
    assert len(lines(caplog)) == 1
    assert lines(caplog)[0].startswith("train: 400 of 400 steps in 0 s (")


def test_lines_are_logged_at_intervals_even_without_progress(caplog, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.01)
    with caplog.at_level(logging.INFO), progress.log_lines("ingest", "posts", None) as advance:
        advance(7)
        until = time.monotonic() + 30
        while len(caplog.records) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(lines(caplog)) >= 3
    assert all(line.startswith("ingest: 7 posts in ") for line in lines(caplog))
