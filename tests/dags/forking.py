"""Run `airflow` and code that needs it in forks of this process, which has imported it once.

Standard input is one JSON object a line: `command` is what follows `airflow`, or `-c`, code and its arguments as for
`python`; `environment` is all that it has; `folder` is where it works; `output` and `errors` are the files of its
standard output and its errors. The answer is a line with the fork's exit status, negative for a signal. The arguments
of this program are the modules to import first.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn, TextIO


def become(command: list[str], environment: dict[str, str], folder: str, output: str, errors: str) -> None:
    """Take over the place of a new process that would run the command."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if command[0] == "-c":
        sys.path.insert(0, "")
        sys.argv = command[:1] + command[2:]
    else:
        sys.argv = ["airflow", *command]


def run(command: list[str]) -> NoReturn:
    if command[0] == "-c":
        with tempfile.TemporaryDirectory() as folder:
            code = Path(folder, "code.py")
            code.write_text(command[1])
            runpy.run_path(str(code), run_name="__main__")
        sys.exit()
    from airflow.__main__ import main

    sys.exit(main())


def serve(answers: TextIO) -> dict[str, Any] | None:
    """Fork for each job and wait for its end; in the fork, return the job."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True, file=answers)
    return None


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # imports print warnings
    for module in sys.argv[1:]:
        importlib.import_module(module)
    supervisor = sys.modules.get("airflow.sdk.execution_time.supervisor")
    if supervisor:
        # Half of what `airflow tasks test` takes: the API of its own that it makes before the task begins.
        supervisor.in_process_api_server().app._cadwyn_initialize()
    job = serve(answers)
    if job:
        become(**job)
        # As the interpreter would end, with all that is registered to be done at exit.
        run(job["command"])
