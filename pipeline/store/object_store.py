"""What fsspec leaves to us on object stores: literal names, and what a server's refusals mean."""

import re
import time
from typing import Any

GLOB = re.compile(r"[*?\[]")

WAITS = (0.1, 0.3, 1.0, 3.0)
"""Seconds before each further try of a write that another one was in the way of."""


def answer_of(error: BaseException) -> tuple[int, str]:
    """The HTTP status and the code with which an S3 server refused; (0, "") if it did not."""
    response = getattr(error.__cause__, "response", None) or {}  # botocore's
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status, response.get("Error", {}).get("Code", "")


def put_new(fs: Any, path: str, data: bytes) -> None:
    """Write an object; FileExistsError if there is one."""
    for wait in (*WAITS, None):
        try:
            fs.pipe_file(path, data, mode="create")
        except OSError as error:
            status, _ = answer_of(error)
            # s3fs knows this only from servers that also say which condition was not met.
            if status == 412:
                raise FileExistsError(path) from error
            # "A conflicting conditional operation is currently in progress": nothing was written.
            if status != 409 or wait is None:
                raise
            time.sleep(wait)
        else:
            return


def remove(fs: Any, path: str) -> None:
    """Remove the file or folder with exactly this path; there may be none, or FileNotFoundError."""
    if not GLOB.search(path):
        fs.rm(path, recursive=True)
        return
    # rm would take the path for a pattern, and remove what is beside it.
    for file in fs.find(path):
        fs.rm_file(file)
    for folder in sorted({path, *fs.find(path, withdirs=True)}, reverse=True):
        if fs.isdir(folder):  # on S3 a folder goes with its last file
            fs.rmdir(folder)
