"""Copies what a run found to MLflow, where MLFLOW_TRACKING_URI is set; a copy that fails never fails the run."""

import logging
import os
from typing import Any

from pipeline.files import scratch_folder
from pipeline.report.runs import SCORES, described
from pipeline.store.run_files import PAGE, REPORT
from pipeline.store.runs import Run

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "stackoverflow_tagger"
NAME, EVALUATED, VERDICT, VERSION, WHY = (
    f"tagger.{name}" for name in ("run", "evaluated", "verdict", "version", "refused")
)
"""The tags by which a run is found in MLflow again, and which say what became of it."""

log = logging.getLogger(__name__)


def mirror(run: Run) -> None:
    """Copy settings, scores, learning curve, verdict, version and report of the run; if that fails, log a warning."""
    if not os.environ.get(URI):
        return
    try:
        _mirror(run)
    except Exception as error:
        why = str(error).partition("\n")[0]
        log.warning("run %s is not copied to MLflow (%s): %s: %s", run.name, URI, type(error).__name__, why)


def _mirror(run: Run) -> None:
    # MLflow's own defaults try a server that is gone for minutes.
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")):
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    client, about = MlflowClient(), described(run)
    there = _there(client, run.name)
    evaluated = about["stages"].get("evaluate", {}).get("path", "")
    if there.data.tags.get(EVALUATED) != evaluated or not evaluated:
        client.log_batch(there.info.run_id, params=_params(about), metrics=_metrics(about))
    refused = about["refused"]["why"] if about["refused"] else ""
    tags = {EVALUATED: evaluated, VERDICT: about["verdict"], VERSION: about["version"], WHY: refused}
    for name, value in tags.items():
        if value:
            client.set_tag(there.info.run_id, name, str(value)[:5000])
    if saved := run.files.saved(REPORT, PAGE):
        with scratch_folder("mirror") as scratch:
            run.store.download(saved.path, saved.files, scratch)
            client.log_artifacts(there.info.run_id, str(scratch))
    client.set_terminated(there.info.run_id, "FAILED" if refused or about["verdict"] == "failed" else "FINISHED")


def _there(client: Any, name: str) -> Any:
    """The run of this name in MLflow, created if it is not there."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    identifier = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    found = client.search_runs([identifier], f"tags.`{NAME}` = '{name}'", max_results=1)
    return found[0] if found else client.create_run(identifier, run_name=name, tags={NAME: name})


def _params(about: dict[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)[:500]) for name, value in about["settings"].items()]


def _metrics(about: dict[str, Any]) -> list[Any]:
    """The scores, and the figures of the learning curve with the epoch as step."""
    from mlflow.entities import Metric

    summaries = {stage: each["summary"] for stage, each in about["stages"].items()}
    evaluated, curve = summaries.get("evaluate", {}), summaries.get("train", {}).get("curve", [])
    points = [(name, evaluated[name], 0) for name in SCORES if name in evaluated]
    points += [
        (f"epoch/{name}", value, int(point["epoch"]))
        for point in curve
        for name, value in point.items()
        if name != "epoch"
    ]
    return [Metric(name, float(value), 0, step) for name, value, step in points]
