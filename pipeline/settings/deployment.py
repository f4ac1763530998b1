"""The settings of an installation."""

import os
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.settings.base import Base
from pipeline.source_policy import is_url

MAX_SOURCE_BYTES = 64 * 2**30
"""Enough for all questions ever asked on Stack Overflow, about 24 million of 2 KB each."""


def root() -> Path:
    """The folder of the default store: AIRFLOW_HOME, else the folder that contains this package."""
    return Path(os.environ.get("AIRFLOW_HOME") or Path(__file__).parents[2]).absolute()


def _of_deployment(description: str, **rest: Any) -> Any:
    return Field(description=description, json_schema_extra={"section": "Deployment"}, **rest)


class Deployment(Base):
    """The settings of an installation, which Airflow's trigger form does not change."""

    NULLABLE = frozenset(
        {"cluster_host", "google_connection", "late_hours", "notify", "schedule", "store_connection", "tuning_schedule"}
        | {"signing_key", "trusted_keys", "watch_schedule", "watch_source"}
    )

    keep_versions: int = _of_deployment(
        "Versions that garbage collection keeps besides the live one, 0 or more.", default=5, ge=0
    )
    keep_days: float = _of_deployment(
        "Days for which garbage collection keeps everything, 0 to 36,500.", default=30.0, ge=0, le=36_500
    )
    keep_feedback_days: float = _of_deployment(
        "Days for which posts that `tagger serve` recorded are kept, 0 to 36,500; garbage collection removes others.",
        default=90.0,
        ge=0,
        le=36_500,
    )
    shards: int = _of_deployment(
        "Shards, 1 to 1,024, of the posts; fit_vocabulary and vectorize process each in an Airflow task of its own. "
        "The result is the same for any number.",
        default=1,
        ge=1,
        le=1024,
    )
    trainers: int = _of_deployment(
        "Processes, 1 to 64, that train together, each in an Airflow task of its own, with one more that holds the "
        "weights; as many task slots must be free. The result is as accurate as that of one, but not the same.",
        default=1,
        ge=1,
        le=64,
    )
    cluster_host: str | None = _of_deployment(
        "The address by which machines that train together reach this one; if none, the one that its host name has.",
        default=None,
    )
    store: str = _of_deployment(
        "Where artifacts and models are stored: a folder or any fsspec URL.",
        default_factory=lambda: str(root() / "store"),
    )
    max_source_bytes: int = _of_deployment(
        "Largest size of a source, unpacked, in bytes, 1 or more; a larger one is refused before it fills the disk.",
        default=MAX_SOURCE_BYTES,
        ge=1,
    )
    store_connection: str | None = _of_deployment(
        "The Airflow connection, of type aws, with the keys to an s3:// store for Airflow's runs. If none, they come "
        "from the environment's AWS_* variables, as they do on the command line.",
        default=None,
    )
    google_connection: str | None = _of_deployment(
        "The Airflow connection, of type google_cloud_platform, with the key to BigQuery for Airflow's runs. If none, "
        "Google's own defaults are used, as they are on the command line.",
        default=None,
    )
    signing_key: str | None = _of_deployment(
        "File with the private key, in PEM, that signs published versions and the store's documents; if none, nothing "
        "is signed. It is read from the environment only.",
        default=None,
    )
    trusted_keys: str | None = _of_deployment(
        "Files with public keys, in PEM, separated by commas: whatever none of them signed is refused. If none, "
        "nothing is. They are read from the environment only.",
        default=None,
    )
    schedule: str | None = _of_deployment(
        "When the DAG runs by itself: a cron expression or a preset such as @weekly; if none, only when triggered.",
        default="@weekly",
    )
    tuning_schedule: str | None = _of_deployment(
        "When a tuning runs by itself, such as @monthly; if none, only when triggered.", default=None
    )
    watch_schedule: str | None = _of_deployment(
        "When the live model is watched, such as @daily: asked about newly tagged posts. If none, only when triggered.",
        default=None,
    )
    watch_source: str | None = _of_deployment(
        "Where the newly tagged posts are, as the setting source. Posts that the live model's run had are left out. If "
        "none, the setting source.",
        default=None,
    )
    watch_drop: float = _of_deployment(
        "How much lower than at its publication, 0 to 1, the live model's accuracy on newly tagged posts may be; below "
        "this, watching starts a retraining.",
        default=0.05,
        ge=0,
        le=1,
    )
    approval: bool = _of_deployment(
        "Whether a person must approve each model in Airflow's UI, after the gate, before it is published: on or off.",
        default=False,
    )
    approval_hours: float = _of_deployment(
        "Hours that an approval is waited for before the model counts as rejected, more than 0, up to 8,760.",
        default=72.0,
        gt=0,
        le=8760,
    )
    notify: str | None = _of_deployment(
        "Who is told of a failed or refused run, a publication, and a waiting approval: smtp:ADDRESS, slack:CHANNEL or "
        "apprise:TAG, by Airflow's provider of that name and its default connection. If none, nobody.",
        default=None,
    )
    late_hours: float | None = _of_deployment(
        "Hours after which a run that has not ended is late, and those whom notify names are told; if none, never.",
        default=None,
        gt=0,
        le=8760,
    )
    allowed_sources: str = _of_deployment(
        "Sources that Airflow's trigger form accepts, separated by commas: folders (relative ones are in AIRFLOW_HOME) "
        "and URLs, each with everything below it. It always accepts TAGGER_SOURCE, and the command line accepts any "
        "source.",
        default="sample://, https://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv, data",
    )

    @property
    def allowed(self) -> tuple[str, ...]:
        """The folders, as absolute paths, and URLs of allowed_sources."""
        return places(self.allowed_sources)


def places(allowed_sources: str) -> tuple[str, ...]:
    """Split the setting allowed_sources into folders, as absolute paths, and URLs."""
    entries = filter(None, map(str.strip, allowed_sources.split(",")))
    return tuple(entry if is_url(entry) else str(root() / Path(entry).expanduser()) for entry in entries)
