"""Runs parquet_decoder in a process of its own, so that no file can crash this process or exhaust its memory."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import BadInput
from pipeline.sources.blocks import Columns

HIDDEN = ("numpy", "pandas")
"""Packages that pyarrow imports if they are installed, and decoding does not need: they would double its start-up."""

PROGRAM = f"""
import json, sys
sys.modules.update(dict.fromkeys({HIDDEN}))  # None makes a package look as if it were not installed
from pipeline.sources.parquet_decoder import main
main(json.loads(sys.argv[1]), int(sys.argv[2]))
"""

COMMAND = (sys.executable, "-P", "-c", PROGRAM)
"""The decoder's command line, before its two arguments: the job as JSON, and the file descriptor for its error."""


def batches(file: io.BufferedReader, name: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Decode a local Parquet file to batches of parquet_decoder.DECODED.

    Raises the BadInput or OSError that decoding raises, and BadInput where it crashes or needs more memory than
    parquet_decoder.MEMORY. The process is a new one and not a fork, which would inherit the locks that other threads
    hold and never get them released.
    """
    job = {"name": name, "text": columns.text, "tag": columns.tag}
    faults, complain = os.pipe()
    broken: Exception | None = None
    with open(faults, "rb") as faulty:
        try:
            started = start(file, job, complain)
        finally:
            os.close(complain)
        with started as child:
            assert child.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
            try:
                try:
                    yield from pa.ipc.open_stream(child.stdout)
                except (pa.ArrowInvalid, OSError) as error:  # it ended early; the error that it reports comes first
                    broken = error
                child.stdout.close()  # ends a child that is still writing
                fault = faulty.read()
            finally:
                child.kill()  # it is still running only if the caller stopped reading
    _raise(fault, child.returncode, name)
    if broken:
        raise broken


def start(file: io.BufferedReader, job: dict[str, str | None], complain: int) -> subprocess.Popen[bytes]:
    """Start the process, with the module search path of this one."""
    found = os.pathsep.join(place or os.getcwd() for place in sys.path)
    return subprocess.Popen(  # noqa: S603 - the command is ours
        [*COMMAND, json.dumps(job), str(complain)],
        stdin=file.fileno(),
        stdout=subprocess.PIPE,
        pass_fds=(complain,),
        env=os.environ | {"PYTHONPATH": found},
    )


def _raise(fault: bytes, status: int, name: str) -> None:
    """Raise the child's error, if any: it reports {} where there was none, and nothing where it crashed."""
    if not fault and status < 0:
        raise BadInput(f"{name} is corrupt or malicious: decoding it crashed (signal {-status}); write it again")
    if not fault:
        raise RuntimeError(f"the process that decodes Parquet ended with status {status}: see its standard error")
    match json.loads(fault):
        case {"sentence": sentence}:
            raise BadInput(sentence)
        case {"errno": [number, text]}:
            raise OSError(number, text)
        case {"traceback": lines}:
            raise RuntimeError(lines)
