"""The application object, the options commands share, and how things are printed."""

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
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline import progress
from pipeline.errors import BadInput, inert
from pipeline.settings import Settings
from pipeline.store.objects import Store

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train, evaluate and publish the Stack Overflow tag classifier, stage by stage, without Airflow.",
    epilog="Exit status: 0 done, 2 bad input or usage, 3 gate not passed, 1 anything unforeseen.",
)


class _Plain(Console):
    """A console that prints strings for what they are: posts, tags, columns and names of runs are anybody's."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(inert(o) if isinstance(o, str) else o for o in objects), **options)


class _Inert(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(inert, super().format(record).split("\n")))


out = _Plain(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 200)
err = _Plain(stderr=True, highlight=False, markup=False, emoji=False)

StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="Folder or fsspec URL; else TAGGER_STORE, else ./store.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _shared(
    debug: Annotated[bool, typer.Option("--debug", help="With an error, also its traceback.")] = False,
) -> None:
    if sys.stderr.isatty():
        progress.show_with(_bars)
    else:
        for name in (progress.__name__, "pipeline.model.distributed"):
            logging.getLogger(name).setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_Inert("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)  # they quote what they warn of


def settings_of(store: str | None, source: str | None, pairs: list[str]) -> Settings:
    """Settings of the environment, `--set`, `--source` and `--store`; paths made whole."""
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


def command() -> str:
    """What to type for this program: its name where the shell finds it, else the path it was called by."""
    found = shutil.which("tagger")
    return "tagger" if found and Path(found).samefile(sys.argv[0]) else sys.argv[0]


def print_json(value: Any, indent: int | None = 2) -> None:
    r"""To standard output: no wrapping, no colour, and what cannot be seen as \u001b."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    sys.stdout.write("".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text) + "\n")


def _escaped(character: str) -> str:
    r"""As JSON allows it for any character, \u and four digits, twice beyond U+FFFF."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def number(value: float | None) -> str:
    """Four digits, or nothing."""
    return "" if value is None else f"{value:.4f}"


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """To standard output, in columns."""
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*map(inert, row))  # the console is given the table, not its strings
    out.print(table)


def store_of(url: str | None) -> Store:
    """The store of `--store` or of the environment."""
    return Store(settings_of(url, None, []).store)


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
