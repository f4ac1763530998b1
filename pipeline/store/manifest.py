"""The manifest of a stage: the files that one attempt left, and the inputs that they were made from."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.store.documents import Document
from pipeline.store.names import Files, Name

RUNS = "runs"
"""Folder of the runs."""

MANIFEST = "manifest.json"
"""The name of the document in the folder of its stage."""

TIME = "%Y%m%dT%H%M%S"
ATTEMPT = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")
"""The name of an attempt: the time of its commit, and a random number that makes it unique."""


class Manifest(Document):
    """The files that one attempt of a stage left, with their digests. Files that no manifest names do not count.

    `run` is the run that made them, which may differ from the run that uses them. `inputs` has the digests of the
    manifests that they were made from, `settings` that of the settings of the run that uses them. `seconds`,
    `cpu_seconds` (user and system, with subprocesses) and `peak_mib` (resident memory, None if unknown) are what the
    attempt took.
    """

    WHAT = "manifest"

    stage: Name
    run: Name
    attempt: Name
    files: Files
    inputs: dict[str, str]
    summary: dict[str, Any]
    seconds: float
    peak_mib: float | None
    finished: str
    cpu_seconds: float | None = None  # the oldest manifests do not have it
    settings: str = ""  # older manifests do not have it

    @classmethod
    def upgraded(cls, document: dict[str, Any], found: int) -> dict[str, Any]:
        """Rename the field of the summary that format 1 called `invented`."""
        summary = document.get("summary")
        if found == 1 and isinstance(summary, dict) and "invented" in summary:
            renamed = {"synthetic" if name == "invented" else name: value for name, value in summary.items()}
            return document | {"summary": renamed}
        return document

    @property
    def path(self) -> str:
        """The folder in the store with the files, in the folder of the run that made them."""
        return f"{RUNS}/{self.run}/{self.stage}/{self.attempt}"

    @property
    def digest(self) -> str:
        """sha256 over the names and digests of the files, so it is equal for attempts that left the same bytes."""
        listing = json.dumps({name: entry.sha256 for name, entry in sorted(self.files.items())})
        return hashlib.sha256(listing.encode()).hexdigest()


def current(manifests: Mapping[str, Manifest], stage: str) -> Manifest | None:
    """A stage's manifest; None if it is missing, or was made from results that have been replaced since."""
    manifest = manifests.get(stage)
    if manifest is None:
        return None
    for source, digest in manifest.inputs.items():
        made_from = current(manifests, source)
        if made_from is None or made_from.digest != digest:
            return None
    return manifest


def digests(inputs: Mapping[str, Manifest]) -> dict[str, str]:
    """The digests of these manifests, as a document that was made from them holds them."""
    return {name: made_from.digest for name, made_from in inputs.items()}


def attempt_time(attempt: str) -> datetime:
    """The time at which the attempt was committed, from its name."""
    return datetime.strptime(attempt.partition("-")[0], TIME).replace(tzinfo=UTC)


def warnings_of(manifests: Mapping[str, Manifest]) -> list[str]:
    """The warnings in the summaries of the stages, in the order of the stages."""
    return [warning for manifest in manifests.values() for warning in manifest.summary.get("warnings", [])]
