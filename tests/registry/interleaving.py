"""Lets something happen at the n-th call of a store: another process acts, or this one is killed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipeline.store.objects import Store

READS = ("read", "read_bytes", "names", "tree", "faults", "download")
WRITES = ("write", "write_bytes", "create", "upload", "remove", "sign")


class Killed(BaseException):
    """The end of a process, which nothing catches."""


@contextmanager
def at_call(number: int, act: Callable[[], object], calls: tuple[str, ...] = READS + WRITES) -> Iterator[list[str]]:
    """Within, `act` is called once, right before the call with this number of any store; yields the calls so far."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            patch.setattr(Store, name, _counting(name, seen, number, act))
        yield seen


def _counting(name: str, seen: list[str], number: int, act: Callable[[], object]) -> Callable[..., object]:
    real = getattr(Store, name)

    def counted(self, *arguments, **named):
        seen.append(name)
        if len(seen) == number:
            act()
        return real(self, *arguments, **named)

    return counted


def kill() -> None:
    """End this process, as far as the code under test can see."""
    raise Killed
