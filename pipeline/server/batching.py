"""Puts concurrent requests together: while one batch is computed, those that arrive make the next one."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from pipeline.server.errors import Refused

Compute = Callable[[list[Any]], Any]
"""From the rows of several requests to their results, of which a slice are the results of some."""

IsShort = Callable[[list[Any]], bool]


def _is_never_short(rows: list[Any]) -> bool:
    return False


@dataclass(frozen=True)
class _Waiting:
    rows: list[Any]
    results: "asyncio.Future[Any]"


class Batcher:
    """Calls `compute` with the rows of several requests at once, a call at a time, in the executor unless they are few.

    A request waits for the batch before its own and for nothing else, so a single client is never delayed. At most
    `queue` rows wait; a request beyond that is refused with status 429.
    """

    def __init__(
        self, compute: Compute, executor: Executor, *, batch: int, queue: int, is_short: IsShort = _is_never_short
    ) -> None:
        """Where `is_short` says so of a batch, it is computed at once: to wait for a thread would take longer."""
        self._compute, self._executor, self._batch, self._limit = compute, executor, batch, queue
        self._is_short = is_short
        self._queue: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self.waiting = 0

    async def __call__(self, rows: list[Any]) -> Any:
        """The results of these rows. Raises Refused where too many rows wait, and what `compute` raises."""
        if self.waiting + len(rows) > self._limit and self.waiting:
            raise Refused(429, f"{self.waiting:,} posts wait already: send fewer at a time, or try again in a second")
        waiting = _Waiting(rows, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self.waiting += len(rows)
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await waiting.results

    async def drained(self) -> None:
        """Wait until every request that was accepted is answered."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._compute_once()
        finally:
            self._task = None

    async def _compute_once(self) -> None:
        """Compute the next batch, and give each request its part; an error is that of each of them."""
        taken = self._take()
        if not taken:
            return
        rows = [row for each in taken for row in each.rows]
        try:
            if self._is_short(rows):
                results = self._compute(rows)
                await asyncio.sleep(0)  # else nothing is received until no request waits
            else:
                results = await asyncio.get_running_loop().run_in_executor(self._executor, self._compute, rows)
        except Exception as error:
            for each in taken:
                if not each.results.done():
                    each.results.set_exception(error)
            return
        start = 0
        for each in taken:
            stop = start + len(each.rows)
            if not each.results.done():  # its client may have gone
                each.results.set_result(results[start:stop])
            start = stop

    def _take(self) -> list[_Waiting]:
        """Take waiting requests from the queue until they have `batch` rows, without those whose clients have gone."""
        taken, rows = list[_Waiting](), 0
        while self._queue and (not taken or rows + len(self._queue[0].rows) <= self._batch):
            waiting = self._queue.popleft()
            self.waiting -= len(waiting.rows)
            if not waiting.results.done():
                taken.append(waiting)
                rows += len(waiting.rows)
        return taken
