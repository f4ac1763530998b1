"""Requests that are computed together, and the limits of their queue."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.server.batching import Batcher
from pipeline.server.errors import Refused


class Computed:
    """Doubles numbers, keeps the batches, and waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, rows: list[int]) -> list[int]:
        self.batches.append(rows)
        assert self.go.wait(30)
        if 13 in rows:
            raise ValueError("unlucky")
        return [2 * row for row in rows]


def run(scenario):
    """Run the scenario with a batcher of at most 4 rows a batch and 6 that wait, and what it computed."""

    async def within() -> None:
        computed = Computed()
        with ThreadPoolExecutor(1) as executor:
            try:
                await asyncio.wait_for(scenario(Batcher(computed, executor, batch=4, queue=6), computed), 30)
            finally:
                computed.go.set()

    asyncio.run(within())


async def _started(computed):
    while not computed.batches:
        await asyncio.sleep(0.001)


def test_requests_that_come_during_a_batch_make_the_next_one_and_each_gets_its_own_results():
    async def scenario(batcher, computed):
        first = asyncio.ensure_future(batcher([1]))
        await _started(computed)
        others = [asyncio.ensure_future(batcher(rows)) for rows in ([2, 3], [4], [5, 6])]
        await asyncio.sleep(0)
        assert batcher.waiting == 5
        computed.go.set()
        assert await asyncio.gather(first, *others) == [[2], [4, 6], [8], [10, 12]]
        assert computed.batches == [[1], [2, 3, 4], [5, 6]]
        assert batcher.waiting == 0

    run(scenario)


def test_a_request_is_refused_where_too_many_wait_but_a_large_one_alone_is_not():
    async def scenario(batcher, computed):
        first = asyncio.ensure_future(batcher(list(range(9))))
        await _started(computed)
        second = asyncio.ensure_future(batcher([1] * 6))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="6 posts wait already") as refused:
            await batcher([1])
        assert refused.value.status == 429
        computed.go.set()
        assert (await first, await second) == ([2 * row for row in range(9)], [2] * 6)

    run(scenario)


def test_an_error_is_that_of_its_batch_only():
    async def scenario(batcher, computed):
        computed.go.set()
        with pytest.raises(ValueError, match="unlucky"):
            await batcher([13])
        assert await batcher([1]) == [2]

    run(scenario)


def test_a_client_that_goes_is_not_computed_and_does_not_disturb_the_others_for_whom_draining_waits():
    async def scenario(batcher, computed):
        first = asyncio.ensure_future(batcher([1]))
        await _started(computed)
        gone, stays = asyncio.ensure_future(batcher([2])), asyncio.ensure_future(batcher([3]))
        await asyncio.sleep(0)
        gone.cancel()
        computed.go.set()
        await batcher.drained()
        assert (first.result(), stays.result()) == ([2], [6])
        assert computed.batches == [[1], [3]]
        assert batcher.waiting == 0

    run(scenario)


def test_where_all_clients_have_gone_nothing_is_computed():
    async def scenario(batcher, computed):
        first = asyncio.ensure_future(batcher([1]))
        await _started(computed)
        gone = [asyncio.ensure_future(batcher([row])) for row in range(4)]
        await asyncio.sleep(0)
        for each in gone:
            each.cancel()
        computed.go.set()
        await batcher.drained()
        assert (first.result(), computed.batches, batcher.waiting) == ([2], [[1]], 0)

    run(scenario)


def test_a_short_batch_is_computed_at_once_and_others_are_received_between():
    threads, seen = list[str](), list[list[int]]()

    def compute(rows):
        threads.append(threading.current_thread().name)
        seen.append(rows)
        return rows

    async def within() -> None:
        with ThreadPoolExecutor(1, "compute") as executor:
            batcher = Batcher(compute, executor, batch=2, queue=9, is_short=lambda rows: len(rows) <= 2)
            asked = [asyncio.ensure_future(batcher([row])) for row in range(4)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert seen == [[0, 1]]  # and the event loop had its turn before the next one
            assert await asyncio.gather(*asked) == [[0], [1], [2], [3]]
            assert await batcher([1, 2, 3]) == [1, 2, 3]

    asyncio.run(asyncio.wait_for(within(), 30))
    assert seen == [[0, 1], [2, 3], [1, 2, 3]]
    assert [name.partition("_")[0] for name in threads] == ["MainThread", "MainThread", "compute"]
