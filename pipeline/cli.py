"""`tagger`: the same stages without Airflow, and a look at what they left."""

import json
import logging
import os
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline import progress
from pipeline.errors import BadInput, TaggerError
from pipeline.registry import Registry, path_of
from pipeline.runner import run_stage
from pipeline.runs import RUNS, Run
from pipeline.settings import Settings
from pipeline.stages import STAGES
from pipeline.store import Store

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train, evaluate and publish the Stack Overflow tag classifier, stage by stage, without Airflow.",
    epilog="Exit status: 0 done, 2 bad input or usage, 3 gate not passed, 1 anything unforeseen.",
)
out = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False, markup=False)

StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="Folder or fsspec URL; else TAGGER_STORE, else ./store.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line; every TaggerError ends as one sentence on standard error and its exit status."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="tagger")
    except TaggerError as error:
        _fail(str(error), error.exit_status, debug)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        _fail(f"unforeseen: {what} (run again with --debug for where it happened)", 1, debug)


def _fail(sentence: str, status: int, debug: bool) -> None:
    if debug:
        err.print_exception()
    err.print(f"tagger: {sentence}", soft_wrap=True)
    sys.exit(status)


@app.callback()
def _shared(
    debug: Annotated[bool, typer.Option("--debug", help="With an error, also its traceback.")] = False,
) -> None:
    if sys.stderr.isatty():
        progress.show_with(_bars)
    else:
        logging.getLogger(progress.__name__).setLevel(logging.INFO)
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)


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
    settings = _settings(store, source, pairs or [])
    this = _run(settings, name, begins=chosen[0] == "ingest", changed=bool(source or pairs))
    err.print(f"run {this.name}", soft_wrap=True)
    for stage in chosen:
        start = time.monotonic()
        summary = run_stage(stage, this)
        err.print(f"  {stage:<15}{summary['rows']:>10,} posts {time.monotonic() - start:7.1f} s", soft_wrap=True)
    if chosen[-1] == "export":
        _print_published(this)
    else:
        out.print(f"go on with  {_command()} run --run {this.name} --from {_after(chosen[-1])}", soft_wrap=True)


def _between(first: str, last: str) -> list[str]:
    names = list(STAGES)
    for name in (first, last):
        if name not in names:
            raise BadInput(f"no stage is named {name!r}: the stages are {', '.join(names)}")
    chosen = names[names.index(first) : names.index(last) + 1]
    if not chosen:
        raise BadInput(f"--from {first} comes after --until {last}: the order is {', '.join(names)}")
    return chosen


def _settings(store: str | None, source: str | None, pairs: list[str]) -> Settings:
    values = dict[str, Any]()
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"--set {pair!r} has no '=': write --set name=value")
        values[key.strip()] = value
    values |= {key: value for key, value in (("source", source), ("store", store)) if value is not None}
    settings = Settings.read(os.environ, **values)
    # A path means the folder this command was given in, whoever goes on with the run and from where.
    absolute = {
        key: str(Path(value).expanduser().absolute())
        for key, value in (("source", settings.source), ("store", settings.store))
        if "://" not in value
    }
    return settings.model_copy(update=absolute)


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


def _after(stage: str) -> str:
    names = list(STAGES)
    return names[names.index(stage) + 1]


def _print_published(this: Run) -> None:
    """Where the run's model is, how good it is, and a line to copy that asks it."""
    card = Registry(this.store).card(this.existing().version)
    if card is None or card.run != this.name:
        return
    default = this.store.url == Settings.read(os.environ).store
    store = "" if default else f" --store {shlex.quote(this.store.url)}"
    out.print(f"published  version {card.version}, accuracy {card.accuracy:.4f}", soft_wrap=True)
    out.print(f"model      {this.store.shown(path_of(card.version))}", soft_wrap=True)
    question = "How do I center a div with css?"
    out.print(f"ask it     {_command()} predict{store} --version {card.version} '{question}'", soft_wrap=True)


def _command() -> str:
    """What to type for this program: its name where the shell finds it, else the path it was called by."""
    found = shutil.which("tagger")
    return "tagger" if found and Path(found).samefile(sys.argv[0]) else sys.argv[0]


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The run's name; the newest by default.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: its verdict, accuracy, version, and what each stage took."""
    there = _store(store)
    report = _show(Run(there, name)) if name else next(iter(_newest_first(there)), None)
    if report is None:
        raise BadInput(f"{there.url} holds no run yet: start one with `tagger run` or in Airflow")
    if as_json:
        print_json(report)
        return
    verdict = report["verdict"] or "not evaluated yet"
    accuracy = f", accuracy {report['accuracy']:.4f}" if report["accuracy"] is not None else ""
    version = f", version {report['version']}" if report["version"] else ", nothing published"
    out.print(f"run {report['run']}: {verdict}{accuracy}{version}", soft_wrap=True)
    out.print(f"source {report['source']}", soft_wrap=True)
    for reason in report["reasons"]:
        out.print(f"because {reason}", soft_wrap=True)
    columns = ("stage", "rows", "seconds", "peak MiB", "bytes")
    rows = [
        (stage, f"{s['rows']:,}", f"{s['seconds']:.1f}", f"{s['peak_mib'] or 0:,.0f}", f"{s['bytes']:,}")
        for stage, s in report["stages"].items()
    ]
    _print_table(columns, rows)
    _print_published(Run(there, report["run"]))


def _newest_first(store: Store) -> list[dict[str, Any]]:
    found = [Run(store, name) for name in store.names(RUNS)]
    return sorted((_show(this) for this in found if this.record()), key=lambda report: report["created"], reverse=True)


def _show(this: Run) -> dict[str, Any]:
    record, manifests = this.existing(), this.manifests()
    evaluated = manifests["evaluate"].summary if "evaluate" in manifests else {}
    card = Registry(this.store).card(record.version)
    published = card.version if card and card.run == this.name else None
    return {
        "run": this.name,
        "created": record.created.isoformat(),
        "source": record.settings.source,
        "accuracy": evaluated.get("accuracy"),
        "verdict": evaluated.get("verdict"),
        "reasons": evaluated.get("reasons", []),
        "version": published,
        "settings": record.settings.model_dump(mode="json", include=set(Settings.per_run())),
        "stages": {
            stage: {
                "seconds": manifest.seconds,
                "rows": manifest.summary["rows"],
                "bytes": sum(entry.bytes for entry in manifest.files.values()),
                "peak_mib": manifest.peak_mib,
                "finished": manifest.finished,
                "summary": manifest.summary,
            }
            for stage, manifest in manifests.items()
        },
    }


@app.command()
def runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the runs of the store, newest first."""
    reports = _newest_first(_store(store))
    if as_json:
        print_json([{key: value for key, value in report.items() if key != "settings"} for report in reports])
        return
    rows = [
        (
            r["run"],
            f"{len(r['stages'])}/{len(STAGES)}",
            r["verdict"] or "",
            _number(r["accuracy"]),
            str(r["version"] or ""),
        )
        for r in reports
    ]
    _print_table(("run", "stages", "verdict", "accuracy", "published version"), rows)


@app.command()
def models(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the published versions, newest first, and which is live."""
    registry = Registry(_store(store))
    cards, live = registry.cards(), registry.live()
    if as_json:
        print_json([{"live": card.version == live} | asdict(card) for card in cards])
        return
    rows = [
        (
            str(c.version),
            "live" if c.version == live else "",
            _number(c.accuracy),
            _number(c.macro_f1),
            c.published,
            c.run,
        )
        for c in cards
    ]
    _print_table(("version", "", "accuracy", "macro F1", "published", "run"), rows)


@app.command()
def predict(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Posts to tag.")] = None,
    version: Annotated[int | None, typer.Option(help="A published version; the live one by default.")] = None,
    source: Annotated[str | None, typer.Option("--input", help="Tag every post of this file or URL instead.")] = None,
    target: Annotated[Path | None, typer.Option("--output", help="Parquet file for the tags of --input.")] = None,
    column: Annotated[str | None, typer.Option("--text-column", help="Column of --input that holds the text.")] = None,
    store: StoreOption = None,
) -> None:
    """Ask a published model for tags: of texts, as JSON lines, or of a file."""
    if bool(texts) == bool(source) or bool(source) != bool(target):
        raise BadInput("give either texts, or --input FILE and --output FILE: see `tagger predict --help`")
    settings = Settings.read(os.environ)
    from pipeline import prediction

    with TemporaryDirectory(prefix="tagger-predict-") as scratch:
        Registry(_store(store)).fetch(version, Path(scratch))
        if source and target:
            done = prediction.tag_file(Path(scratch), source, target, column or settings.text_column)
            aside = f", {done.rejected:,} rows set aside" if done.rejected else ""
            err.print(f"{done.posts:,} posts tagged into {target}{aside}", soft_wrap=True)
        else:
            for answer in prediction.tag_texts(Path(scratch), texts or []):
                print_json(answer, indent=None)


def print_json(value: Any, indent: int | None = 2) -> None:
    """To standard output, as it is: no wrapping, no colour."""
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _store(url: str | None) -> Store:
    return Store(_settings(url, None, []).store)


@contextmanager
def _bars(task: str, unit: str, total: int | None) -> Iterator[progress.Advance]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<15}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        bar = bars.add_task(task, total=total)
        yield lambda count: bars.advance(bar, count)
