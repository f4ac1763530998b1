"""Reports the progress of long tasks, by a function `track(task, unit, total)`; the default one logs lines."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread

SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int], None]
Track = Callable[[str, str, int | None], AbstractContextManager[Advance]]
"""`with track("train", "steps", 400) as advance: ... advance(1)`; the total is None if unknown."""

log = logging.getLogger(__name__)


@contextmanager
def log_lines(task: str, unit: str, total: int | None) -> Iterator[Advance]:
    """Log the progress every ten seconds and at the end.

    A thread of its own logs the lines, so that they appear even during a single slow step.
    """
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
