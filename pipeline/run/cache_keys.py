"""The keys of a stage's result in the cache: a digest of everything that the result depends on."""

import hashlib
import json
from collections.abc import Callable
from itertools import product
from typing import Any

from pipeline import tf_config
from pipeline.run.work import Work
from pipeline.stages.plan import CHAMPION, FEEDBACK, LEARNS, WARM_START
from pipeline.store.code import code_digest, package_version

PACKAGES = ("tensorflow", "pyarrow", "numpy", "scipy", "scikit-learn", "matplotlib", "safetensors")
"""The packages that stages compute with, whose versions are part of the key."""


def of(work: Work) -> list[str]:
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
    alternatives = [alternatives_of(work) for alternatives_of in EXTRAS.values()]
    return [_sha256(described | {"extra": extra}) for extra in product(*alternatives)]


def _setting(work: Work, name: str) -> Any:
    settings, deployment = work.settings, work.record.deployment
    return getattr(settings, name) if name in type(settings).model_fields else getattr(deployment, name)


def feedback_of(work: Work) -> str | None:
    """The digest of the feedback that the run learns from, if it does."""
    # The DAG file imports this module, and is parsed without Arrow.
    from pipeline.run.feedback_source import store_for
    from pipeline.store import feedback

    store = store_for(work.settings, work.source, work.run.store)
    return None if store is None else feedback.fingerprint(store)


def _source(work: Work) -> list[object]:
    if not work.stage.reads_source:
        return [None]
    fingerprint = work.source.fingerprint()
    return [] if fingerprint is None else [fingerprint]


def _feedback(work: Work) -> list[object]:
    return [feedback_of(work) if FEEDBACK in work.stage.further_inputs else None]


def _champion(work: Work) -> list[object]:
    """The champion's version; "itself" if it is the candidate's own model: the verdict is then always the same."""
    champion = work.champion
    if CHAMPION not in work.stage.further_inputs:
        return [None]
    if champion and champion.card and champion.card.checkpoint == work.inputs[LEARNS].summary["checkpoint"]:
        return ["itself"]
    return [champion.version if champion else None, "itself"]


def _warm_start(work: Work) -> list[object]:
    """The version that training begins from, if it does."""
    begins_from = WARM_START in work.stage.further_inputs and work.settings.warm_start == "live"
    return [work.champion.version if begins_from and work.champion else None]


def _cluster(work: Work) -> list[object]:
    """The cluster's size, because a cluster trains other weights than a single process."""
    place = tf_config.here() if work.stage.by_cluster else None
    return [place.size if place else None]


EXTRAS: dict[str, Callable[[Work], list[object]]] = {
    "source": _source,
    "feedback": _feedback,
    "champion": _champion,
    "warm_start": _warm_start,
    "cluster": _cluster,
}
"""What else a key depends on. Each function returns alternatives, and every combination of these makes a key."""


def _sha256(described: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
