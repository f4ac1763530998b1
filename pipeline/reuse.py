"""Work that need not be done again: that of a stage whose inputs, settings and code are those of an earlier run's."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from pipeline import cluster
from pipeline.errors import CorruptArtifact
from pipeline.files import digest
from pipeline.registry import Registry
from pipeline.runs import Manifest, Run, code_digest
from pipeline.settings import Settings
from pipeline.stages import STAGES
from pipeline.store import Store

FOLDER = "reuse"
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
    if stage == "train" and (place := cluster.here()):
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
    path = Path(source).expanduser()
    return digest(path) if "://" not in source and path.is_file() else None


def _sha256(described: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _path(stage: str, key: str) -> str:
    return f"{FOLDER}/{stage}/{key}.json"


def remember(store: Store, manifest: Manifest, under: list[str]) -> None:
    """Let later runs find the manifest."""
    for key in under:
        store.write(_path(manifest.stage, key), asdict(manifest))


def find(store: Store, stage: str, under: list[str]) -> Manifest | None:
    """An earlier manifest of the same work whose files are all there and whole."""
    if not under:
        return None
    try:
        document = store.read(_path(stage, under[0]))
    except CorruptArtifact:
        return None
    manifest = Manifest.of(document) if document else None
    whole = manifest and not any(store.faults(Run(store, manifest.run).attempt(manifest), manifest.files))
    return manifest if whole else None


def forget(store: Store, run: str) -> None:
    """Let no later run find what is of this run."""
    for stage in STAGES:
        for name in store.names(f"{FOLDER}/{stage}"):
            path = f"{FOLDER}/{stage}/{name}"
            if (store.read(path) or {}).get("run") == run:
                store.remove(path)
