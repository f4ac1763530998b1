"""Remembers on this machine how far each signed log had come, so that a log whose last entries were removed is noticed.

Each entry that is left is signed, so the log itself cannot tell. A machine that has never read the log knows nothing.
What is remembered never goes back, however many processes read the log at once.
"""

import fcntl
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import CorruptArtifact, Forbidden
from pipeline.files import user_cache
from pipeline.store.durable import placed

log = logging.getLogger(__name__)


class Head(NamedTuple):
    """How many entries a log had when this machine last read it, and the digest of the last one."""

    entries: int
    last: str | None


def known(place: str) -> Head:
    """What this machine remembers of the log at `place`; (0, None) if it has never read it.

    Raises CorruptArtifact or Forbidden if there is a memory of it that cannot be read.
    """
    file = _file(place)
    try:
        document = json.loads(file.read_text())
        return Head(int(document["entries"]), str(document["last"]))
    except FileNotFoundError:
        return Head(0, None)
    except OSError as error:
        raise Forbidden(
            f"{file} cannot be read ({error.strerror}), so it is not known whether {place} was cut off: give this user "
            "permission to read it, or set XDG_CACHE_HOME to another folder"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(
            f"{file} is damaged, so it is not known whether {place} was cut off: see that the log is whole "
            "(`tagger models --log` on another machine), then remove the file"
        ) from error


def refuse_cut_off(place: str, digests: list[str], before: Head | None = None) -> None:
    """Raise CorruptArtifact if this machine has read more entries of the log at `place`, or others.

    `digests` are those of the entries, oldest first. `before` is what was known before they were listed, since another
    process may have read entries that were added later; by default what is known now.
    """
    head = before or known(place)
    _refuse_other(place, digests, head)
    if len(digests) > head.entries:
        _remember(place, digests)


def _refuse_other(place: str, digests: list[str], head: Head) -> None:
    if head.entries and (len(digests) < head.entries or digests[head.entries - 1] != head.last):
        raise CorruptArtifact(
            f"{place} is not the log that this machine has read before, which had {head.entries} entries: some were "
            f"removed or replaced; restore it, or if that was meant to be, remove {_file(place)}"
        )


def _remember(place: str, digests: list[str]) -> None:
    """Remember these entries, unless another process has remembered as many meanwhile."""
    file = _file(place)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            newest = known(place)
            if len(digests) > newest.entries:
                _refuse_other(place, digests, newest)
                _write(file, {"log": place, "entries": len(digests), "last": digests[-1]})
    except OSError as error:
        log.warning(
            "this machine cannot remember how far %s has come, and would not notice if it were cut off: %s cannot be "
            "written (%s)",
            *(place, file, error.strerror),
        )


def _file(place: str) -> Path:
    return user_cache() / "logs" / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"


def _write(file: Path, document: dict[str, str | int]) -> None:
    with placed(str(file), os.replace) as unfinished:
        Path(unfinished).write_text(json.dumps(document))
