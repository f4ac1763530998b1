"""What all commands share: the application object, common options, and printing."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipeline import progress
from pipeline.errors import BadInput, escape_control
from pipeline.settings import Deployment, Settings, Tuning, read_all
from pipeline.source_policy import is_url
from pipeline.store.objects import Store
from pipeline.store.runs import find_run, name_of

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train, test, publish and use the Stack Overflow tag classifier, without Airflow.",
    epilog="Exit status: 0 done, 2 wrong input or usage, 3 the model did not pass the gate, 1 any other error.",
)


class _PlainConsole(Console):
    """A console that escapes control characters, because anybody may have written a post, tag, column or run name."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(escape_control(o) if isinstance(o, str) else o for o in objects), **options)


class _EscapingFormatter(logging.Formatter):
    """Escapes control characters in every line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(escape_control, super().format(record).split("\n")))


out = _PlainConsole(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 200)
err = _PlainConsole(stderr=True, highlight=False, markup=False, emoji=False)

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", help="Folder or fsspec URL with the runs and models; by default the setting `store`."
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="Name of the run, or its Airflow run id; the newest run by default."),
]
SourceOption = Annotated[
    str | None, typer.Option("--source", help="Where the posts are: a path or URL; the same as --set source=...")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set a setting; may be repeated. `tagger settings` lists them."),
]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.callback()
def _shared(
    debug: Annotated[bool, typer.Option("--debug", help="Also print the traceback of an error.")] = False,
) -> None:
    if not sys.stderr.isatty():
        for name in (progress.__name__, "pipeline.model.distributed"):
            logging.getLogger(name).setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_EscapingFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)  # so that they are escaped, too: they quote their subject


def say(text: str = "") -> None:
    """Print to standard output; long lines are not wrapped, so that they can be copied."""
    out.print(text, soft_wrap=True)


def say_aside(text: str) -> None:
    """Print to standard error, where it is in nobody's way who reads standard output by a program."""
    err.print(text, soft_wrap=True)


def track() -> progress.Track:
    """Choose how to show progress: as bars on a terminal, else as log lines."""
    return _bars if sys.stderr.isatty() else progress.log_lines


def settings_of(store: str | None, source: str | None, pairs: list[str]) -> tuple[Settings, Deployment]:
    """The settings of a run and of the deployment; see all_settings_of."""
    return all_settings_of(store, source, pairs)[:2]


def all_settings_of(store: str | None, source: str | None, pairs: list[str]) -> tuple[Settings, Deployment, Tuning]:
    """Read the settings from the environment, `--set`, `--source` and `--store`, and make paths absolute."""
    values = dict[str, Any]()
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"--set {pair!r} has no '=': write --set name=value")
        values[key.strip()] = value
    values |= {key: value for key, value in (("source", source), ("store", store)) if value is not None}
    settings, deployment, tuning = read_all(os.environ, **values)
    # The run may be continued from another folder, where a relative path would mean another file.
    return (
        settings.model_copy(update={"source": _absolute(settings.source)}),
        deployment.model_copy(update={"store": _absolute(deployment.store)}),
        tuning,
    )


def _absolute(place: str) -> str:
    return place if is_url(place) else str(Path(place).expanduser().absolute())


def command() -> str:
    """How to call this program: by its name where the shell finds it, else by the path it was started with."""
    found = shutil.which("tagger")
    return "tagger" if found and os.path.realpath(found) == os.path.realpath(sys.argv[0]) else sys.argv[0]


def print_json(value: Any, indent: int | None = 2) -> None:
    r"""Print to standard output, without wrapping or colour, and with control characters as \u001b."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    sys.stdout.write("".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text) + "\n")


def _escaped(character: str) -> str:
    r"""Escape the character for JSON: \u and four digits, twice for characters beyond U+FFFF."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def number(value: float | None) -> str:
    """Format with four decimal places, None as empty text."""
    return "" if value is None else f"{value:.4f}"


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print aligned columns to standard output; long lines are not wrapped, so that they can be copied."""
    lines = [columns, *(tuple(map(escape_control, row)) for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (set_cell_size(cell, width) for cell, width in zip(line, widths, strict=True))
        say("  ".join(cells).rstrip())


def store_of(url: str | None) -> Store:
    """Open the store given by `--store` or, if that is None, by the environment."""
    return Store(settings_of(url, None, [])[1].store)


def run_name(store: Store, given: str) -> str:
    """Find a run's name in the store, given that name or its Airflow run id; BadInput where no run has the id."""
    if given == name_of(given):
        return given
    run = find_run(store, given)
    if run is None:
        raise BadInput(
            f"{store.url} holds no run {given!r}: `tagger runs` lists its runs; the name of a new one may have "
            "only letters, digits, '.', '_' and '-'"
        )
    return run.name


@contextmanager
def _bars(task: str, unit: str, total: int | None) -> Iterator[progress.Advance]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<15}"),
        BarColumn(),
        MofNCompleteColumn() if total else TextColumn("{task.completed}"),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        bar = bars.add_task(task, total=total)
        yield lambda count: bars.advance(bar, count)
