"""Durable writes to a local disk: what a call here has written survives a power cut.

A file's bytes, its name in its folder, and the folder's name in its parent reach the disk separately, each at an
unknown time unless fsync is called for it (see fsync(2); PostgreSQL's durable_rename does the same).
"""

import ctypes
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WRITING = ".writing"
"""Suffix of a file that is being written. A killed process leaves such a file behind, and readers ignore it."""

NO_SUCH_CALL = {errno.EINVAL, errno.EBADF, errno.ENOTSUP}
"""Errors of filesystems that have no fsync for folders, such as some network mounts."""

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}
"""Errors of filesystems that have no hard links, such as FAT and many of FUSE (see link(2))."""

AT_FDCWD, RENAME_NOREPLACE = -100, 1
"""Arguments of renameat2(2): paths from the working directory, and an existing target is an error."""


@contextmanager
def placed(target: str, place: Callable[[str, str], None]) -> Iterator[str]:
    """Give a temporary file name to write to; at the end, `place` (os.replace or place_new) moves it to the target.

    The bytes are on the disk before the file has its final name, and the name is on the disk at the end.
    """
    folder = os.path.dirname(target)
    make_folder(folder)
    unfinished = f"{target}.{uuid.uuid4().hex}{WRITING}"
    try:
        yield unfinished
        _sync(unfinished)
        place(unfinished, target)
        sync_folder(folder)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def place_new(unfinished: str, target: str) -> None:
    """Give the file its final name; FileExistsError if another file has that name.

    Raises OSError with ENOTSUP if the filesystem could replace a file that appears meanwhile.
    """
    try:
        os.link(unfinished, target)
    except FileExistsError:
        # NFS repeats a call whose answer was lost, and then finds what the first one made (see open(2)).
        if os.stat(unfinished).st_nlink != 2:
            raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _rename_new(unfinished, target)


def _rename_new(unfinished: str, target: str) -> None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux has it
    failed = rename is None or rename(
        AT_FDCWD, os.fsencode(unfinished), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE
    )
    if not failed:
        return
    code = errno.ENOSYS if rename is None else ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        raise OSError(errno.ENOTSUP, "this disk cannot create a file only if there is none", target)
    raise OSError(code, os.strerror(code), target)


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
