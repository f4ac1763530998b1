"""Runs the Parquet decoder in a fork of the fuzzer, because starting a new process takes up to a second per input."""

import faulthandler
import os
import signal
from typing import IO, NoReturn

from pipeline.sources import parquet_decoder


class Forked:
    """Replaces subprocess.Popen in parquet_subprocess, with the attributes it uses."""

    stdout: IO[bytes]
    returncode: int

    def __init__(self, file: IO[bytes], job: dict[str, str | None], complain: int) -> None:
        results, out = os.pipe()
        self._child = os.fork()
        if not self._child:
            _become_the_decoder(file.fileno(), out, job, complain)
        os.close(out)
        self.stdout = open(results, "rb")  # noqa: SIM115 - closed at the end

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])

    def kill(self) -> None:
        """Kill the child; its number is not reused before __exit__ has waited for it."""
        os.kill(self._child, 9)


def _become_the_decoder(file: int, out: int, job: dict[str, str | None], complain: int) -> NoReturn:
    # Otherwise pytest and libFuzzer would report a crash of the child as one of the fuzzer.
    faulthandler.disable()
    for number in (signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(file, 0)
    os.dup2(out, 1)
    os.close(out)
    parquet_decoder.main(job, complain)
