"""The index of the runs by their logical time: one listing tells which runs are the newest.

An entry is a document whose name says all: the time, and a digest of the run's name, which may be too long for a file.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from pipeline.store.manifest import TIME
from pipeline.store.objects import Store

BEGUN = "begun"


def digest_of(run: str) -> str:
    """The digest of a run's name that ends the name of its entry."""
    return hashlib.sha256(run.encode()).hexdigest()[:16]


def time_of(created: datetime) -> str:
    """A logical time as the index has it; of two, the later one is greater."""
    return created.astimezone(UTC).strftime(TIME)


def add(store: Store, run: str, created: datetime) -> None:
    """Add the run, unless it is there."""
    store.create(f"{BEGUN}/{time_of(created)}-{digest_of(run)}.json", {"run": run})


def entries(store: Store) -> dict[str, str]:
    """The paths of the entries, by the digest of the run's name."""
    names = store.names(BEGUN)
    return {name.removesuffix(".json").rpartition("-")[2]: f"{BEGUN}/{name}" for name in names}


def times(store: Store, runs: Iterable[str]) -> dict[str, str]:
    """The times of those of the runs that are in the index."""
    paths = entries(store)
    digests = {run: digest_of(run) for run in runs}
    return {
        run: paths[digest].removeprefix(f"{BEGUN}/").partition("-")[0]
        for run, digest in digests.items()
        if digest in paths
    }
