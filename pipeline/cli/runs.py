"""The commands that concern runs: `run`, `show` and `runs`."""

import os
import shlex
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import typer

from pipeline.cli.app import (
    JsonOption,
    StoreOption,
    command,
    err,
    number,
    out,
    print_json,
    print_table,
    run_name,
    settings_of,
    store_of,
    track,
)
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.execution.runner import run_stage
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import path_of
from pipeline.settings import Deployment, Settings, read
from pipeline.stages.plan import FIRST, LAST, STAGES
from pipeline.store.manifest import Manifest, warnings_of
from pipeline.store.objects import Store
from pipeline.store.runs import Run, every_run
from pipeline.tuning.winner import with_tuned

ORDER = ", ".join(STAGES)


def run(
    source: Annotated[
        str | None, typer.Option(help="Where the posts are: a path or URL; the same as --set source=...")
    ] = None,
    store: StoreOption = None,
    name: Annotated[
        str | None, typer.Option("--run", help="Name of the run, or its Airflow run id; a new name by default.")
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Set a setting; may be repeated. `tagger settings` lists them."
        ),
    ] = None,
    no_publish: Annotated[
        bool, typer.Option("--no-publish", help="Do not publish the model, as --set publish=false.")
    ] = False,
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help=f"First stage to run, of {ORDER}.")] = FIRST,
    last: Annotated[str, typer.Option("--until", metavar="STAGE", help="Last stage to run.")] = LAST,
) -> None:
    """Read posts, train a model, test it, and publish it if it passes the gate."""
    chosen = _between(first, last)
    pairs = [*(pairs or []), *(["publish=false"] if no_publish else [])]
    settings, deployment = settings_of(store, source, pairs)
    this = _run(settings, deployment, name, begins=chosen[0] == FIRST, changed=bool(source or pairs))
    err.print(f"run {this.name}", soft_wrap=True)
    for stage in chosen:
        start = time.monotonic()
        summary = run_stage(stage, this, track())
        if "worker" in summary:
            err.print(
                f"  {stage:<15}{'as ' + summary['worker']:>16} {time.monotonic() - start:7.1f} s",
                soft_wrap=True,
            )
            return
        took = f"{summary['rows']:>10,} posts {time.monotonic() - start:7.1f} s"
        err.print(f"  {stage:<15}{took}  {_note(this, this.manifest(stage))}".rstrip(), soft_wrap=True)
    if chosen[-1] == LAST:
        _print_published(this)
    else:
        out.print(f"continue with  {command()} run --run {this.name} --from {_after(chosen[-1])}", soft_wrap=True)


def _between(first: str, last: str) -> list[str]:
    names = list(STAGES)
    for name in (first, last):
        if name not in names:
            raise BadInput(f"no stage is named {name!r}: the stages are {', '.join(names)}")
    chosen = names[names.index(first) : names.index(last) + 1]
    if not chosen:
        raise BadInput(f"--from {first} comes after --until {last}: the order is {', '.join(names)}")
    return chosen


def _run(settings: Settings, deployment: Deployment, name: str | None, *, begins: bool, changed: bool) -> Run:
    now = datetime.now(UTC)
    there = Store(deployment.store)
    this = Run(there, run_name(there, name) if name else f"tagger__{now:%Y%m%dT%H%M%SZ}_{uuid.uuid4().hex[:4]}")
    if begins:
        known = this.record()
        this.begin(with_tuned(there, settings, known.settings if known else None), now, deployment=deployment)
    elif name is None:
        raise BadInput("--from needs --run NAME, the run to continue: `tagger runs` lists them")
    elif changed:
        raise BadInput(
            f"run {name} keeps the settings it was started with: leave out --set and --source, or start a new run"
        )
    return this


def _cached(this: Run, manifest: Manifest | None) -> str:
    """Say which run the stage's cached result comes from; empty where this run made it."""
    return "" if manifest is None or manifest.run == this.name else f"cached, from run {manifest.run}"


def _note(this: Run, manifest: Manifest | None) -> str:
    """Say that the stage's result was cached, or at which step it was resumed; empty where neither is so."""
    step = manifest.summary.get("resumed_from_step") if manifest else None
    resumed = f"resumed from step {step:,}" if step else ""
    return _cached(this, manifest) or resumed


def _card(this: Run) -> Card | None:
    """Find the card of the run's model, which this run published, or the run whose cached export it uses."""
    exported = this.manifest("export")
    if exported is None:
        return None
    records = [Run(this.store, name).record() for name in (this.name, exported.run)]
    cards = [Registry(this.store).card(record.version) for record in records if record]
    return next((card for card in cards if card and card.path == this.attempt(exported)), None)


def _after(stage: str) -> str:
    names = list(STAGES)
    return names[names.index(stage) + 1]


def _print_published(this: Run) -> None:
    """Print where the run's model is, its accuracy, and a command that uses it."""
    if not this.existing().settings.publish:
        if this.manifest(LAST):
            out.print("not published, because publish is false: what is live stays", soft_wrap=True)
        return
    card = _card(this)
    if card is None:
        return
    default = this.store.url == read(os.environ)[1].store
    store = "" if default else f" --store {shlex.quote(this.store.url)}"
    made, by = ("published", "") if card.run == this.name else ("unchanged", f", which run {card.run} published")
    out.print(f"{made}  version {card.version}{by}, accuracy {card.accuracy:.4f}", soft_wrap=True)
    out.print(f"model      {this.store.display_path(path_of(card.version))}", soft_wrap=True)
    live = Registry(this.store).live()
    if live != card.version:
        out.print(
            f"not live   version {live} is live: `{command()} models --log` shows since when and why", soft_wrap=True
        )
    question = "How do I center a div with css?"
    out.print(f"ask it     {command()} predict{store} --version {card.version} '{question}'", soft_wrap=True)


def show(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Name of the run, or its Airflow run id; the newest run by default."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run's verdict, accuracy, version and stages."""
    there = store_of(store)
    report = _shown_or_newest(there, name)
    if as_json:
        print_json(report)
        return
    verdict = _verdict(report) or "not evaluated yet"
    accuracy = f", accuracy {report['accuracy']:.4f}" if report["accuracy"] is not None else ""
    version = f", version {report['version']}" if report["version"] else ", nothing published"
    out.print(f"run {report['run']}: {verdict}{accuracy}{version}", soft_wrap=True)
    out.print(f"source {report['source']}", soft_wrap=True)
    refused = report["refused"]
    for reason in report["reasons"] or ([refused["why"]] if refused else []):
        out.print(f"because {reason}", soft_wrap=True)
    for warning in report["warnings"]:
        out.print(f"warning: {warning}", soft_wrap=True)
    columns = ("stage", "rows", "seconds", "peak MiB", "bytes", "")
    rows = [
        (
            stage,
            f"{s['rows']:,}",
            f"{s['seconds']:.1f}",
            f"{s['peak_mib'] or 0:,.0f}",
            f"{s['bytes']:,}",
            s["note"] if s["made_by"] == report["run"] else "",
        )
        for stage, s in report["stages"].items()
    ]
    print_table(columns, rows)
    for maker in dict.fromkeys(s["made_by"] for s in report["stages"].values() if s["made_by"] != report["run"]):
        stages = ", ".join(stage for stage, s in report["stages"].items() if s["made_by"] == maker)
        out.print(f"cached     from run {maker}: {stages}", soft_wrap=True)
    _print_data(report)
    _print_published(Run(there, report["run"]))


def report(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Name of the run, or its Airflow run id; the newest run by default."),
    ] = None,
    store: StoreOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the page to this file; by default only to the store.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Make a run's report: one HTML page that says whether its model may be trusted, and why."""
    there = store_of(store)
    this = Run(there, _shown_or_newest(there, name)["run"])
    from pipeline.report import page  # not at the top: matplotlib takes a third of a second

    if output is None and open_page:
        output = Path(mkdtemp(prefix="tagger-report-")) / f"{this.name}.html"
    if output is None:
        out.print(page.save(this), soft_wrap=True)
        return
    if not output.absolute().parent.is_dir():
        raise BadInput(f"--output {output}: the folder {output.absolute().parent} does not exist; create it first")
    output.write_text(page.render(this))
    out.print(str(output), soft_wrap=True)
    if open_page:
        typer.launch(str(output))


def _verdict(report: dict[str, Any]) -> str:
    """The gate's verdict with the number of warnings of all stages, or which stage refused the run; else empty."""
    if report["refused"] and not report["verdict"]:
        return f"refused by {report['refused']['stage']}"
    verdict, warnings = report["verdict"] or "", len(report["warnings"])
    if verdict != "passed" or not warnings:
        return verdict
    return f"passed with {warnings} warning{'s' if warnings > 1 else ''}"


def _print_data(report: dict[str, Any]) -> None:
    """Print the figures by which the data is judged."""
    summaries = {stage: about["summary"] for stage, about in report["stages"].items()}
    if ingested := summaries.get("ingest"):
        out.print(
            f"data       {ingested['duplicates']:.2%} are copies, {ingested['leaked']:.2%} of the test posts copy a "
            f"training post, median length {ingested['median_characters']:,.0f} characters",
            soft_wrap=True,
        )
    if drift := summaries.get("vectorize", {}).get("drift"):
        figures = ", ".join(f"{name.replace('_', ' ')} {drift[name]:.4f}" for name in drift if name != "live")
        out.print(f"drift      from version {drift['live']}: {figures}", soft_wrap=True)


def _shown_or_newest(store: Store, name: str | None) -> dict[str, Any]:
    """What `show` says of the run with this name, or of the newest one; BadInput if there is no run yet."""
    report = _show(Run(store, run_name(store, name))) if name else next(iter(_newest_first(store)), None)
    if report is None:
        raise BadInput(f"{store.url} holds no run yet: start one with `tagger run` or in Airflow")
    return report


def _newest_first(store: Store) -> list[dict[str, Any]]:
    reports = []
    for this in every_run(store):
        try:
            reports += [_show(this)] if this.record() else []
        except CorruptArtifact as error:
            err.print(f"run {this.name} is not listed: {error}", soft_wrap=True)
    return sorted(reports, key=lambda report: report["created"], reverse=True)


def _show(this: Run) -> dict[str, Any]:
    record, manifests = this.existing(), this.manifests()
    evaluated = manifests["evaluate"].summary if "evaluate" in manifests else {}
    card, refusal = _card(this), this.refusal()
    return {
        "run": this.name,
        "created": record.created.isoformat(),
        "source": record.settings.source,
        "accuracy": evaluated.get("accuracy"),
        "verdict": evaluated.get("verdict"),
        "reasons": evaluated.get("reasons", []),
        "warnings": warnings_of(manifests),
        "refused": refusal.to_dict() if refusal else None,
        "version": card.version if card else None,
        "published_by": card.run if card else None,
        "settings": record.settings.model_dump(mode="json"),
        "stages": {
            stage: {
                "seconds": manifest.seconds,
                "cpu_seconds": manifest.cpu_seconds,
                "rows": manifest.summary["rows"],
                "bytes": sum(entry.bytes for entry in manifest.files.values()),
                "peak_mib": manifest.peak_mib,
                "made_by": manifest.run,
                "note": _note(this, manifest),
                "finished": manifest.finished,
                "summary": manifest.summary,
            }
            for stage, manifest in manifests.items()
        },
    }


def runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the runs in the store, newest first."""
    reports = _newest_first(store_of(store).require())
    if as_json:
        print_json([{key: value for key, value in report.items() if key != "settings"} for report in reports])
        return
    rows = [
        (
            r["run"],
            f"{datetime.fromisoformat(r['created']):%Y-%m-%d %H:%M}",
            f"{len(r['stages'])}/{len(STAGES)}",
            _verdict(r),
            number(r["accuracy"]),
            str(r["version"] or ""),
        )
        for r in reports
    ]
    print_table(("run", "time", "stages", "verdict", "accuracy", "published version"), rows)
