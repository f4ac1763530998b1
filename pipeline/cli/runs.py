"""The commands that show runs: `show`, `report`, `runs` and `compare`."""

from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import typer

from pipeline.cli.app import (
    JsonOption,
    OpenOption,
    RunArgument,
    StoreOption,
    number,
    print_json,
    print_table,
    run_name,
    say,
    say_aside,
    store_of,
)
from pipeline.cli.run import print_published
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.report.runs import described, newest_first, paths
from pipeline.stages import accounting
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run

LISTED = 50
"""How many runs are listed if nobody says."""


def show(
    name: RunArgument = None,
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
    say(f"run {report['run']}: {verdict}{accuracy}{version}")
    say(f"source {report['source']}")
    refused = report["refused"]
    for reason in report["reasons"] or ([refused["why"]] if refused else []):
        say(f"because {reason}")
    for warning in report["warnings"]:
        say(f"warning: {warning}")
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
        say(f"cached     from run {maker}: {stages}")
    _print_data(report)
    for what, path in paths(Run(there, report["run"])).items():
        say(f"{what:<10} {path}")
    print_published(Run(there, report["run"]))


def report(
    name: RunArgument = None,
    store: StoreOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the page to this file; by default only to the store.")
    ] = None,
    open_page: OpenOption = False,
) -> None:
    """Make a run's report: one HTML page that says whether its model may be trusted, and why."""
    there = store_of(store)
    this = Run(there, _shown_or_newest(there, name)["run"])
    from pipeline.report import page  # not at the top: matplotlib takes a third of a second

    if output or open_page:
        _write_page(page.render(this), output, this.name, open_page=open_page)
    else:
        say(page.save(this))


def _verdict(report: dict[str, Any]) -> str:
    """The gate's verdict with the number of warnings of all stages, or that the run was refused before or after it."""
    if report["refused"] and not report["verdict"]:
        return f"refused by {report['refused']['stage']}"
    verdict, warnings = report["verdict"] or "", len(report["warnings"])
    if report["refused"] and verdict == "passed":
        return "passed, then refused"
    if verdict != "passed" or not warnings:
        return verdict
    return f"passed with {warnings} warning{'s' if warnings > 1 else ''}"


def _print_data(report: dict[str, Any]) -> None:
    """Print the figures by which the data is judged, and what the comparison with the live model counts."""
    summaries = {stage: about["summary"] for stage, about in report["stages"].items()}
    evaluated = summaries.get("evaluate", {})
    if coverage := evaluated.get("coverage"):
        say(f"champion   version {evaluated['champion']}, {coverage}")
    for stage, summary in summaries.items():
        if account := accounting.sentence(summary):
            say(f"{stage:<10} {account}")
    if ingested := summaries.get("ingest"):
        say(
            f"data       {ingested['duplicates']:.2%} are copies, {ingested['leaked']:.2%} of the test posts copy a "
            f"training post, median length {ingested['median_characters']:,.0f} characters"
        )
    if drift := summaries.get("vectorize", {}).get("drift"):
        figures = ", ".join(f"{name.replace('_', ' ')} {drift[name]:.4f}" for name in drift if name != "live")
        say(f"drift      from version {drift['live']}: {figures}")


def _shown_or_newest(store: Store, name: str | None) -> dict[str, Any]:
    """What `show` says of the run with this name, or of the newest one; BadInput if there is no run yet."""
    report = described(Run(store, run_name(store, name))) if name else next(iter(_listed(store, 1)), None)
    if report is None:
        raise BadInput(f"{store.url} holds no run yet: start one with `tagger run` or in Airflow")
    return report


def _listed(store: Store, limit: int | None) -> list[dict[str, Any]]:
    """Describe the newest runs, or every one; those that cannot be read are named on standard error."""

    def say_damaged(this: Run, error: CorruptArtifact) -> None:
        say_aside(f"run {this.name} is not listed: {error}")

    return newest_first(store, say_damaged, limit)


def runs(
    store: StoreOption = None,
    limit: Annotated[int, typer.Option(min=1, help="List so many runs at most.")] = LISTED,
    every: Annotated[bool, typer.Option("--all", help="List every run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the newest runs in the store, with the settings that differ from the defaults, and refusals."""
    there = store_of(store).require()
    reports = _listed(there, None if every else limit + 1)
    if not every and len(reports) > limit:
        reports.pop()
        say_aside(f"only the newest {limit:,} runs are listed: add --all, or a higher --limit")
    if as_json:
        print_json(reports)
        return
    columns = ("run", "time", "took", "stages", "verdict", "accuracy", "published version", "settings; why refused")
    print_table(columns, [line for each in reports for line in _lines(each)])


def _lines(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """A run in the table of runs: a line with its settings, and one for each reason for which it was refused."""
    refused = report["refused"]
    changed = " ".join(f"{name}={value}" for name, value in report["changed"].items())
    first = (
        report["run"],
        f"{datetime.fromisoformat(report['created']):%Y-%m-%d %H:%M}",
        f"{report['seconds']:.1f}s",
        f"{len(report['stages'])}/{len(STAGES)}",
        _verdict(report),
        number(report["accuracy"]),
        str(report["version"] or ""),
        changed,
    )
    reasons = report["reasons"] or ([refused["why"]] if refused else [])
    return [first, *(("",) * 7 + (f"because {reason}",) for reason in reasons)]


def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Two runs or more, by name or Airflow run id.")
    ],
    store: StoreOption = None,
    output: Annotated[Path | None, typer.Option(help="Write the comparison to this file as an HTML page.")] = None,
    open_page: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put evaluated runs beside each other: settings that differ, scores, and whether a difference may be chance."""
    there = store_of(store).require()
    from pipeline.report.compare import Comparison  # not at the top: matplotlib takes a third of a second

    compared = Comparison.of([Run(there, run_name(there, name)) for name in names])
    if as_json:
        print_json(compared.to_dict())
        return
    _print_comparison(compared)
    if output or open_page:
        _write_page(compared.render(), output, "compared", open_page=open_page)


def _print_comparison(compared: Any) -> None:
    shown = compared.to_dict()
    settings = shown["settings"]
    columns = ("run", "verdict", *(name.replace("_", " ") for name in shown["scores"]), "training", *settings)
    print_table(
        columns,
        [
            (
                run,
                shown["verdicts"][at],
                *(number(values[at]) for values in shown["scores"].values()),
                f"{shown['training_seconds'][at]:.1f} s",
                *(str(values[at]) for values in settings.values()),
            )
            for at, run in enumerate(shown["runs"])
        ],
    )
    for run, coverage in zip(shown["runs"], shown["coverage"], strict=True):
        if coverage:
            say(f"{run} against the live model: {coverage}")
    for each in compared.differences:
        say(each.sentence(shown["runs"][0]))
    recall = [(tag, *map(number, values)) for tag, values in shown["recall"].items()]
    print_table(("recall of tag", *shown["runs"]), recall)


def _write_page(page: str, output: Path | None, name: str, *, open_page: bool) -> None:
    """Write a page to the file, or to a temporary one if None, and open it in the browser if that is asked for."""
    output = output or Path(mkdtemp(prefix="tagger-report-")) / f"{name}.html"
    if not output.absolute().parent.is_dir():
        raise BadInput(f"--output {output}: the folder {output.absolute().parent} does not exist; create it first")
    output.write_text(page)
    say(str(output))
    if open_page:
        typer.launch(str(output))
