"""Remembers on this machine how far each signed log had come, so that a log whose last entries were removed is noticed.

Each entry that is left is signed, so the log itself cannot tell. A machine that has never read the log knows nothing.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import CorruptArtifact
from pipeline.files import user_cache


def refuse_cut_off(place: str, digests: list[str]) -> None:
    """Raise CorruptArtifact if this machine has read more entries of the log at `place`, or others.

    `digests` are those of the entries, oldest first.
    """
    file = user_cache() / "logs" / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"
    known = _read(file)
    count, last = known.get("entries", 0), known.get("last")
    if count and (len(digests) < count or digests[count - 1] != last):
        raise CorruptArtifact(
            f"{place} is not the log that this machine has read before, which had {count} entries: some were removed "
            f"or replaced; restore it, or if that was meant to be, remove {file}"
        )
    if len(digests) > count:
        with suppress(OSError):  # the machine then remembers less
            _write(file, {"log": place, "entries": len(digests), "last": digests[-1]})


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _write(file: Path, document: dict[str, Any]) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps(document))
    unfinished.replace(file)
