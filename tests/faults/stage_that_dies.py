"""Does one stage or command in a fork, which dies by SIGKILL at the n-th write to the store.

Each line of standard input is a JSON list: STORE RUN STAGE ARTIFACTS N HOW [SHARD], where STAGE may be a name in
COMMANDS. The answer is a line with the fork's exit status, which is negative for a signal. Forks of a process that has
imported everything start fast.

Instead of working, the stage copies what it made before (ARTIFACTS), so that a fork takes a second and not ten. The
runner, the run, the store, the registry and garbage collection are the real ones. HOW is `before` the write, or
`halfway` through it. The status is 0 if there are fewer than N writes.
"""

import json
import os
import shutil
import signal
import sys
import traceback
import types
from contextlib import suppress
from dataclasses import make_dataclass
from datetime import UTC, datetime
from pathlib import Path

import s3fs  # noqa: F401 - imported once, and not by every fork
from fsspec.implementations.local import LocalFileSystem

from pipeline.checks import drift  # noqa: F401 - the same
from pipeline.errors import BadInput, GateNotPassed
from pipeline.registry.registry import Registry
from pipeline.report import page  # noqa: F401 - the same
from pipeline.run import cache_keys
from pipeline.run.runner import run_shard, run_stage
from pipeline.settings import Deployment, Settings
from pipeline.store.code import PACKAGES, code_digest, package_version
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.gc import collect

# Found once, and not by every fork.
code_digest()
for package in {*PACKAGES, *cache_keys.PACKAGES, "stackoverflow-tagger"}:
    package_version(package)


def rollback(store):
    with suppress(BadInput):  # it completed an interrupted rollback instead
        Registry(store).rollback("by hand")


COMMANDS = {
    "begin": lambda store: Run(store, "new").begin(Settings(), datetime(2026, 1, 5, tzinfo=UTC)),
    "promote": lambda store: Registry(store).promote(1, "by hand"),
    "rollback": rollback,
    "gc": lambda store: list(collect(store, Deployment.of({"keep_versions": 0, "keep_days": 0}))),
}


def main(url, name, what, artifacts, last, how, shard=None):
    store = Store(url)
    die_at(store.fs, int(last), how)
    if what in COMMANDS:
        COMMANDS[what](store)
        return
    refused = shard == "refused"
    sys.modules[f"pipeline.stages.{what}"] = canned(Path(artifacts), what, refused=refused)
    run = Run(store, name)
    if shard is None or refused:
        with suppress(GateNotPassed):
            run_stage(what, run)
    else:
        run_shard(what, run, int(shard))


def canned(artifacts, stage, *, refused):
    summary = json.loads((artifacts / f"{stage}.json").read_text())
    module = types.ModuleType(stage)

    def run(inputs, out, settings, context):
        for step in (1, 2) if stage == "train" else ():
            context.save_checkpoint(artifacts / "fit_vocabulary", step)
        shutil.copytree(artifacts / stage, out, dirs_exist_ok=True)
        if refused:
            raise GateNotPassed("below", summary)
        return make_dataclass("Summary", summary)(**summary)

    def run_shard(inputs, out, settings, context):
        (out / "shard").write_text(str(sorted(inputs["ingest"].rglob("*.parquet"))))
        return make_dataclass("Summary", {"rows": 1})(1)

    def gather(shards, out, settings, context):
        assert len({(folder / "shard").read_text() for folder in shards}) == context.deployment.shards
        return run({}, out, settings, context)

    module.run, module.run_shard, module.gather = run, run_shard, gather
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
        if isinstance(fs, LocalFileSystem):  # elsewhere one put is whole or absent
            data = Path(here).read_bytes()
            Path(there).write_bytes(data[: len(data) // 2])

    def half_of_folder(path):
        files = fs.find(path)
        for file in files[: len(files) // 2]:
            fs.rm_file(file)

    def nothing(*_):
        pass

    fs.put_file = counted(fs.put_file, half_of_file)
    fs.pipe_file = counted(fs.pipe_file, nothing)
    fs.rm = counted(fs.rm, half_of_folder)
    os.replace = counted(os.replace, nothing)
    os.link = counted(os.link, nothing)


def in_a_fork(arguments):
    """Run main in a fork, and return its exit status; errors are printed to standard error."""
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
