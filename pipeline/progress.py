"""Progress of long work: a line in the log every ten seconds, or what the command line shows in its place."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread

SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int], None]
Display = Callable[[str, str, int | None], AbstractContextManager[Advance]]

log = logging.getLogger(__name__)


@contextmanager
def log_lines(task: str, unit: str, total: int | None) -> Iterator[Advance]:
    """A line every ten seconds from a thread of its own, so that one slow step is no silence; and one at the end."""
    done, start, over = 0, time.monotonic(), Event()

    def advance(count: int) -> None:
        nonlocal done
        done += count

    def line() -> None:
        seconds = time.monotonic() - start
        of = f" of {total:,}" if total else ""
        log.info("%s: %s%s %s in %.0f s (%s/s)", task, f"{done:,}", of, unit, seconds, f"{done / (seconds or 1):,.0f}")

    def lines() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            line()

    thread = Thread(target=lines, daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        over.set()
        thread.join()
        if done:
            line()


_display: Display = log_lines


def show_with(display: Display) -> None:
    """Replace the display, for a process that has a terminal."""
    global _display
    _display = display


def track(task: str, unit: str, total: int | None = None) -> AbstractContextManager[Advance]:
    """`with track("train", "steps", 400) as advance: ... advance(1)`; `total` where it is known."""
    return _display(task, unit, total)
