"""Renders the report of a run as one HTML page that needs nothing else: no script, no file, no network."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.files import scratch_folder
from pipeline.report import figures, html
from pipeline.report.facts import Facts, lineage, observations, published_by
from pipeline.store.run_files import PAGE, REPORT
from pipeline.store.runs import Run

FILE = "report.html"


def render(run: Run) -> str:
    """The report of a run, with what the store has of it; StageOutOfOrder if the run does not exist."""
    return rendered(Facts.of(run))


def rendered(facts: Facts) -> str:
    """The report that says these facts."""
    return html.render(
        "run",
        facts=facts,
        evaluation=facts.evaluation,
        decision=facts.decision,
        summaries=facts.summaries,
        lineage=lineage(facts),
        drawn={name: Markup(svg) for name, svg in _figures(facts).items()},  # noqa: S704 - drawn here, from numbers
    )


def latest(run: Run) -> str:
    """The report in the store, if it was made of all that is known of the run, and else one that is made now."""
    if observations(run, published_by(run, run.manifests())):
        return render(run)
    with scratch_folder("report") as scratch:
        saved = Path(scratch, REPORT, FILE)
        if run.files.resume(REPORT, PAGE, run.manifests(), saved.parent) and saved.is_file():
            return saved.read_text(errors="replace")
    return render(run)


def save(run: Run) -> str:
    """Render the report, save it in the store in place of an earlier one, and return its path there for a person."""
    with scratch_folder("report") as scratch:
        Path(scratch, FILE).write_text(render(run))
        refusal = run.refusal()
        refused = refusal.stage if refusal else ""
        path = run.files.save(REPORT, PAGE, scratch, run.manifests(), refused)
    return run.store.display_path(f"{path}/{FILE}")


def _figures(facts: Facts) -> dict[str, str]:
    """Draw the figures for which there is something to draw."""
    drawn: dict[str, str] = {}
    trained: dict[str, Any] = facts.summaries.get("train", {})
    if curve := trained.get("curve"):
        drawn["curve"] = figures.learning_curve(curve, trained.get("best_epoch"))
    if facts.evaluation:
        if calibration := facts.evaluation.get("calibration"):
            drawn["reliability"] = figures.reliability(calibration["reliability"])
        recall = {tag: each["recall"] for tag, each in facts.evaluation["per_tag"].items() if each["support"]}
        drawn["recall"] = figures.recall_by_tag(recall, facts.decision.get("champion_recall"))
    return drawn
