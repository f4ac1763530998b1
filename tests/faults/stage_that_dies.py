"""Run one stage and die, by SIGKILL, at the n-th write to the store: `STORE RUN STAGE ARTIFACTS N HOW`.

The stage's own work is a copy of what it made before (ARTIFACTS), so that a process takes a second and not ten; the
runner, the run, the store and the registry are the real ones. HOW is `before` the write, or `halfway` through it.
Exits 0 where there are fewer than N writes.
"""

import json
import os
import shutil
import signal
import sys
import types
from dataclasses import make_dataclass
from pathlib import Path

from pipeline import partial
from pipeline.runner import run_stage
from pipeline.runs import Run
from pipeline.store import Store


def main(url, name, stage, artifacts, last, how):
    store = Store(url)
    sys.modules[f"pipeline.stages.{stage}"] = canned(Path(artifacts), stage)
    die_at(store.fs, int(last), how)
    run_stage(stage, Run(store, name))


def canned(artifacts, stage):
    summary = json.loads((artifacts / f"{stage}.json").read_text())
    module = types.ModuleType(stage)

    def run(inputs, out, settings):
        for step in (1, 2) if stage == "train" else ():
            partial.save(artifacts / "fit_vocabulary", step)
        shutil.copytree(artifacts / stage, out, dirs_exist_ok=True)
        return make_dataclass("Summary", summary)(**summary)

    module.run = run
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


if __name__ == "__main__":
    main(*sys.argv[1:])
