"""What a stage calls while it works: to report its progress, to save a checkpoint, and to tell of an epoch's end."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread

SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int], None]
Track = Callable[[str, str, int | None], AbstractContextManager[Advance]]
"""`with track("train", "steps", 400) as advance: ... advance(1)`; the total is None if unknown."""

SaveCheckpoint = Callable[[Path, int], object]
"""Called with a checkpoint's folder and its step, to save it for a retry."""

OnEpoch = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch of a training with its number, from 1, and its figures; an exception ends the training."""

log = logging.getLogger(__name__)


def no_checkpoint(folder: Path, step: int) -> None:
    """Save nothing: a stage that fails is done again from its beginning."""


def no_report(epoch: int, figures: Mapping[str, float]) -> None:
    """Let the training go on."""


@contextmanager
def repeated(act: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call the function every so many seconds, in a thread of its own, until the context is left."""
    over = Event()

    def acting() -> None:
        while not over.wait(seconds):
            act()

    thread = Thread(target=acting, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def log_lines(task: str, unit: str, total: int | None) -> Iterator[Advance]:
    """Log the progress every ten seconds and at the end.

    A thread of its own logs the lines, so that they appear even during a single slow step.
    """
    done, start = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done
        done += count

    def line() -> None:
        seconds = time.monotonic() - start
        of = f" of {total:,}" if total else ""
        log.info("%s: %s%s %s in %.0f s (%s/s)", task, f"{done:,}", of, unit, seconds, f"{done / (seconds or 1):,.0f}")

    try:
        with repeated(line, SECONDS_BETWEEN_LINES):
            yield advance
    finally:
        if done:
            line()
