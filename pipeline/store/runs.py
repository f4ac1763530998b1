"""One run in the store: its settings, the manifests of its stages, and the lineage between them."""

import hashlib
import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Self

from pipeline.errors import BadInput, StageOutOfOrder
from pipeline.files import FileEntry, digest, entries
from pipeline.settings import Restricted, Settings
from pipeline.source_policy import checked, refuse_secrets
from pipeline.stages.plan import STAGES, Stage
from pipeline.store.objects import Store

PACKAGES = ("tensorflow", "apache-airflow", "pyarrow", "numpy", "pandas", "scikit-learn")


RUNS = "runs"
PARTIAL = "partial"
"""What a stage has done so far, for a later try."""

PARTS = "parts"
"""What the parts of a stage have done, each under its number, for the stage to gather."""


_TIME = "%Y%m%dT%H%M%S"
_ATTEMPT = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")


def attempt_time(attempt: str) -> datetime:
    """When the attempt was committed, which its name begins with."""
    return datetime.strptime(attempt.partition("-")[0], _TIME).replace(tzinfo=UTC)


def warnings_of(manifests: Mapping[str, "Manifest"]) -> list[str]:
    """The reservations that the stages had, in their order."""
    return [warning for manifest in manifests.values() for warning in manifest.summary.get("warnings", [])]


def name_of(identifier: str) -> str:
    """The run's name: the identifier with every character outside [A-Za-z0-9._-] replaced by an underscore."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", identifier)


def identifier_of(airflow_run_id: str, logical_date: datetime | None) -> str:
    """What an Airflow run is known by: its id, or the date where `airflow tasks test` makes a new id at each call.

    Raises BadInput where `airflow tasks test` was given no date.
    """
    if not airflow_run_id.startswith("__airflow_temporary_run_"):
        return airflow_run_id
    if logical_date is None:
        raise BadInput("`airflow tasks test` needs a date here, the same for all six tasks: it names the run")
    return f"test__{logical_date.isoformat()}"


@dataclass(frozen=True)
class Record:
    """What run.json says. `created` is the run's own time, from which its version is made; `started` the clock's."""

    run: str
    created: datetime
    settings: Settings
    airflow_run_id: str | None
    started: datetime

    @property
    def version(self) -> int:
        """The version this run publishes: its time to the second, as 20261122074035; the same at every retry."""
        return int(self.created.astimezone(UTC).strftime("%Y%m%d%H%M%S"))


@dataclass(frozen=True)
class Manifest:
    """What one attempt of a stage left, in the folder of the run that made it: the only thing a reader trusts.

    `inputs` holds the digests of the manifests it was made from, `seconds`, `peak_mib` and `cpu_seconds` what it took:
    MiB of resident memory (None where the system does not tell), and the cores' time, user and system, of the process
    and of those that it started and waited for.
    """

    stage: str
    run: str
    attempt: str
    files: dict[str, FileEntry]
    inputs: dict[str, str]
    summary: dict[str, Any]
    seconds: float
    peak_mib: float | None
    finished: str
    cpu_seconds: float | None = None  # in the manifests of older versions there is none

    @property
    def digest(self) -> str:
        """sha256 over the names and digests of the files: two attempts that left the same bytes have the same."""
        listing = json.dumps({name: entry.sha256 for name, entry in sorted(self.files.items())})
        return hashlib.sha256(listing.encode()).hexdigest()

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The manifest that `asdict` made the document from."""
        return cls(**document | {"files": {name: FileEntry(**entry) for name, entry in document["files"].items()}})


class Run:
    """A run's folder in a store. Nothing in it is changed once a manifest names it, but the manifest itself."""

    def __init__(self, store: Store, name: str) -> None:
        """Raises BadInput for a name that could not be a folder's."""
        if name_of(name) != name or not name.strip("."):
            raise BadInput(f"{name!r} cannot name a run: use letters, digits, '.', '_' and '-' only")
        self.store, self.name, self.path = store, name, f"{RUNS}/{name}"

    def begin(self, settings: Settings, created: datetime, airflow_run_id: str | None = None) -> Record:
        """Write run.json, as a run's first stage does.

        Settings belong to a run for good from its first manifest on; until then they may still be corrected.

        Raises BadInput where the run has other settings already, its name belongs to another Airflow run, or its source
        may not be read or holds a secret, which is then stored nowhere.
        """
        refuse_secrets(settings.source)
        if settings.may_read is not None:
            checked(settings.source, settings.may_read)
        known = self.record()
        if known and self.manifest(next(iter(STAGES))):
            changed = _differences(known.settings, settings)
            if changed:
                raise BadInput(f"run {self.name} was made with other settings ({changed}): start it under a new name")
        if known and known.airflow_run_id and airflow_run_id not in {None, known.airflow_run_id}:
            raise BadInput(
                f"run {self.name} belongs to the Airflow run {known.airflow_run_id!r}, whose id differs from "
                f"{airflow_run_id!r} only in replaced characters: start one with another id"
            )
        record = Record(
            self.name,
            known.created if known else created,
            settings,
            known.airflow_run_id if known and known.airflow_run_id else airflow_run_id,
            datetime.now(UTC),
        )
        self.store.write(f"{self.path}/run.json", _document(record))
        return record

    def record(self) -> Record | None:
        """What run.json says, or None where the run does not exist."""
        document = self.store.read(f"{self.path}/run.json")
        if document is None:
            return None
        kind = Restricted if document.get("restricted") else Settings
        settings = kind.of(document["settings"] | {"store": self.store.url})
        created, started = (datetime.fromisoformat(document[name]) for name in ("created", "started"))
        return Record(self.name, created, settings, document["airflow_run_id"], started)

    def existing(self) -> Record:
        """What run.json says; StageOutOfOrder where the run does not exist."""
        record = self.record()
        if record is None:
            raise StageOutOfOrder(f"{self.store.url} holds no run {self.name!r}: run its first stage, ingest, first")
        return record

    def manifest(self, stage: str) -> Manifest | None:
        """The stage's manifest, or None where no attempt of it is complete."""
        document = self.store.read(f"{self.path}/{stage}/manifest.json")
        return Manifest.of(document) if document else None

    def manifests(self) -> dict[str, Manifest]:
        """The complete stages, in order."""
        found = {stage: self.manifest(stage) for stage in STAGES}
        return {stage: manifest for stage, manifest in found.items() if manifest}

    def inputs(self, stage: Stage) -> dict[str, Manifest]:
        """The manifests a stage is made from.

        Raises StageOutOfOrder where one is missing, or was made from an attempt that has been replaced since.
        """
        complete = self.manifests()
        for need in stage.needs:
            if need not in complete:
                raise StageOutOfOrder(
                    f"{stage.name} of run {self.name} needs {need}, which is not complete: run {need} first"
                )
            for source, made_from in complete[need].inputs.items():
                if source not in complete or complete[source].digest != made_from:
                    raise StageOutOfOrder(
                        f"{need} of run {self.name} was made from another {source} than the store holds now: "
                        f"run {need} again before {stage.name}"
                    )
        return {need: complete[need] for need in stage.needs}

    def attempt(self, manifest: Manifest) -> str:
        """The folder in the store that holds the manifest's files."""
        return f"{RUNS}/{manifest.run}/{manifest.stage}/{manifest.attempt}"

    def attempts(self, stage: str) -> list[str]:
        """Every attempt of the stage that left a folder, complete or not."""
        return [name for name in self.store.names(f"{self.path}/{stage}") if _ATTEMPT.fullmatch(name)]

    def fetch(self, manifest: Manifest, folder: Path, names: Iterable[str] | None = None) -> None:
        """Copy a stage's files, or those named, into the local folder, each checked against its manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        wanted = manifest.files if names is None else {name: manifest.files[name] for name in names}
        self.store.download(self.attempt(manifest), wanted, folder)

    def keep(self, stage: str, name: str, folder: Path, inputs: Mapping[str, Manifest]) -> None:
        """Keep a piece of a stage's work under a name: files first, its document last; then what it replaces goes."""
        top = f"{self.path}/{stage}/{name}"
        path, old = f"{top}/{uuid.uuid4().hex[:8]}", self.store.names(top)
        kept = {
            "path": path,
            "files": {name: asdict(entry) for name, entry in entries(folder).items()},
            "inputs": {name: manifest.digest for name, manifest in inputs.items()},
        }
        self.store.upload(folder, path)
        self.store.write(f"{top}.json", kept)
        for replaced in old:
            self.store.remove(f"{top}/{replaced}")

    def resume(self, stage: str, name: str, inputs: Mapping[str, Manifest], folder: Path) -> bool:
        """Fetch what was kept under the name, if it was made from these inputs: whether there was such."""
        document = self.store.read(f"{self.path}/{stage}/{name}.json")
        if not document or document["inputs"] != {name: manifest.digest for name, manifest in inputs.items()}:
            return False
        folder.mkdir(parents=True)
        self.store.download(*_kept(document), folder)
        return True

    def kept(self, stage: str, name: str) -> tuple[str, dict[str, FileEntry]] | None:
        """The folder and the files of what was kept under the name; None where there is nothing."""
        document = self.store.read(f"{self.path}/{stage}/{name}.json")
        return _kept(document) if document else None

    def forget(self, stage: str) -> None:
        """Remove what keep has kept: documents first."""
        top = f"{self.path}/{stage}"
        documents = [name for name in self.store.names(f"{top}/{PARTS}") if name.endswith(".json")]
        for name in (f"{PARTIAL}.json", *(f"{PARTS}/{name}" for name in documents), PARTIAL, PARTS):
            self.store.remove(f"{top}/{name}")

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
        """Make the local folder the stage's result: files first, manifest last."""
        now = datetime.now(UTC)
        manifest = Manifest(
            stage=stage,
            run=self.name,
            attempt=f"{now:{_TIME}}-{uuid.uuid4().hex[:8]}",
            files=entries(folder),
            inputs={name: made_from.digest for name, made_from in inputs.items()},
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
        """Make an attempt, of this run or of another, the stage's result."""
        self.store.write(f"{self.path}/{manifest.stage}/manifest.json", asdict(manifest))


def _kept(document: dict[str, Any]) -> tuple[str, dict[str, FileEntry]]:
    return document["path"], {name: FileEntry(**entry) for name, entry in document["files"].items()}


def every_run(store: Store) -> Iterator[Run]:
    """The runs of the store; what else lies in their folder is passed over."""
    for name in store.names(RUNS):
        is_folder = store.names(f"{RUNS}/{name}") not in ([], [name])  # a file lists itself
        if is_folder and name_of(name) == name:
            yield Run(store, name)


def _document(record: Record) -> dict[str, Any]:
    return {
        "run": record.run,
        "created": record.created.isoformat(),
        "started": record.started.isoformat(),
        "version": record.version,
        "airflow_run_id": record.airflow_run_id,
        "source": record.settings.source,
        "restricted": isinstance(record.settings, Restricted),
        "settings": record.settings.model_dump(mode="json", exclude={"store"}),
        "code": {"version": package_version("stackoverflow-tagger"), "sha256": code_digest()},
        "packages": {"python": sys.version.split()[0]} | {name: package_version(name) for name in PACKAGES},
    }


@cache
def code_digest() -> str:
    """sha256 over this package's source files, so that a run made with changed code can be told."""
    package = Path(__file__).parent
    listing = {path.relative_to(package).as_posix(): digest(path) for path in sorted(package.rglob("*.py"))}
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _differences(had: Settings, asked: Settings) -> str:
    """The settings of a run that differ, as `epochs=2, now 3`; empty where none does."""
    pairs = ((name, getattr(had, name), getattr(asked, name)) for name in Settings.per_run())
    return ", ".join(f"{name}={old!r}, now {new!r}" for name, old, new in pairs if old != new)
