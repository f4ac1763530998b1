"""Local cache of published models, so that each version is fetched from the store once on each machine.

A folder of the cache is named after the digests of its files, appears complete by one rename, and is checked whenever
it is used, which takes milliseconds. If the cache cannot be used or trusted, the model is fetched again.
"""

import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from pipeline.errors import CorruptArtifact, Unavailable
from pipeline.files import entries, user_cache
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry

MAX_MODELS = 8
"""Models in the cache; the least recently used one is evicted first."""

INCOMING = "coming-"
"""Prefix of the folder into which a model is being fetched."""

ABANDONED_SECONDS = 86_400.0
"""Age from which such a folder belongs to a process that was killed."""


def cache_folder() -> Path:
    """The folder of the cache."""
    return user_cache() / "models"


@contextmanager
def opened(registry: Registry, version: int | None) -> Iterator[Path]:
    """Give a local folder with the version's SavedModel (None: the live one's), checked against its card.

    Raises BadInput if there is no such version, CorruptArtifact if its files in the store, or their copies in the
    serving directory, are not those that were published, Unavailable if this machine has no room for them.
    """
    card = registry.published(version)
    name, cache = f"{card.version}-{_files_digest(card)}", _usable(cache_folder())
    if cache and _is_whole(cache / name, card):
        with suppress(OSError):
            os.utime(cache / name)
        yield cache / name
        return
    with ExitStack() as leaving:
        try:
            folder = Path(leaving.enter_context(TemporaryDirectory(prefix=INCOMING, dir=cache)), name)
            folder.mkdir()
        except OSError as error:
            raise Unavailable(
                f"version {card.version} cannot be kept in {cache or gettempdir()} ({error.strerror}); trying again "
                "can help: make room there"
            ) from error
        registry.fetch(card.version, folder)
        _refuse_damaged_copy(registry, card)
        yield _add(folder, cache / name, card) if cache else folder


def _files_digest(card: Card) -> str:
    listing = {name: entry.sha256 for name, entry in card.files.items()}
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()[:32]


def _usable(folder: Path) -> Path | None:
    """The folder, created if missing; None if it cannot be created or written, or other users may write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours = _is_ours(folder) and _is_ours(folder.parent) and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return None
    return folder if ours else None


def _is_ours(folder: Path) -> bool:
    """Whether it is a folder that only this user may write to."""
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o022


def _is_whole(folder: Path, card: Card) -> bool:
    try:
        return entries(folder) == card.files
    except OSError:
        return False


def _refuse_damaged_copy(registry: Registry, card: Card) -> None:
    """Raise CorruptArtifact if a copy in the serving directory is damaged: a server's answers would differ from ours.

    A missing file is not damage, because a publication may be copying it.
    """
    there = registry.serving.versions().get(card.version, {})
    files = {name: entry for name, entry in card.files.items() if name in there}
    fault = next(filter(None, registry.serving.faults(card.version, files)), None)
    if fault:
        raise CorruptArtifact(
            f"version {card.version} is damaged where it is served: {fault}; `tagger promote {card.version}` copies it "
            "there again"
        )


def _add(folder: Path, place: Path, card: Card) -> Path:
    """Move the model's folder to its place in the cache, and return where the model is; it may fail to move."""
    if _is_whole(place, card):  # another process was first, and may be loading it
        return place
    with suppress(OSError):  # there was no damaged copy to move away
        place.rename(folder.with_name(uuid.uuid4().hex))
    try:
        folder.rename(place)
    except OSError:
        return folder
    _evict(place.parent)
    return place


def _evict(cache: Path) -> None:
    """Remove the least recently used models, and the folders that killed processes left."""
    models = {path: _last_used(path) for path in cache.iterdir() if not path.name.startswith(INCOMING)}
    abandoned = [path for path in cache.glob(f"{INCOMING}*") if _last_used(path) < time.time() - ABANDONED_SECONDS]
    for path in [*sorted(models, key=lambda path: models[path])[:-MAX_MODELS], *abandoned]:
        shutil.rmtree(path, ignore_errors=True)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has removed it
        return 0.0
