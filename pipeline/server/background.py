"""Runs what a server does beside its requests, again and again: no error ends it, and each is logged and counted."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from pipeline.errors import TaggerError, escape_control
from pipeline.server.errors import Refused

Step = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


class Background:
    """The repeated tasks of one server. `count` is told a task's name for each of its failures."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._logged: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def repeating(self, name: str, seconds: float, step: Step) -> AsyncIterator[None]:
        """Take the step every so many seconds while the block runs; one that has begun is completed."""
        ending = asyncio.Event()

        async def repeat() -> None:
            while not await _is_set_within(ending, seconds):
                await self.attempt(name, step)

        task = self._tasks[name] = asyncio.create_task(repeat())
        try:
            yield
        finally:
            del self._tasks[name]
            ending.set()
            await asyncio.wait([task])

    async def attempt(self, name: str, step: Step) -> None:
        """Take the step once, and note an error of any kind as a failure of the task."""
        try:
            await step()
        except asyncio.CancelledError as error:
            # Either the task is cancelled, or the step awaited something that was, which is an error like any other.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self.failed(name, error)
        except Exception as error:
            self.failed(name, error)
        else:
            self._logged.pop(name, None)

    def failed(self, name: str, error: BaseException) -> None:
        """Count a failure of the task, and log it in one line, unless that is what was logged last."""
        self._count(name)
        line = f"{name}: {sentence(error)}"
        if self._logged.get(name) != line:
            log.error("%s", line)
        self._logged[name] = line

    def dead(self) -> str | None:
        """The name of a task that has ended though the server has not; None while all go on."""
        return next((name for name, task in self._tasks.items() if task.done()), None)

    def refuse_dead(self) -> None:
        """Raise Refused, 503, where a task has ended though the server has not."""
        if name := self.dead():
            raise Refused(503, f"the server's task that {name} has ended: start the server again")


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def sentence(error: BaseException) -> str:
    """What an error of any kind says, on one line."""
    if isinstance(error, TaggerError):
        return str(error)
    what = f"{type(error).__name__}: {error}"
    return escape_control(what.partition("\n")[0])
