"""Runs in the store: their settings, the manifests of their stages, and which stage was made from which."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pipeline.errors import BadInput, StageOutOfOrder, Unavailable, escape_control
from pipeline.files import entries
from pipeline.settings import Deployment, Settings
from pipeline.source_policy import checked, refuse_secrets
from pipeline.store import run_index
from pipeline.store.documents import Kind
from pipeline.store.manifest import MANIFEST, RUNS, TIME, Manifest, digests
from pipeline.store.names import ILLEGAL, is_name, required
from pipeline.store.needs import needing
from pipeline.store.notes import APPROVED, REFUSED, Approval, Refusal
from pipeline.store.objects import Store
from pipeline.store.record import RECORD as RECORD
from pipeline.store.record import Record as Record
from pipeline.store.record import differences, settings_digest
from pipeline.store.run_files import REPORT, RunFiles

TUNINGS, TUNING, RESULT = "tunings", "tuning.json", "result.json"
"""Folder of the tunings, and what each was begun with and found; it has a store of its own for the trials."""

TEMPORARY = "__airflow_temporary_run_"
"""How the run ids begin that `airflow tasks test` makes."""


def name_of(identifier: str) -> str:
    """The name of a run with this identifier: characters outside [A-Za-z0-9._-] are replaced by underscores."""
    return ILLEGAL.sub("_", identifier)


def identifier_of(airflow_run_id: str, logical_date: datetime | None) -> str:
    """The identifier of an Airflow run: its id, or its date under `airflow tasks test`, which gives each task an id.

    Raises BadInput if `airflow tasks test` was given no date.
    """
    if not airflow_run_id.startswith(TEMPORARY):
        return airflow_run_id
    if logical_date is None:
        raise BadInput("`airflow tasks test` needs a date here, the same for all six tasks, because it names the run")
    return f"test__{logical_date.isoformat()}"


class Run:
    """A run in a store: its documents, and in `files` what moves its files.

    Files that a manifest names are never changed; a manifest may be replaced.
    """

    _settings: Settings | None = None
    """The settings that this process does the run with, once it has begun the run or read them."""

    def __init__(self, store: Store, name: str) -> None:
        """Raises BadInput for a name that cannot name a folder."""
        self.store, self.name, self.path = store, required(name, "run"), f"{RUNS}/{name}"
        self.files = RunFiles(store, self.path)

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
        self._settings = settings
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
        for _ in range(3):
            if self.store.create(path, record.to_dict()):
                return record
            if known := self.record():  # else it was removed meanwhile
                self._refuse_other(known, record)
                kept = {"created": known.created, "airflow_run_id": known.airflow_run_id or record.airflow_run_id}
                record = record.model_copy(update=kept)
                self.store.write(path, record.to_dict())
                return record
        raise Unavailable(
            f"{self.store.display_path(path)} cannot be created and is not there: another process removes what this "
            "one writes: see which one that is",
            then="run the stage again",
        )

    def _refuse_other(self, known: Record, asked: Record) -> None:
        """Raise BadInput if the existing run is another Airflow run, or has a stage made with other settings."""
        if known.airflow_run_id and asked.airflow_run_id not in {None, known.airflow_run_id}:
            raise BadInput(
                f"run {self.name} belongs to the Airflow run {known.airflow_run_id!r}, whose id differs from "
                f"{asked.airflow_run_id!r} only in replaced characters: start one with another id"
            )
        changed = differences(known.settings, asked.settings)
        if changed and self.manifests():
            raise BadInput(f"run {self.name} was made with other settings ({changed}): start it under a new name")

    def record(self) -> Record | None:
        """The content of run.json; None if the run does not exist."""
        return self.document(Record, RECORD)

    def document(self, kind: type[Kind], name: str) -> Kind | None:
        """The document of this kind and name in the run's folder; None if there is none."""
        return self.store.load(f"{self.path}/{name}", kind)

    def existing(self) -> Record:
        """The content of run.json.

        Raises StageOutOfOrder if the run does not exist, or was begun again by another process with other settings.
        """
        record = self.record()
        if record is None and (refusal := self.refusal()):
            raise StageOutOfOrder(f"run {self.name} was refused before it began: {refusal.why}")
        if record is None:
            raise StageOutOfOrder(
                f"{self.store.url} holds no run {self.name!r}: `tagger runs` lists its runs, ingest begins a new one"
            )
        if self._settings and (changed := differences(self._settings, record.settings)):
            raise StageOutOfOrder(
                f"another process began run {self.name} at the same time with other settings ({changed}), and goes on "
                "with these: start this one under a new name"
            )
        self._settings = record.settings
        return record

    def manifest(self, stage: str) -> Manifest | None:
        """The stage's manifest; None if the stage is not complete."""
        return self.document(Manifest, f"{stage}/{MANIFEST}")

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

        Raises StageOutOfOrder if one is missing, was made from files that have been replaced since, or was made with
        other settings than run.json has.
        """
        complete, record = self.manifests(), self.record()
        settings = settings_digest(record.settings if record else None)
        for need in needs:
            if need not in complete:
                raise StageOutOfOrder(
                    f"{stage} of run {self.name} needs {need}, which is not complete: run {need} first"
                )
            if complete[need].settings not in {"", settings}:
                raise StageOutOfOrder(
                    f"{need} of run {self.name} was made with other settings than {RECORD} has now, because another "
                    f"process began the run meanwhile: run {need} again before {stage}"
                )
            for source, made_from in complete[need].inputs.items():
                if source not in complete or complete[source].digest != made_from:
                    raise StageOutOfOrder(
                        f"{need} of run {self.name} was made from another {source} than the store has now: "
                        f"run {need} again before {stage}"
                    )
        return {need: complete[need] for need in needs}

    def refuse(self, stage: str, why: str, evidence: Mapping[str, Any] | None = None) -> None:
        """Note that a stage refused the run, with the figures that led to it, unless another stage did before."""
        known = self.refusal()
        if known and known.stage != stage:
            return
        refusal = Refusal(stage=stage, why=escape_control(why), at=datetime.now(UTC), evidence=dict(evidence or {}))
        self.store.write(f"{self.path}/{REFUSED}", refusal.to_dict())

    def refusal(self) -> Refusal | None:
        """Why the run was refused; None if it was not, or if the stage that refused it succeeded later."""
        return self.document(Refusal, REFUSED)

    def withdraw_refusal(self, stage: str) -> None:
        """Remove the note that this stage refused the run, if there is one."""
        refusal = self.refusal()
        if refusal and refusal.stage == stage:
            self.store.remove(f"{self.path}/{REFUSED}")

    def approve(self, by: str, why: str, seen: str | None) -> None:
        """Note that a person approved the model after seeing the result `seen` of evaluate, the name of an attempt.

        Raises StageOutOfOrder if that is not the last one.
        """
        with needing(self.store, self.path):
            manifest = self.evaluated()
            if seen != manifest.attempt:
                shown = f"{seen} was shown" if seen else "it is not said which one was seen"
                raise StageOutOfOrder(
                    f"nothing is approved, because evaluate of run {self.name} left {manifest.attempt} last, with "
                    f"accuracy {manifest.summary.get('accuracy', 0):.4f}, and {shown}: look at that result, then "
                    "approve it by name"
                )
            by, why = escape_control(by), escape_control(why)
            noted = Approval(by=by, why=why, at=datetime.now(UTC), evaluated=manifest.path)
            self.store.write(f"{self.path}/{APPROVED}", noted.to_dict())

    def approval(self, evaluated: Manifest | None = None) -> Approval | None:
        """The approval of this result of evaluate, by default the last; None if none or only another was approved."""
        noted = self.document(Approval, APPROVED)
        return noted if noted and noted.evaluated == (evaluated or self.evaluated()).path else None

    def evaluated(self) -> Manifest:
        """The manifest of evaluate; StageOutOfOrder if the run was not evaluated."""
        manifest = self.manifest("evaluate")
        if manifest is None:
            raise StageOutOfOrder(f"run {self.name} has not been evaluated: run its stage evaluate first")
        return manifest

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
            inputs=digests(inputs),
            summary=summary,
            seconds=round(seconds, 3),
            peak_mib=peak_mib,
            finished=now.isoformat(timespec="seconds"),
            cpu_seconds=cpu_seconds,
        )
        self.store.upload(folder, manifest.path)
        return self.adopt(manifest)

    def adopt(self, manifest: Manifest) -> Manifest:
        """Make an attempt, of this run or of another one, the result of this run's stage; its manifest as written."""
        manifest = manifest.model_copy(update={"settings": settings_digest(self._settings)})
        self.store.write(f"{self.path}/{manifest.stage}/{MANIFEST}", manifest.to_dict())
        return manifest


def find_run(store: Store, name_or_id: str) -> Run | None:
    """The run with this name or Airflow run id; None if none has it."""
    run = Run(store, name_of(name_or_id))
    record = run.record()
    return run if record and name_or_id in {run.name, record.airflow_run_id} else None


def every_run(store: Store) -> Iterator[Run]:
    """The runs of the store; anything else in their folder is ignored."""
    for name in store.folders(RUNS):
        if is_name(name):
            yield Run(store, name)
