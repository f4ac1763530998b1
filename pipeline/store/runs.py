"""Runs in the store: their settings, the manifests of their stages, and which stage was made from which."""

import hashlib
import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.errors import BadInput, StageOutOfOrder
from pipeline.files import digest, entries, files
from pipeline.settings import Deployment, Settings
from pipeline.source_policy import checked, refuse_secrets
from pipeline.store import run_index
from pipeline.store.documents import Document
from pipeline.store.manifest import ATTEMPT, MANIFEST, TIME, Manifest
from pipeline.store.needs import needing
from pipeline.store.notes import APPROVED, REFUSED, Approval, Refusal, Saved
from pipeline.store.objects import Store

PACKAGES = ("tensorflow", "apache-airflow", "pyarrow", "numpy", "pandas", "scikit-learn")

RUNS, RECORD = "runs", "run.json"
"""Folder of the runs, and the document that says how each was begun."""

TUNINGS, TUNING, RESULT = "tunings", "tuning.json", "result.json"
"""Folder of the tunings, and what each was begun with and found; it has a store of its own for the trials."""

CHECKPOINT = "checkpoint"
"""Folder of a stage's last checkpoint, from which a retry resumes."""

SHARDS = "shards"
"""Folder of the results of a stage's shards, by the shard's number, until the stage gathers them."""

REPORT, PAGE = "report", "page"
"""Folder of the run's report, and the name under which its page is saved there."""

CLUSTER = "cluster"
"""The documents by which the processes that train a run together find one another."""

UNFINISHED = (CHECKPOINT, SHARDS, CLUSTER, "partial", "parts")
"""Folders of unfinished work; the last two are the names in format 1."""

TEMPORARY = "__airflow_temporary_run_"
"""How the run ids begin that `airflow tasks test` makes."""


def name_of(identifier: str) -> str:
    """The name of a run with this identifier: characters outside [A-Za-z0-9._-] are replaced by underscores."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", identifier)


def identifier_of(airflow_run_id: str, logical_date: datetime | None) -> str:
    """The identifier of an Airflow run: its id, or its date under `airflow tasks test`, which gives each task an id.

    Raises BadInput if `airflow tasks test` was given no date.
    """
    if not airflow_run_id.startswith(TEMPORARY):
        return airflow_run_id
    if logical_date is None:
        raise BadInput("`airflow tasks test` needs a date here, the same for all six tasks, because it names the run")
    return f"test__{logical_date.isoformat()}"


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


class Run:
    """A run in a store. Files that a manifest names are never changed; a manifest may be replaced."""

    def __init__(self, store: Store, name: str) -> None:
        """Raises BadInput for a name that cannot name a folder."""
        if name_of(name) != name or not name.strip("."):
            raise BadInput(f"{name!r} cannot name a run: use letters, digits, '.', '_' and '-' only")
        self.store, self.name, self.path = store, name, f"{RUNS}/{name}"

    def begin(
        self,
        settings: Settings,
        created: datetime,
        airflow_run_id: str | None = None,
        *,
        deployment: Deployment | None = None,
        restricted: bool = False,
    ) -> Record:
        """Write run.json before the run's first stage. If two processes begin the run at once, one of them creates it.

        Settings may be corrected until the run's first stage is complete, and never after that.

        Raises BadInput if a stage of the run is complete with other settings, if its name belongs to another Airflow
        run, or if its source is not allowed or contains a secret, which is then not stored.
        """
        record = Record(
            run=self.name,
            created=created,
            started=datetime.now(UTC),
            airflow_run_id=airflow_run_id,
            settings=settings,
            deployment=deployment or Deployment(),
            restricted=restricted,
        )
        refuse_secrets(settings.source)
        if record.allowed is not None:
            checked(settings.source, record.allowed)
        with needing(self.store, self.path):
            record = self._write_record(record)
        run_index.add(self.store, self.name, record.created)
        return record

    def _write_record(self, record: Record) -> Record:
        """Write run.json; if it is there already, with the logical time that it has."""
        path = f"{self.path}/{RECORD}"
        if self.store.create(path, record.to_dict()):
            return record
        if known := self.record():
            self._refuse_other(known, record)
            same_id = known.airflow_run_id or record.airflow_run_id
            record = record.model_copy(update={"created": known.created, "airflow_run_id": same_id})
        self.store.write(path, record.to_dict())
        return record

    def _refuse_other(self, known: Record, asked: Record) -> None:
        """Raise BadInput if the existing run is another Airflow run, or has a stage made with other settings."""
        if known.airflow_run_id and asked.airflow_run_id not in {None, known.airflow_run_id}:
            raise BadInput(
                f"run {self.name} belongs to the Airflow run {known.airflow_run_id!r}, whose id differs from "
                f"{asked.airflow_run_id!r} only in replaced characters: start one with another id"
            )
        changed = _differences(known.settings, asked.settings)
        if changed and self.manifests():
            raise BadInput(f"run {self.name} was made with other settings ({changed}): start it under a new name")

    def record(self) -> Record | None:
        """The content of run.json; None if the run does not exist."""
        path = f"{self.path}/{RECORD}"
        document = self.store.read(path)
        return Record.parse(document, self.store.display_path(path)) if document else None

    def existing(self) -> Record:
        """The content of run.json; StageOutOfOrder if the run does not exist."""
        record = self.record()
        if record is None and (refusal := self.refusal()):
            raise StageOutOfOrder(f"run {self.name} was refused before it began: {refusal.why}")
        if record is None:
            raise StageOutOfOrder(
                f"{self.store.url} holds no run {self.name!r}: `tagger runs` lists its runs, ingest begins a new one"
            )
        return record

    def manifest(self, stage: str) -> Manifest | None:
        """The stage's manifest; None if the stage is not complete."""
        path = f"{self.path}/{stage}/{MANIFEST}"
        document = self.store.read(path)
        return Manifest.parse(document, self.store.display_path(path)) if document else None

    def stages(self) -> list[str]:
        """The names of the stages that have a folder, complete or not."""
        return [name for name in self.store.names(self.path) if "." not in name and name != REPORT]

    def manifests(self) -> dict[str, Manifest]:
        """The manifests of the complete stages, each after the stages that it was made from."""
        found = {stage: manifest for stage in self.stages() if (manifest := self.manifest(stage))}
        order = TopologicalSorter({stage: manifest.inputs for stage, manifest in found.items()}).static_order()
        return {stage: found[stage] for stage in order if stage in found}

    def inputs(self, stage: str, needs: Iterable[str]) -> dict[str, Manifest]:
        """The manifests of the stages that a stage needs.

        Raises StageOutOfOrder if one is missing, or was made from files that have been replaced since.
        """
        complete = self.manifests()
        for need in needs:
            if need not in complete:
                raise StageOutOfOrder(
                    f"{stage} of run {self.name} needs {need}, which is not complete: run {need} first"
                )
            for source, made_from in complete[need].inputs.items():
                if source not in complete or complete[source].digest != made_from:
                    raise StageOutOfOrder(
                        f"{need} of run {self.name} was made from another {source} than the store has now: "
                        f"run {need} again before {stage}"
                    )
        return {need: complete[need] for need in needs}

    def attempt(self, manifest: Manifest) -> str:
        """The folder in the store with the manifest's files, in the folder of the run that made them."""
        return f"{RUNS}/{manifest.run}/{manifest.stage}/{manifest.attempt}"

    def attempts(self, stage: str) -> list[str]:
        """The names of the stage's attempts that have a folder, complete or not."""
        return [name for name in self.store.names(f"{self.path}/{stage}") if ATTEMPT.fullmatch(name)]

    def fetch(self, manifest: Manifest, folder: Path, names: Iterable[str] | None = None) -> None:
        """Copy a stage's files, or those in `names`, into the local folder, and check them against the manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        wanted = manifest.files if names is None else {name: manifest.files[name] for name in names}
        self.store.download(self.attempt(manifest), wanted, folder)

    def save(self, stage: str, name: str, folder: Path, inputs: Mapping[str, Manifest]) -> None:
        """Save a piece of a stage's unfinished work, or the run's report: its files, then its document.

        What it replaces is removed at the end.
        """
        top = f"{self.path}/{stage}/{name}"
        path, old = f"{top}/{uuid.uuid4().hex[:8]}", self.store.names(top)
        saved = Saved(path=path, files=entries(folder), inputs=_digests(inputs))
        self.store.upload(folder, path)
        self.store.write(f"{top}.json", saved.to_dict())
        for replaced in old:
            self.store.remove(f"{top}/{replaced}")

    def saved(self, stage: str, name: str) -> Saved | None:
        """The piece of unfinished work that was saved under the name; None if there is none."""
        path = f"{self.path}/{stage}/{name}.json"
        document = self.store.read(path)
        return Saved.parse(document, self.store.display_path(path)) if document else None

    def resume(self, stage: str, name: str, inputs: Mapping[str, Manifest], folder: Path) -> bool:
        """Copy what was saved under the name into the folder; False if nothing was, or from other inputs."""
        saved = self.saved(stage, name)
        if not saved or saved.inputs != _digests(inputs):
            return False
        folder.mkdir(parents=True)
        self.store.download(saved.path, saved.files, folder)
        return True

    def refuse(self, stage: str, why: str, evidence: Mapping[str, Any] | None = None) -> None:
        """Note that a stage refused the run, with the figures that led to it, unless another stage did before."""
        known = self.refusal()
        if known and known.stage != stage:
            return
        refusal = Refusal(stage=stage, why=why, at=datetime.now(UTC), evidence=dict(evidence or {}))
        self.store.write(f"{self.path}/{REFUSED}", refusal.to_dict())

    def refusal(self) -> Refusal | None:
        """Why the run was refused; None if it was not, or if the stage that refused it succeeded later."""
        path = f"{self.path}/{REFUSED}"
        document = self.store.read(path)
        return Refusal.parse(document, self.store.display_path(path)) if document else None

    def withdraw_refusal(self, stage: str) -> None:
        """Remove the note that this stage refused the run, if there is one."""
        refusal = self.refusal()
        if refusal and refusal.stage == stage:
            self.store.remove(f"{self.path}/{REFUSED}")

    def approve(self, by: str, why: str) -> None:
        """Note that a person approved the model that was evaluated last."""
        with needing(self.store, self.path):
            noted = Approval(by=by, why=why, at=datetime.now(UTC), evaluated=self._evaluated())
            self.store.write(f"{self.path}/{APPROVED}", noted.to_dict())

    def approval(self) -> Approval | None:
        """The approval of the model that was evaluated last; None if there is none, or only one of a model before."""
        path = f"{self.path}/{APPROVED}"
        document = self.store.read(path)
        found = Approval.parse(document, self.store.display_path(path)) if document else None
        return found if found and found.evaluated == self._evaluated() else None

    def _evaluated(self) -> str:
        manifest = self.manifest("evaluate")
        if manifest is None:
            raise StageOutOfOrder(f"run {self.name} has not been evaluated: run its stage evaluate first")
        return self.attempt(manifest)

    def discard(self, stage: str) -> None:
        """Remove the stage's unfinished work, its documents first."""
        top = f"{self.path}/{stage}"
        existing = self.store.names(top)
        for name in filter(existing.__contains__, (f"{name}.json" for name in UNFINISHED)):
            self.store.remove(f"{top}/{name}")
        for folder in filter(existing.__contains__, UNFINISHED):
            for name in self.store.names(f"{top}/{folder}"):
                if name.endswith(".json"):
                    self.store.remove(f"{top}/{folder}/{name}")
            self.store.remove(f"{top}/{folder}")

    def commit(
        self,
        stage: str,
        folder: Path,
        *,
        inputs: Mapping[str, Manifest],
        summary: dict[str, Any],
        seconds: float,
        peak_mib: float | None,
        cpu_seconds: float | None = None,
    ) -> Manifest:
        """Upload the local folder as the stage's result: its files first, the manifest last."""
        now = datetime.now(UTC)
        manifest = Manifest(
            stage=stage,
            run=self.name,
            attempt=f"{now:{TIME}}-{uuid.uuid4().hex[:8]}",
            files=entries(folder),
            inputs=_digests(inputs),
            summary=summary,
            seconds=round(seconds, 3),
            peak_mib=peak_mib,
            finished=now.isoformat(timespec="seconds"),
            cpu_seconds=cpu_seconds,
        )
        self.store.upload(folder, f"{self.path}/{stage}/{manifest.attempt}")
        self.adopt(manifest)
        return manifest

    def adopt(self, manifest: Manifest) -> None:
        """Make an attempt, of this run or of another one, the result of this run's stage."""
        self.store.write(f"{self.path}/{manifest.stage}/{MANIFEST}", manifest.to_dict())


def _digests(inputs: Mapping[str, Manifest]) -> dict[str, str]:
    return {name: made_from.digest for name, made_from in inputs.items()}


def every_run(store: Store) -> Iterator[Run]:
    """The runs of the store; anything else in their folder is ignored."""
    for name in store.folders(RUNS):
        if name_of(name) == name:
            yield Run(store, name)


@cache
def package_version(name: str) -> str:
    """The installed version of a package; finding it takes milliseconds."""
    return version(name)


@cache
def code_digest() -> str:
    """The sha256 of this package's files, so that changed code, or changed data files, make another cache key."""
    return _tree_digest(Path(__file__).parents[1])


def _tree_digest(package: Path) -> str:
    """The sha256 of the folder's files, names and contents, leaving out bytecode and hidden files."""
    names = [name for name in files(package) if not any(re.match(r"\.|__pycache__$", part) for part in name.split("/"))]
    listing = {name: digest(package / name) for name in names}
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _differences(had: Settings, asked: Settings) -> str:
    """The settings that differ, such as `epochs=2, now 3`; empty if none does."""
    pairs = ((name, getattr(had, name), getattr(asked, name)) for name in Settings.model_fields)
    return ", ".join(f"{name}={old!r}, now {new!r}" for name, old, new in pairs if old != new)
