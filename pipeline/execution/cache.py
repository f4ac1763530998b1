"""The cache of stage results: a stage whose inputs, settings and code are those of an earlier run is not run again.

An entry is a copy of the earlier manifest, at `cache/<stage>/<key>.json`.
"""

import hashlib
import json
from collections.abc import Callable, Collection
from itertools import product
from typing import Any

from pipeline import tf_config
from pipeline.errors import CorruptArtifact
from pipeline.execution.work import Work
from pipeline.stages.plan import STAGES, CacheExtra
from pipeline.store.code import code_digest, package_version
from pipeline.store.manifest import Manifest
from pipeline.store.objects import Store
from pipeline.store.runs import Run

FOLDER = "cache"
FORMER = "reuse"
"""Where format 1 kept its entries. None can match, because the code has changed since."""

PACKAGES = ("tensorflow", "pyarrow", "numpy", "scipy", "scikit-learn", "matplotlib", "safetensors")
"""The packages that stages compute with, whose versions are part of the key."""


def keys(work: Work) -> list[str]:
    """The cache keys of the work: sha256 over everything that its result depends on, the best match first.

    Empty if that is not known before the stage is run, as for an HTTP source.
    """
    described = {
        "stage": work.stage.name,
        "inputs": {name: manifest.digest for name, manifest in work.inputs.items()},
        "settings": {name: _setting(work, name) for name in work.stage.reads},
        "code": code_digest(),
        "packages": {name: package_version(name) for name in PACKAGES},
    }
    alternatives = [EXTRAS[extra](work) for extra in work.stage.cache_extra]
    return [_sha256(described | {"extra": extra}) for extra in product(*alternatives)]


def _setting(work: Work, name: str) -> Any:
    settings, deployment = work.settings, work.record.deployment
    return getattr(settings, name) if name in type(settings).model_fields else getattr(deployment, name)


def _source(work: Work) -> list[object]:
    fingerprint = work.source.fingerprint()
    return [] if fingerprint is None else [fingerprint]


def _feedback(work: Work) -> list[object]:
    """The digest of the feedback that the run learns from, if it does."""
    from pipeline.execution import feedback  # imports Arrow, without which the DAG file is parsed

    store = feedback.store_for(work.settings, work.source, work.run.store)
    return [None if store is None else feedback.fingerprint(store)]


def _champion(work: Work) -> list[object]:
    """The champion's version; "itself" if it is the candidate's own model: the verdict is then always the same."""
    champion = work.champion
    if champion and champion.card and champion.card.checkpoint == work.inputs["train"].summary["checkpoint"]:
        return ["itself"]
    return [champion.version if champion else None, "itself"]


def _warm_start(work: Work) -> list[object]:
    """The version that training begins from, if it does."""
    return [work.champion.version if work.champion and work.settings.warm_start == "live" else None]


def _cluster(work: Work) -> list[object]:
    """The cluster's size, because a cluster trains other weights than a single process."""
    place = tf_config.here()
    return [place.size if place else None]


EXTRAS: dict[CacheExtra, Callable[[Work], list[object]]] = {
    "source": _source,
    "feedback": _feedback,
    "champion": _champion,
    "cluster": _cluster,
    "warm_start": _warm_start,
}
"""What else a key depends on. Each function returns alternatives, and every combination of these makes a key."""


def _sha256(described: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _path(stage: str, key: str) -> str:
    return f"{FOLDER}/{stage}/{key}.json"


def store(objects: Store, manifest: Manifest, work_keys: list[str]) -> None:
    """Write a cache entry for the manifest under each of the keys."""
    for key in work_keys:
        objects.write(_path(manifest.stage, key), manifest.to_dict())


def lookup(objects: Store, stage: str, work_keys: list[str]) -> Manifest | None:
    """The entry under the first key, None if there is none; its files are not checked."""
    if not work_keys:
        return None
    path = _path(stage, work_keys[0])
    try:
        document = objects.read(path)
        return Manifest.parse(document, objects.display_path(path)) if document else None
    except CorruptArtifact:
        return None


def find(objects: Store, stage: str, work_keys: list[str]) -> Manifest | None:
    """The entry under the first key, None if there is none or a file of it is missing or damaged."""
    manifest = lookup(objects, stage, work_keys)
    whole = manifest and not any(objects.faults(Run(objects, manifest.run).attempt(manifest), manifest.files))
    return manifest if whole else None


def evict(objects: Store, gone: Collection[str]) -> None:
    """Remove the entries of these runs or attempts, and those that cannot be read."""
    objects.remove(FORMER)
    for stage in STAGES:
        for name in objects.names(f"{FOLDER}/{stage}"):
            path = f"{FOLDER}/{stage}/{name}"
            try:
                entry = objects.read(path) or {}
            except CorruptArtifact:
                entry = {}
            if "run" not in entry or {entry["run"], entry.get("attempt")} & set(gone):
                objects.remove(path)
