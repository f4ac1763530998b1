"""Run one stage and die, by SIGKILL, at the n-th write to the store; a fork for each line of standard input.

A line is a JSON list: STORE RUN STAGE ARTIFACTS N HOW [PART]. The answer is a line with the fork's exit status, which
is negative for a signal. A fork of a process that has imported everything is soon there.

The stage's own work is a copy of what it made before (ARTIFACTS), so that a process takes a second and not ten; the
runner, the run, the store and the registry are the real ones. HOW is `before` the write, or `halfway` through it.
The status is 0 where there are fewer than N writes.
"""

import json
import os
import shutil
import signal
import sys
import traceback
import types
from dataclasses import make_dataclass
from pathlib import Path

import s3fs  # noqa: F401 - imported once, and not by every fork

from pipeline import drift, partial  # noqa: F401 - the same
from pipeline.runner import run_part, run_stage
from pipeline.runs import Run
from pipeline.store import Store


def main(url, name, stage, artifacts, last, how, part=None):
    store = Store(url)
    sys.modules[f"pipeline.stages.{stage}"] = canned(Path(artifacts), stage)
    die_at(store.fs, int(last), how)
    run = Run(store, name)
    run_stage(stage, run) if part is None else run_part(stage, run, int(part))


def canned(artifacts, stage):
    summary = json.loads((artifacts / f"{stage}.json").read_text())
    module = types.ModuleType(stage)

    def run(inputs, out, settings):
        for step in (1, 2) if stage == "train" else ():
            partial.save(artifacts / "fit_vocabulary", step)
        shutil.copytree(artifacts / stage, out, dirs_exist_ok=True)
        return make_dataclass("Summary", summary)(**summary)

    def part(inputs, out, settings):
        (out / "part").write_text(str(sorted(inputs["ingest"].rglob("*.parquet"))))
        return make_dataclass("Summary", {"rows": 1})(1)

    def gather(parts, out, settings):
        assert len({(folder / "part").read_text() for folder in parts}) == settings.shards
        return run({}, out, settings)

    module.run, module.part, module.gather = run, part, gather
    return module


def die_at(fs, last, how):
    """Count every call that changes the store, and die at the last."""
    count = 0

    def counted(write, partly):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == last:
                if how == "halfway":
                    partly(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments, **options)

        return call

    def half_of_file(here, there):
        data = Path(here).read_bytes()
        Path(there).write_bytes(data[: len(data) // 2])

    def nothing(*_):
        pass

    fs.put_file = counted(fs.put_file, half_of_file)
    fs.pipe_file = counted(fs.pipe_file, nothing)
    fs.rm = counted(fs.rm, nothing)
    os.replace = counted(os.replace, nothing)
    os.link = counted(os.link, nothing)


def in_a_fork(arguments):
    """The status of a process that does it; what it has to say goes to standard error."""
    child = os.fork()
    if not child:
        status = 1
        try:
            main(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        print(in_a_fork(json.loads(line)), flush=True)  # noqa: T201
