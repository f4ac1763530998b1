"""Run a command and print what it took, as JSON: `python -I benchmarks/watch.py COMMAND ...`.

It is a small process of its own, because on Linux a process's peak memory begins with that of the one which started it.
"""

import json
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil

SECONDS_BETWEEN_LOOKS = 0.1


class Memory(Thread):
    """Samples the memory of a process and its descendants ten times a second; `most` is their peak together, in MiB.

    It adds up their anonymous pages, counting those that a fork shares with its parent once, and the mapped files of
    the process that maps most of them, because a library that several processes map is in memory once. (The
    proportional set size that psutil reports would leave out the share of processes outside the tree.)
    """

    def __init__(self, root: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.root, self.most = root, 0.0

    def run(self) -> None:
        """Sample until this process ends."""
        while True:
            self.most = max(self.most, self._now())
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _now(self) -> float:
        own, mapped = 0, [0]
        with suppress(psutil.NoSuchProcess):
            for process in (self.root, *self.root.children(recursive=True)):
                with suppress(OSError, KeyError):  # it has ended
                    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
                    kib = {name: int(size.split()[0]) for name, size in (line.split(":") for line in lines)}
                    own += kib["Pss_Anon"]
                    mapped.append(kib["Rss"] - kib["Anonymous"])
        return (own + max(mapped)) / 1024


def main(command: list[str]) -> None:
    """Run the command; print its exit status, its standard error, and the fields of a `process.Spent`."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    memory = Memory(psutil.Process(process.pid))
    memory.start()
    printed, errors = process.communicate()
    wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    # The kernel's own peak is of one process, but misses nothing between two looks.
    most = max(memory.most, used.ru_maxrss / 1024)
    took = {"cpu": used.ru_utime + used.ru_stime, "wall": wall, "peak_mib": most, "printed": printed}
    print(json.dumps({"status": process.returncode, "errors": errors, "took": took}))


if __name__ == "__main__":
    main(sys.argv[1:])
