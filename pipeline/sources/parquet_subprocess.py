"""Untrusted files decoded in a process of their own, so that no file can crash this one or take all of its memory."""

import faulthandler
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from pipeline.errors import BadInput

MEMORY = 2 * 2**30
"""Bytes that decoding may take beside what this process holds already."""


def batches(decode: Callable[[], Iterator[pa.RecordBatch]], schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
    """What decode() yields, as `schema`, in a fork of this process.

    Raises the BadInput or OSError that decode() raises, and BadInput where it crashes or would pass MEMORY. A fork,
    because a process begun from nothing takes half a second to import what this one has.
    """
    (results, out), (faults, complain) = os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _decode_and_exit(decode, schema, out, complain, name)
    os.close(out)
    os.close(complain)
    with open(results, "rb") as stream, open(faults, "rb") as faulty:
        broken: Exception | None = None
        try:
            try:
                yield from pa.ipc.open_stream(stream)
            except (pa.ArrowInvalid, OSError) as error:  # the child died in the midst of it; its own words go first
                broken = error
            stream.close()  # a child that still writes ends, and says so
            fault = faulty.read()
        finally:
            os.kill(child, signal.SIGKILL)  # it has ended, unless it was abandoned; until wait() the number is its own
            _, status = os.waitpid(child, 0)
    _raise(fault, status, name)
    if broken:
        raise broken


def _raise(fault: bytes, status: int, name: str) -> None:
    """The child's error, if it had one; it says {} at its end if it had none, and nothing if it crashed."""
    if not fault:
        raise BadInput(
            f"{name} is corrupt or hostile: decoding it crashed (signal {os.WTERMSIG(status)}); fetch or write it again"
        )
    match json.loads(fault):
        case {"sentence": sentence}:
            raise BadInput(sentence)
        case {"errno": [number, text]}:
            raise OSError(number, text)
        case {"traceback": lines}:
            raise RuntimeError(lines)


def _decode_and_exit(
    decode: Callable[[], Iterator[pa.RecordBatch]], schema: pa.Schema, out: int, complain: int, name: str
) -> NoReturn:
    """The life of the child, of which nothing that belongs to its parent is run or cleaned up."""
    fault: dict[str, Any] = {}
    try:
        _confine()
        with open(out, "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
            for batch in decode():
                stream.write_batch(batch)
    except BadInput as error:
        fault = {"sentence": str(error)}
    except MemoryError:
        fault = {"sentence": f"{name} needs more than {MEMORY >> 20:,} MiB to decode; write it in smaller pieces"}
    except OSError as error:
        fault = {"errno": [error.errno, error.strerror]}
    except BaseException:
        fault = {"traceback": traceback.format_exc()}
    finally:
        os.write(complain, json.dumps(fault).encode())
        os._exit(0)


def _confine() -> None:
    """Bound memory, leave no core file, and be ended by signals, in silence, as any process is."""
    faulthandler.disable()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where C++ says why it aborts
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with suppress(FileNotFoundError, ValueError):  # no /proc; a limit of the machine's that is lower already
        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY, hard))
