"""A second version that is asked the same posts on the side, to see how often it agrees with the one that answers."""

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline.registry.registry import Registry
from pipeline.registry.series import Agreement, Series
from pipeline.server.loaded import Loaded
from pipeline.store.objects import Store

NICE = 10
"""The priority of its thread, below that of the thread that computes answers."""

ASK = "asks the shadow version"
NOTE = "notes how often the shadow version agrees"

Seen = Callable[[str, int], None]
"""Is told a result, `same`, `other` or `skipped`, and for how many posts."""

Failed = Callable[[str, BaseException], None]
"""Is told a task that failed, and its error."""


class Shadow:
    """Asks the version in a thread of its own, a batch at a time; batches that come meanwhile are skipped.

    So answers never wait for it, and it takes up what the processor has left.
    """

    def __init__(self, registry: Registry, version: int, seen: Seen, failed: Failed) -> None:
        """Load the version. Raises BadInput if there is no such version, CorruptArtifact if it cannot be served."""
        self.loaded = Loaded.of(registry, version)
        self._seen, self._failed, self._busy = seen, failed, threading.Event()
        self._counted: dict[int, tuple[int, int]] = {}
        self._counting = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "shadow", initializer=_yield_to_others)

    def ask(self, posts: list[bytes], tags: list[str], live: int) -> None:
        """Ask the version these posts, for which the version `live` answered `tags`; returns at once."""
        if self._busy.is_set():
            self._seen("skipped", len(posts))
            return
        self._busy.set()
        try:
            self._thread.submit(self._compare, posts, tags, live)
        except Exception as error:  # such as no memory for a thread: the answer to the client does not depend on it
            self._busy.clear()
            self._failed(ASK, error)

    def note(self, store: Store) -> None:
        """Append to the series how often the version agreed since the last note. What is not written stays counted."""
        while self._counted:
            with self._counting:
                live, (posts, same) = self._counted.popitem()
            made = partial(Agreement, live=live, shadow=self.loaded.version, posts=posts, same=same)
            try:
                Series(store).append(lambda number, at, _, made=made: made(number=number, at=at))  # type: ignore[misc]
            except BaseException:
                self._count(live, posts, same)
                raise

    def close(self) -> None:
        """Wait for the batch that is being computed, and free the memory."""
        self._thread.shutdown()
        self.loaded.close()

    def _compare(self, posts: list[bytes], tags: list[str], live: int) -> None:
        try:
            ours = self.loaded.model.answer(posts).given
            same = sum(our == their for our, their in zip(ours, tags, strict=True))
            self._count(live, len(posts), same)
            self._seen("same", same)
            self._seen("other", len(posts) - same)
        except Exception as error:
            self._failed(ASK, error)
            self._seen("skipped", len(posts))
        finally:
            self._busy.clear()

    def _count(self, live: int, posts: int, same: int) -> None:
        with self._counting:
            before = self._counted.get(live, (0, 0))
            self._counted[live] = before[0] + posts, before[1] + same


def _yield_to_others() -> None:
    with contextlib.suppress(OSError):  # an executor whose thread cannot begin never computes anything
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
