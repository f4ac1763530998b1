"""Describes the runs of a store: what the command line lists, and what the frames are made of."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.errors import CorruptArtifact
from pipeline.registry.card import Card
from pipeline.registry.cards import cards_of
from pipeline.settings import Settings
from pipeline.stages.plan import CONFUSION_MATRIX, DECISION, EVALUATION, MODEL_DIR
from pipeline.store import run_index
from pipeline.store.manifest import Manifest, current, warnings_of
from pipeline.store.objects import Store
from pipeline.store.run_files import PAGE, REPORT
from pipeline.store.runs import Run, every_run

SCORES = ("accuracy", "macro_f1", "loss", "calibration_error")
"""The figures in the summary of evaluate that say how good a model is."""

SHOWN = {
    "rejected": ("ingest", "rejected"),
    "evaluation": ("evaluate", EVALUATION),
    "decision": ("evaluate", DECISION),
    "confusions": ("evaluate", CONFUSION_MATRIX),
    "predicted": ("evaluate", "predictions"),
    "checkpoint": ("train", MODEL_DIR),
}
"""What a person may want to open, each as a stage and one of its files or folders."""


def described(run: Run) -> dict[str, Any]:
    """What the store has of a run, as JSON; StageOutOfOrder if it does not exist.

    `changed` are the settings that differ from the defaults, `seconds` those of the stages that the run did itself.
    """
    record, manifests = run.existing(), run.manifests()
    evaluated = manifests["evaluate"].summary if "evaluate" in manifests else {}
    card, refusal = card_of(run, manifests), run.refusal()
    settings, default = (each.model_dump(mode="json") for each in (record.settings, Settings()))
    return {
        "run": run.name,
        "created": record.created.isoformat(),
        "source": record.settings.source,
        "accuracy": evaluated.get("accuracy"),
        "verdict": evaluated.get("verdict"),
        "reasons": evaluated.get("reasons", []),
        "warnings": warnings_of(manifests),
        "refused": refusal.to_dict() if refusal else None,
        "version": card.version if card else None,
        "published_by": card.run if card else None,
        "seconds": round(sum(manifest.seconds for manifest in manifests.values() if manifest.run == run.name), 3),
        "changed": {name: value for name, value in settings.items() if value != default[name] and name != "source"},
        "settings": settings,
        "stages": {
            stage: {
                "seconds": manifest.seconds,
                "cpu_seconds": manifest.cpu_seconds,
                "rows": manifest.summary["rows"],
                "bytes": sum(entry.bytes for entry in manifest.files.values()),
                "peak_mib": manifest.peak_mib,
                "made_by": manifest.run,
                "note": note(run, manifest),
                "finished": manifest.finished,
                "path": run.store.display_path(manifest.path),
                "summary": manifest.summary,
            }
            for stage, manifest in manifests.items()
        },
    }


def paths(run: Run) -> dict[str, str]:
    """Where in the store a person finds the run's report and what its stages left to be looked at."""
    manifests, report = run.manifests(), run.files.saved(REPORT, PAGE)
    found = {"report": f"{report.path}/{next(iter(report.files))}"} if report else {}
    for what, (stage, name) in SHOWN.items():
        manifest = manifests.get(stage)
        if manifest and any(file == name or file.startswith(f"{name}/") for file in manifest.files):
            found[what] = f"{manifest.path}/{name}"
    return {what: run.store.display_path(path) for what, path in found.items()}


def newest_first(
    store: Store, damaged: Callable[[Run, CorruptArtifact], None], limit: int | None = None
) -> list[dict[str, Any]]:
    """Describe the newest runs, or every one; `damaged` is called for those that cannot be read."""
    descriptions = list[dict[str, Any]]()
    for run in newest_runs(store):
        if len(descriptions) == limit:
            break
        try:
            descriptions += [described(run)] if run.record() else []
        except CorruptArtifact as error:
            damaged(run, error)
    return descriptions


def newest_runs(store: Store) -> Iterator[Run]:
    """The runs of the store, newest first by their logical time. Those that are not in the index are read for it."""
    runs = {run.name: run for run in every_run(store)}
    times = run_index.times(store, runs)
    for name in runs.keys() - times.keys():
        times[name] = _index_time(runs[name])
    for name in sorted(runs, key=lambda name: (times[name], name), reverse=True):
        yield runs[name]


def _index_time(run: Run) -> str:
    """The run's time as in the index: newer than any if run.json is damaged, older than any without it."""
    try:
        record = run.record()
    except CorruptArtifact:
        return "damaged"
    return run_index.time_of(record.created) if record else ""


def note(run: Run, manifest: Manifest | None) -> str:
    """Say from which run the stage's result was cached, or at which step it was resumed; empty where neither is so."""
    step = manifest.summary.get("resumed_from_step") if manifest else None
    if manifest and manifest.run != run.name:
        return f"cached, from run {manifest.run}"
    return f"resumed from step {step:,}" if step else ""


def card_of(run: Run, manifests: Mapping[str, Manifest]) -> Card | None:
    """Find the card of the run's model, which this run published, or the run whose cached export it uses."""
    exported = current(manifests, "export")
    if exported is None:
        return None
    for name in dict.fromkeys((run.name, exported.run)):
        record = Run(run.store, name).record()
        cards = cards_of(run.store, name, record.first_version) if record else []
        of_model = [card for card in cards if card.files == exported.files]
        if of_model:
            return of_model[-1]
    return None
