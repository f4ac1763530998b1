"""Measures the time, the CPU time and the peak memory of a piece of work."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """What a piece of work took.

    `cpu_seconds` counts this process and the processes that it waited for. `peak_mib` is the peak resident memory of
    this process in MiB, None where it cannot be measured.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float | None


def start() -> Callable[[], Usage]:
    """Start measuring, and return a function that returns the usage since the start."""
    is_reset = _reset_peak_memory()
    began, cpu_before = time.monotonic(), _cpu_seconds()

    def usage() -> Usage:
        seconds, cpu_seconds = time.monotonic() - began, _cpu_seconds() - cpu_before
        return Usage(seconds, round(cpu_seconds, 3), _peak_memory() if is_reset else None)

    return usage


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _reset_peak_memory() -> bool:
    """Reset the kernel's record of the peak to the present; False where there is no /proc or it is read-only.

    psutil and getrusage tell the peak since the process started, which may have run other stages before.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_memory() -> float | None:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return round(int(found[1]) / 1024, 1) if found else None
