"""The cache of stage results: a stage whose inputs, settings and code are those of an earlier run is not run again.

An entry is a copy of the earlier manifest, at `cache/<stage>/<key>.json`.
"""

from collections.abc import Collection

from pipeline.errors import CorruptArtifact
from pipeline.store.manifest import Manifest
from pipeline.store.objects import Store

FOLDER = "cache"
FORMER = "reuse"
"""Where format 1 kept its entries. None can match, because the code has changed since."""


def _path(stage: str, key: str) -> str:
    return f"{FOLDER}/{stage}/{key}.json"


def store(objects: Store, manifest: Manifest, keys: list[str]) -> None:
    """Write a cache entry for the manifest under each of the keys."""
    for key in keys:
        objects.write(_path(manifest.stage, key), manifest.to_dict())


def lookup(objects: Store, stage: str, keys: list[str]) -> Manifest | None:
    """The entry under the first key, None if there is none; its files are not checked."""
    if not keys:
        return None
    try:
        return objects.load(_path(stage, keys[0]), Manifest)
    except CorruptArtifact:
        return None


def find(objects: Store, stage: str, keys: list[str]) -> Manifest | None:
    """The entry under the first key, None if there is none or a file of it is missing or damaged."""
    manifest = lookup(objects, stage, keys)
    whole = manifest and not any(objects.faults(manifest.path, manifest.files))
    return manifest if whole else None


def evict(objects: Store, gone: Collection[str]) -> None:
    """Remove the entries of these runs or attempts, and those that cannot be read."""
    objects.remove(FORMER)
    for stage in objects.folders(FOLDER):
        for name in objects.names(f"{FOLDER}/{stage}"):
            path = f"{FOLDER}/{stage}/{name}"
            try:
                entry = objects.read(path) or {}
            except CorruptArtifact:
                entry = {}
            if "run" not in entry or {entry["run"], entry.get("attempt")} & set(gone):
                objects.remove(path)
