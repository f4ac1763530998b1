"""Says which process does a tuning: of those that want to, one holds it, and renews its hold.

Each hold is a document that is created once under the next number, so of two that take the same
number one has it. A hold is over when its process says so, has ended, or has not renewed it for
STALE seconds; nobody else changes it.
"""

import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import BadInput, TaggerError
from pipeline.progress import repeated
from pipeline.store.documents import Document
from pipeline.store.names import is_name, required
from pipeline.store.needs import needing
from pipeline.store.objects import Store
from pipeline.store.runs import TUNINGS

STALE = 900.0
"""Seconds without a renewal after which a hold of another machine is over."""

RENEWED = 60.0
"""Seconds between two renewals."""

NAME = re.compile(r"held(?:-(\d+))?\.json")

log = logging.getLogger(__name__)


class Hold(Document):
    """A process that does a tuning, or did; `at` is when it last said so, in seconds since 1970."""

    WHAT = "note of who does a tuning"

    owner: str = ""  # older versions of the pipeline wrote none
    host: str
    process: int
    at: float
    ended: bool = False

    @property
    def is_over(self) -> bool:
        """Whether another process may do the tuning now."""
        if self.ended or self.host != socket.gethostname():
            return self.ended or time.time() - self.at >= STALE
        import psutil  # here, because few commands ask

        try:
            # A process that began after this was written only has the number of the one that wrote it.
            return bool(psutil.Process(self.process).create_time() > self.at)
        except psutil.NoSuchProcess:
            return True


def held(store: Store, name: str) -> bool:
    """Whether a process does the tuning of this name now."""
    _, latest = _latest(store, _folder(name)) if is_name(name) else (-1, None)
    return latest is not None and not latest.is_over


@contextmanager
def hold(store: Store, name: str) -> Iterator[Callable[[], None]]:
    """Keep other processes from doing the tuning of this name; BadInput if another one does it.

    Gives a function that raises BadInput if this process has lost the tuning to another one,
    because it could not renew its hold for STALE seconds.
    """
    folder, host = _folder(name), socket.gethostname()
    mine = Hold(owner=uuid.uuid4().hex, host=host, process=os.getpid(), at=time.time())
    path = _take(store, folder, name, mine)

    def renew() -> None:
        try:
            store.write(path, mine.model_copy(update={"at": time.time()}).to_dict())
        except TaggerError as error:
            log.warning("tuning %s is not renewed: %s", name, error)

    def check() -> None:
        _, latest = _latest(store, folder)
        if latest and latest.owner != mine.owner:
            raise BadInput(
                f"tuning {name} was taken over by process {latest.process} on {latest.host}, because "
                f"this one could not renew its hold for {STALE:.0f} seconds: let that one end"
            )

    try:
        with needing(store, folder), repeated(renew, RENEWED):
            yield check
    finally:
        store.write(path, mine.model_copy(update={"ended": True}).to_dict())


def _take(store: Store, folder: str, name: str, mine: Hold) -> str:
    """Create the next hold, and return its path; BadInput if the latest one is not over."""
    while True:
        number, latest = _latest(store, folder)
        # If an object store's answer is lost, its client tries again, and finds what it has written.
        if latest and latest.owner == mine.owner:
            return _path(folder, number)
        if latest and not latest.is_over:
            raise BadInput(
                f"tuning {name} is being done by process {latest.process} on {latest.host}: wait for "
                "it, or begin one under another name"
            )
        if store.create(_path(folder, number + 1), mine.to_dict()):
            return _path(folder, number + 1)


def _latest(store: Store, folder: str) -> tuple[int, Hold | None]:
    """The number of the latest hold, and the hold; -1 if there is none."""
    numbers = [int(match[1] or 0) for match in map(NAME.fullmatch, store.names(folder)) if match]
    number = max(numbers, default=-1)
    return number, store.load(_path(folder, number), Hold) if numbers else None


def _folder(name: str) -> str:
    return f"{TUNINGS}/{required(name, 'tuning')}"


def _path(folder: str, number: int) -> str:
    return f"{folder}/held-{number}.json" if number > 0 else f"{folder}/held.json"
