"""`tagger run`, `show` and `runs`."""

import os
import shlex
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipeline.cli.app import (
    JsonOption,
    StoreOption,
    app,
    command,
    err,
    number,
    out,
    print_json,
    print_table,
    settings_of,
    store_of,
)
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.execution.runner import run_stage
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import path_of
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Manifest, Run, every_run, warnings_of


@app.command()
def run(
    source: Annotated[str | None, typer.Option(help="Where the posts are; short for --set source=...")] = None,
    store: StoreOption = None,
    name: Annotated[str | None, typer.Option("--run", help="Name of the run; a new one by default.")] = None,
    pairs: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting; repeatable.")
    ] = None,
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="First stage to run.")] = "ingest",
    last: Annotated[str, typer.Option("--until", metavar="STAGE", help="Last stage to run.")] = "export",
) -> None:
    """Run the stages, from posts to a published model."""
    chosen = _between(first, last)
    settings = settings_of(store, source, pairs or [])
    this = _run(settings, name, begins=chosen[0] == "ingest", changed=bool(source or pairs))
    err.print(f"run {this.name}", soft_wrap=True)
    for stage in chosen:
        start = time.monotonic()
        summary = run_stage(stage, this)
        if "replica" in summary:
            err.print(
                f"  {stage:<15}{'as ' + summary['replica']:>16} {time.monotonic() - start:7.1f} s",
                soft_wrap=True,
            )
            return
        took = f"{summary['rows']:>10,} posts {time.monotonic() - start:7.1f} s"
        err.print(f"  {stage:<15}{took}  {_note(this, this.manifest(stage))}".rstrip(), soft_wrap=True)
    if chosen[-1] == "export":
        _print_published(this)
    else:
        out.print(f"go on with  {command()} run --run {this.name} --from {_after(chosen[-1])}", soft_wrap=True)


def _between(first: str, last: str) -> list[str]:
    names = list(STAGES)
    for name in (first, last):
        if name not in names:
            raise BadInput(f"no stage is named {name!r}: the stages are {', '.join(names)}")
    chosen = names[names.index(first) : names.index(last) + 1]
    if not chosen:
        raise BadInput(f"--from {first} comes after --until {last}: the order is {', '.join(names)}")
    return chosen


def _run(settings: Settings, name: str | None, *, begins: bool, changed: bool) -> Run:
    now = datetime.now(UTC)
    this = Run(Store(settings.store), name or f"tagger__{now:%Y%m%dT%H%M%SZ}_{uuid.uuid4().hex[:4]}")
    if begins:
        this.begin(settings, now)
    elif name is None:
        raise BadInput("--from needs --run NAME, the run to go on with: `tagger runs` lists them")
    elif changed:
        raise BadInput(f"run {name} keeps the settings it began with: leave out --set and --source, or start a new run")
    return this


def _reused(this: Run, manifest: Manifest | None) -> str:
    """Which run's work the stage has taken over; empty where it is the run's own."""
    return "" if manifest is None or manifest.run == this.name else f"as in run {manifest.run}"


def _note(this: Run, manifest: Manifest | None) -> str:
    """That the stage's work is another run's, or where it went on; empty where it is the run's own, done at one go."""
    step = manifest.summary.get("resumed_from_step") if manifest else None
    going_on = f"went on from step {step:,}" if step else ""
    return _reused(this, manifest) or going_on


def _card(this: Run) -> Card | None:
    """The card of the run's model: published by this run, or by that whose export it took over."""
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
    """Where the run's model is, how good it is, and a line to copy that asks it."""
    card = _card(this)
    if card is None:
        return
    default = this.store.url == Settings.read(os.environ).store
    store = "" if default else f" --store {shlex.quote(this.store.url)}"
    made = "published  " if card.run == this.name else f"unchanged  since run {card.run}: "
    out.print(f"{made}version {card.version}, accuracy {card.accuracy:.4f}", soft_wrap=True)
    out.print(f"model      {this.store.shown(path_of(card.version))}", soft_wrap=True)
    live = Registry(this.store).live()
    if live != card.version:
        out.print(f"not live   version {live} is: `{command()} models --log` says since when and why", soft_wrap=True)
    question = "How do I center a div with css?"
    out.print(f"ask it     {command()} predict{store} --version {card.version} '{question}'", soft_wrap=True)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The run's name; the newest by default.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: its verdict, accuracy, version, and what each stage took."""
    there = store_of(store)
    report = _show(Run(there, name)) if name else next(iter(_newest_first(there)), None)
    if report is None:
        raise BadInput(f"{there.url} holds no run yet: start one with `tagger run` or in Airflow")
    if as_json:
        print_json(report)
        return
    verdict = _verdict(report) or "not evaluated yet"
    accuracy = f", accuracy {report['accuracy']:.4f}" if report["accuracy"] is not None else ""
    version = f", version {report['version']}" if report["version"] else ", nothing published"
    if report["published_by"] not in {None, report["run"]}:
        version += f", which run {report['published_by']} published"
    out.print(f"run {report['run']}: {verdict}{accuracy}{version}", soft_wrap=True)
    out.print(f"source {report['source']}", soft_wrap=True)
    for reason in report["reasons"]:
        out.print(f"because {reason}", soft_wrap=True)
    for warning in report["warnings"]:
        out.print(f"with reservations: {warning}", soft_wrap=True)
    columns = ("stage", "rows", "seconds", "peak MiB", "bytes", "")
    rows = [
        (stage, f"{s['rows']:,}", f"{s['seconds']:.1f}", f"{s['peak_mib'] or 0:,.0f}", f"{s['bytes']:,}", s["note"])
        for stage, s in report["stages"].items()
    ]
    print_table(columns, rows)
    _print_data(report)
    _print_published(Run(there, report["run"]))


def _verdict(report: dict[str, Any]) -> str:
    """The gate's word, with the number of reservations about it or about the data; empty where it has not spoken."""
    verdict, warnings = report["verdict"] or "", len(report["warnings"])
    if verdict != "passed" or not warnings:
        return verdict
    return f"passed with {warnings} reservation{'s' if warnings > 1 else ''}"


def _print_data(report: dict[str, Any]) -> None:
    """The figures by which the data is judged."""
    summaries = {stage: about["summary"] for stage, about in report["stages"].items()}
    if ingested := summaries.get("ingest"):
        out.print(
            f"data       {ingested['duplicates']:.2%} copies, {ingested['leaked']:.2%} of the test posts leaked, "
            f"the median post has {ingested['median_characters']:,.0f} characters",
            soft_wrap=True,
        )
    if beside := summaries.get("vectorize", {}).get("drift"):
        figures = ", ".join(f"{name.replace('_', ' ')} {beside[name]:.4f}" for name in beside if name != "live")
        out.print(f"beside     version {beside['live']}: {figures}", soft_wrap=True)


def _newest_first(store: Store) -> list[dict[str, Any]]:
    reports = []
    for this in every_run(store):
        try:
            reports += [_show(this)] if this.record() else []
        except CorruptArtifact as error:
            err.print(f"run {this.name} is left out: {error}", soft_wrap=True)
    return sorted(reports, key=lambda report: report["created"], reverse=True)


def _show(this: Run) -> dict[str, Any]:
    record, manifests = this.existing(), this.manifests()
    evaluated = manifests["evaluate"].summary if "evaluate" in manifests else {}
    card = _card(this)
    return {
        "run": this.name,
        "created": record.created.isoformat(),
        "source": record.settings.source,
        "accuracy": evaluated.get("accuracy"),
        "verdict": evaluated.get("verdict"),
        "reasons": evaluated.get("reasons", []),
        "warnings": warnings_of(manifests),
        "version": card.version if card else None,
        "published_by": card.run if card else None,
        "settings": record.settings.model_dump(mode="json", include=set(Settings.per_run())),
        "stages": {
            stage: {
                "seconds": manifest.seconds,
                "cpu_seconds": manifest.cpu_seconds,
                "rows": manifest.summary["rows"],
                "bytes": sum(entry.bytes for entry in manifest.files.values()),
                "peak_mib": manifest.peak_mib,
                "note": _note(this, manifest),
                "finished": manifest.finished,
                "summary": manifest.summary,
            }
            for stage, manifest in manifests.items()
        },
    }


@app.command()
def runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the runs of the store, newest first."""
    reports = _newest_first(store_of(store))
    if as_json:
        print_json([{key: value for key, value in report.items() if key != "settings"} for report in reports])
        return
    rows = [
        (
            r["run"],
            f"{len(r['stages'])}/{len(STAGES)}",
            _verdict(r),
            number(r["accuracy"]),
            str(r["version"] or ""),
        )
        for r in reports
    ]
    print_table(("run", "stages", "verdict", "accuracy", "published version"), rows)
