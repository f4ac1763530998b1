"""Run a command and say what it took, as JSON: `python -IS benchmarks/watch.py COMMAND ...`.

A small process between, because Linux begins a process's peak with that of the one which started it.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

SECONDS_BETWEEN_LOOKS = 0.1


class Memory(Thread):
    """Looks at a process and all that it started, again and again; `most` is what they held together, in MiB.

    Their own pages, of which those that a fork shares with its parent are not counted twice, and the libraries and
    other mapped files of the one that has most of them: what several map is in memory once. Linux's "proportional"
    size would say the same, but for the part that it ascribes to processes outside which map the same libraries.
    """

    def __init__(self, first: int) -> None:
        super().__init__(daemon=True)
        self.first, self.most = first, 0.0

    def run(self) -> None:
        """Until this process ends."""
        while True:
            self.most = max(self.most, self._now())
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _now(self) -> float:
        own, mapped = 0, [0]
        for process in _tree(self.first):
            with suppress(OSError, KeyError):  # it has ended
                lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
                kib = {name: int(size.split()[0]) for name, size in (line.split(":") for line in lines)}
                own += kib["Pss_Anon"]
                mapped.append(kib["Rss"] - kib["Anonymous"])
        return (own + max(mapped)) / 1024


def _tree(first: int) -> Iterator[int]:
    """The process and its living descendants."""
    children = dict[int, list[int]]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    waiting = [first]
    while waiting:
        yield (process := waiting.pop())
        waiting += children.get(process, [])


def main(command: list[str]) -> None:
    """Print the status, the errors, and the fields of a `process.Spent`."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    memory = Memory(process.pid)
    memory.start()
    printed, errors = process.communicate()
    wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    # The kernel's own peak is of one process, but misses nothing between two looks.
    most = max(memory.most, used.ru_maxrss / 1024)
    took = {"cpu": used.ru_utime + used.ru_stime, "wall": wall, "peak_mib": most, "printed": printed}
    print(json.dumps({"status": process.returncode, "errors": errors, "took": took}))


if __name__ == "__main__":
    main(sys.argv[1:])
