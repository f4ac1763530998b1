"""Puts concurrent requests together: while one batch is computed, those that arrive make the next one."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.server.errors import Refused

Compute = Callable[[list[Any]], np.ndarray]


@dataclass(frozen=True)
class _Waiting:
    rows: list[Any]
    answer: "asyncio.Future[np.ndarray]"


class Batcher:
    """Calls `compute` with the rows of several requests at once, in the executor, a call at a time.

    A request waits for the batch before its own and for nothing else, so a single client is never delayed. At most
    `queue` rows wait; a request beyond that is refused with status 429.
    """

    def __init__(
        self,
        compute: Compute,
        executor: Executor,
        *,
        batch: int,
        queue: int,
        seen: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._compute, self._executor, self._batch, self._limit, self._seen = compute, executor, batch, queue, seen
        self._queue: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self.waiting = 0

    async def __call__(self, rows: list[Any]) -> np.ndarray:
        """The results of these rows. Raises Refused where too many rows wait, and what `compute` raises."""
        if self.waiting + len(rows) > self._limit and self.waiting:
            raise Refused(429, f"{self.waiting:,} posts wait already: send fewer at a time, or try again in a second")
        waiting = _Waiting(rows, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self.waiting += len(rows)
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await waiting.answer

    async def drained(self) -> None:
        """Wait until every request that was accepted is answered."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                taken = self._take()
                rows = [row for each in taken for row in each.rows]
                self._seen(len(rows))
                try:
                    results = await loop.run_in_executor(self._executor, self._compute, rows)
                except Exception as error:
                    for each in taken:
                        if not each.answer.done():
                            each.answer.set_exception(error)
                    continue
                start = 0
                for each in taken:
                    if not each.answer.done():  # its client may have gone
                        each.answer.set_result(results[start : start + len(each.rows)])
                    start += len(each.rows)
        finally:
            self._task = None

    def _take(self) -> list[_Waiting]:
        """Take waiting requests from the queue, at least one, until they have `batch` rows."""
        taken, rows = list[_Waiting](), 0
        while self._queue and (not taken or rows + len(self._queue[0].rows) <= self._batch):
            taken.append(self._queue.popleft())
            rows += len(taken[-1].rows)
        self.waiting -= rows
        return taken
