"""Runs a Python module in a fresh process that has imported TensorFlow already, which saves seconds for each.

A process that only imports is started once, and forks for every run; so a run sees no graph, session or thread of
another one.
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
from typing import Any, NoReturn

Command = list[str]


class Forker:
    """The process that forks, started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, command: Command, **options: Any) -> subprocess.CompletedProcess[str]:
        """The same as subprocess.run(command, capture_output=True, text=True, check=False), for `python -m MODULE`."""
        assert command[:2] == [sys.executable, "-m"]
        assert options == {"capture_output": True, "text": True, "check": False}
        if self._process is None:
            this = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(this, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        job = {"arguments": command[2:], "folder": os.getcwd(), "environment": dict(os.environ)}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        done = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(command, done["status"], done["output"], done["errors"])

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.communicate()


def _forked(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            _become(job, output.fileno(), errors.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        errors.seek(0)
        return {"status": status, "output": output.read(), "errors": errors.read()}


def _become(job: dict[str, Any], output: int, errors: int) -> NoReturn:
    """Be what `python -m MODULE` would be. An exception ends this process as it would end that one."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    sys.argv = job["arguments"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    import tensorflow as tf  # noqa: F401 - for those that are forked

    from pipeline.model import serving  # noqa: F401

    for line in sys.stdin:
        done = _forked(json.loads(line))
        sys.stdout.write(json.dumps(done) + "\n")
        sys.stdout.flush()
