"""The document that says how a run was begun, and with which settings."""

import hashlib
import sys
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from pipeline.settings import Deployment, Settings
from pipeline.store.code import PACKAGES, code_digest, package_version
from pipeline.store.documents import Document

RECORD = "run.json"
"""Its name in the folder of its run."""


class Record(Document):
    """The content of run.json: the settings of the run, and how and when it was begun.

    `created` is the run's logical time, from which its version's number is made; `started` is when it really began.
    `deployment` has the settings of the installation that began it. A `restricted` run may read only the sources that
    the deployment allows. `unknown_settings` were written by another version of the pipeline.
    """

    WHAT = RECORD

    run: str
    created: datetime
    started: datetime
    airflow_run_id: str | None
    settings: Settings
    deployment: Deployment
    restricted: bool = False
    unknown_settings: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, document: dict[str, Any], found: int) -> dict[str, Any]:
        """Separate the deployment's settings from the run's, among which format 1 had them."""
        named = dict(document.get("settings") or {})
        deployment = document.get("deployment") or {}
        unknown = document.get("unknown_settings") or {}
        unknown |= {name: named.pop(name) for name in list(named) if name not in Settings.model_fields}
        others = unknown | deployment
        deployment = {name: others.pop(name) for name in list(others) if name in Deployment.model_fields}
        return document | {"settings": named, "deployment": deployment, "unknown_settings": others}

    @property
    def first_version(self) -> int:
        """The lowest number that a version of this run can have: its logical time, such as 20261122074035."""
        return int(self.created.astimezone(UTC).strftime("%Y%m%d%H%M%S"))

    @property
    def allowed(self) -> tuple[str, ...] | None:
        """The folders and URLs that the source must be in; None if any source is allowed."""
        return self.deployment.allowed if self.restricted else None

    def to_dict(self) -> dict[str, Any]:
        """The document as a dict of JSON values, with some facts added for human readers."""
        return {
            **self.model_dump(mode="json", exclude={"deployment": {"store"}}),
            "source": self.settings.source,
            "code": {"version": package_version("stackoverflow-tagger"), "sha256": code_digest()},
            "packages": {"python": sys.version.split()[0]} | {name: package_version(name) for name in PACKAGES},
        }


def settings_digest(settings: Settings | None) -> str:
    """The sha256 of the settings that differ from the defaults, so that a setting added later changes nothing."""
    return hashlib.sha256(settings.model_dump_json(exclude_defaults=True).encode()).hexdigest() if settings else ""


def differences(had: Settings, asked: Settings) -> str:
    """The settings that differ, such as `epochs=2, now 3`; empty if none does."""
    pairs = ((name, getattr(had, name), getattr(asked, name)) for name in Settings.model_fields)
    return ", ".join(f"{name}={old!r}, now {new!r}" for name, old, new in pairs if old != new)
