"""A second version that is asked the same posts on the side, to see how often it agrees with the one that answers."""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline.errors import TaggerError
from pipeline.registry.registry import Registry
from pipeline.registry.series import Agreement, Series
from pipeline.server.loaded import Loaded
from pipeline.store.objects import Store

log = logging.getLogger(__name__)

NICE = 10
"""The priority of its thread, below that of the thread that computes answers."""

Seen = Callable[[str, int], None]
"""Is told a result, `same`, `other` or `skipped`, and for how many posts."""


class Shadow:
    """Asks the version in a thread of its own, a batch at a time; batches that come meanwhile are skipped.

    So answers never wait for it, and it takes up what the processor has left.
    """

    def __init__(self, registry: Registry, version: int, seen: Seen) -> None:
        """Load the version. Raises BadInput if there is no such version, CorruptArtifact if it cannot be served."""
        self.loaded = Loaded.of(registry, version)
        self._seen, self._busy = seen, threading.Event()
        self._counted: dict[int, list[int]] = {}
        self._thread = ThreadPoolExecutor(1, "shadow", initializer=_yield_to_others)

    def ask(self, posts: list[bytes], tags: list[str], live: int) -> None:
        """Ask the version these posts, for which the version `live` answered `tags`; returns at once."""
        if self._busy.is_set():
            self._seen("skipped", len(posts))
            return
        self._busy.set()
        self._thread.submit(self._compare, posts, tags, live)

    def note(self, store: Store) -> None:
        """Append to the series how often the version agreed since the last note; what cannot be written is logged."""
        counted, self._counted = self._counted, {}
        for live, (posts, same) in counted.items():
            made = partial(Agreement, live=live, shadow=self.loaded.version, posts=posts, same=same)
            try:
                Series(store).append(lambda number, at, _, made=made: made(number=number, at=at))  # type: ignore[misc]
            except TaggerError as error:
                log.error("that the shadow version agreed for %d of %d posts is not noted: %s", same, posts, error)

    def close(self) -> None:
        """Wait for the batch that is being computed, and free the memory."""
        self._thread.shutdown()
        self.loaded.close()

    def _compare(self, posts: list[bytes], tags: list[str], live: int) -> None:
        try:
            label, several = self.loaded.given(self.loaded.probabilities(posts))
            found = [self.loaded.labels[at] for at in label.tolist()] if several is None else several
            same = sum(ours == theirs for ours, theirs in zip(found, tags, strict=True))
            counted = self._counted.setdefault(live, [0, 0])
            counted[0], counted[1] = counted[0] + len(posts), counted[1] + same
            self._seen("same", same)
            self._seen("other", len(posts) - same)
        except Exception:
            log.exception("the shadow version %d did not answer", self.loaded.version)
        finally:
            self._busy.clear()


def _yield_to_others() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
