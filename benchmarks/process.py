"""Runs a command in a process of its own and measures its time and memory."""

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
    """What a command took, in seconds of CPU and of the clock, and what it printed.

    `cpu` is user and system time, with that of the processes it waited for. `peak_mib` is the peak memory of the
    command and its descendants together, sampled ten times a second.
    """

    cpu: float
    wall: float
    peak_mib: float
    printed: str


def spent(command: Sequence[str], **variables: str) -> Spent:
    """Run the command, with these variables added to the environment; RuntimeError where it fails."""
    watched = [sys.executable, "-I", WATCH, *command]
    report = json.loads(subprocess.check_output(watched, env=os.environ | variables))
    if report["status"]:
        raise RuntimeError(f"{' '.join(command)} ended with status {report['status']}\n{report['errors']}")
    return Spent(**report["took"])
