"""Work that need not be done again: that of a stage whose inputs, settings and code are those of an earlier run's."""

import hashlib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import fsspec

from pipeline import tf_config
from pipeline.errors import CorruptArtifact
from pipeline.files import digest
from pipeline.registry.registry import Registry
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Manifest, Run, code_digest

FOLDER = "reuse"
OBJECT_STORES = ("s3://", "s3a://", "gs://", "gcs://", "abfs://", "az://")
PACKAGES = ("tensorflow", "pyarrow", "numpy", "scipy", "scikit-learn", "matplotlib")
"""What a stage computes with."""


def keys(run: Run, stage: str, inputs: Mapping[str, Manifest], settings: Settings) -> list[str]:
    """What tells this work from all other: sha256 over all that the stage's result depends on; empty where it is open.

    evaluate has two: it depends on the live model, but if that is the candidate itself, then on no other. What a
    cluster trains is found by a cluster of that size only: its weights are not those that one process trains.
    """
    identity = _source(settings.source) if stage == "ingest" else ""
    if identity is None:
        return []
    described = {
        "stage": stage,
        "inputs": {name: manifest.digest for name, manifest in inputs.items()},
        "settings": {name: getattr(settings, name) for name in STAGES[stage].reads},
        "source": identity,
        "code": code_digest(),
        "packages": {name: version(name) for name in PACKAGES},
    }
    if stage == "train" and (place := tf_config.here()):
        described["cluster"] = place.size
    if stage != "evaluate":
        return [_sha256(described)]
    registry = Registry(run.store)
    champion = registry.live_before(run.existing().version)
    card = registry.card(champion) if champion is not None else None
    itself = _sha256(described | {"champion": "itself"})
    if card and card.checkpoint == inputs["train"].summary["checkpoint"]:
        return [itself]
    return [_sha256(described | {"champion": champion}), itself]


def _source(source: str) -> str | None:
    """What the posts are, without reading them as posts; None where only that would tell."""
    if source.startswith("sample://"):
        return source
    if "://" in source:
        return _tag(source)
    with suppress(OSError):  # ingest says what is wrong
        path = Path(source).expanduser()
        return digest(path) if path.is_file() else None
    return None


def _tag(url: str) -> str | None:
    """The entity tag that an object store gives its object, another for other bytes; None where there is none."""
    if not url.startswith(OBJECT_STORES):
        return None
    with suppress(Exception):  # ingest says what is wrong
        fs, path = fsspec.url_to_fs(url)
        fs.invalidate_cache()
        about = fs.info(path)
        tag = about.get("ETag") or about.get("etag")
        return f"{url} {tag}" if tag else None
    return None


def state(source: str) -> object:
    """What is another once the source has been written or replaced, even by its equal: it was not while it was read."""
    if "://" in source:
        return _source(source)
    with suppress(OSError):
        about = Path(source).expanduser().stat()
        return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
    return None


def _sha256(described: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _path(stage: str, key: str) -> str:
    return f"{FOLDER}/{stage}/{key}.json"


def remember(store: Store, manifest: Manifest, under: list[str]) -> None:
    """Let later runs find the manifest."""
    for key in under:
        store.write(_path(manifest.stage, key), asdict(manifest))


def noted(store: Store, stage: str, under: list[str]) -> Manifest | None:
    """An earlier manifest of the same work, whether or not its files are still there."""
    try:
        document = store.read(_path(stage, under[0])) if under else None
    except CorruptArtifact:
        return None
    return Manifest.of(document) if document else None


def find(store: Store, stage: str, under: list[str]) -> Manifest | None:
    """An earlier manifest of the same work whose files are all there and whole."""
    manifest = noted(store, stage, under)
    whole = manifest and not any(store.faults(Run(store, manifest.run).attempt(manifest), manifest.files))
    return manifest if whole else None


def forget(store: Store, runs: Collection[str]) -> None:
    """Let no later run find what is of these runs, nor a note that cannot be read."""
    for stage in STAGES:
        for name in store.names(f"{FOLDER}/{stage}"):
            path = f"{FOLDER}/{stage}/{name}"
            try:
                of = (store.read(path) or {}).get("run")
            except CorruptArtifact:
                of = None
            if of is None or of in runs:
                store.remove(path)
