"""Durable writes to a local disk: what a call here has written survives a power cut.

A file's bytes, its name in its folder, and the folder's name in its parent reach the disk separately, each at an
unknown time unless fsync is called for it (see fsync(2); PostgreSQL's durable_rename does the same).
"""

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".writing"
"""Suffix of a file that is being written. A killed process leaves such a file behind, and readers ignore it."""

NO_SUCH_CALL = {errno.EINVAL, errno.EBADF, errno.ENOTSUP}
"""Errors of filesystems that have no fsync for folders, such as some network mounts."""


@contextmanager
def placed(target: str, place: Callable[[str, str], None]) -> Iterator[str]:
    """Give a temporary file name to write to; at the end, `place` (os.replace or os.link) moves it to the target.

    The bytes are on the disk before the file has its final name, and the name is on the disk at the end.
    """
    folder = os.path.dirname(target)
    make_folder(folder)
    unfinished = f"{target}.{uuid.uuid4().hex}{UNFINISHED}"
    try:
        yield unfinished
        _sync(unfinished)
        place(unfinished, target)
        sync_folder(folder)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def make_folder(folder: str) -> None:
    """Create the folder and its parents if they are missing."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    make_folder(above)
    with suppress(FileExistsError):  # made by another process; or it is a file, which fails at the next step
        os.mkdir(folder)
    sync_folder(above)


def sync_folder(folder: str) -> None:
    """Write the folder's list of names to the disk; do nothing if the folder does not exist."""
    try:
        _sync(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in NO_SUCH_CALL:
            raise


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
