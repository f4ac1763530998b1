"""A command in a process of its own, and what it took."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

WATCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
took = {"cpu": used.ru_utime + used.ru_stime, "wall": wall, "peak_mib": used.ru_maxrss / 1024, "printed": done.stdout}
print(json.dumps({"status": done.returncode, "errors": done.stderr, "took": took}))
"""
"""A small process between: Linux begins a process's peak with that of the one which started it."""


@dataclass(frozen=True)
class Spent:
    """Cores' time, user and system, with that of the processes it waited for; the clock's; and what it printed.

    `peak_mib` is resident memory at the most: of the process or of one of those, whichever had more.
    """

    cpu: float
    wall: float
    peak_mib: float
    printed: str


def spent(command: Sequence[str], **variables: str) -> Spent:
    """Run the command to its end, with these variables beside its environment; RuntimeError where it fails."""
    watched = [sys.executable, "-IS", "-c", WATCH, *command]
    told = json.loads(subprocess.check_output(watched, env=os.environ | variables))
    if told["status"]:
        raise RuntimeError(f"{' '.join(command)} ended with status {told['status']}\n{told['errors']}")
    return Spent(**told["took"])
