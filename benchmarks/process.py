"""A command in a process of its own, and what it took."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WATCH = str(Path(__file__).with_name("watch.py"))


@dataclass(frozen=True)
class Spent:
    """Cores' time, user and system, with that of the processes it waited for; the clock's; and what it printed.

    `peak_mib` is what it and all that it started held together at the most, looked at ten times a second.
    """

    cpu: float
    wall: float
    peak_mib: float
    printed: str


def spent(command: Sequence[str], **variables: str) -> Spent:
    """Run the command to its end, with these variables beside its environment; RuntimeError where it fails."""
    watched = [sys.executable, "-IS", WATCH, *command]
    told = json.loads(subprocess.check_output(watched, env=os.environ | variables))
    if told["status"]:
        raise RuntimeError(f"{' '.join(command)} ended with status {told['status']}\n{told['errors']}")
    return Spent(**told["took"])
