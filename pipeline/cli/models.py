"""`tagger models`, `promote`, `rollback`, `predict`, `verify` and `gc`."""

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from pipeline.cli.app import (
    JsonOption,
    StoreOption,
    app,
    err,
    number,
    out,
    print_json,
    print_table,
    settings_of,
    store_of,
)
from pipeline.errors import BadInput, CorruptArtifact
from pipeline.execution.gc import collect, removals
from pipeline.execution.verify import verify as verify_store
from pipeline.registry.registry import Event, Registry
from pipeline.settings import Settings

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the log for ever.")]


@app.command()
def models(
    store: StoreOption = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Which was live then, as 2026-11-01T12:00Z.")
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Everything ever done to what is live.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the published versions, newest first, and which is live; or was."""
    registry = Registry(store_of(store))
    if log:
        _print_log(registry.events(), as_json)
        return
    cards, live = registry.cards(), registry.live(None if at is None else _time(at))
    if at is not None:
        cards = [card for card in cards if card.version == live]
        if not cards:
            raise BadInput(f"no version was live at {at}: `tagger models --log` tells since when one is")
    if as_json:
        print_json([{"live": card.version == live} | asdict(card) for card in cards])
        return
    rows = [
        (
            str(c.version),
            "live" if c.version == live else "let go" if registry.let_go(c.version) else "",
            number(c.accuracy),
            number(c.macro_f1),
            c.published,
            str(len(c.warnings) or ""),
            c.run,
        )
        for c in cards
    ]
    print_table(("version", "", "accuracy", "macro F1", "published", "reservations", "run"), rows)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--at {text!r} is no time: write it as 2026-11-01T12:00Z") from None
    # The log is shown by the second, so a second that was copied from there means all of it.
    time = time if "." in text else time.replace(microsecond=999_999)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _print_log(events: list[Event], as_json: bool) -> None:
    if as_json:
        print_json([asdict(event) for event in events])
        return
    rows = [(e.at[:19] + "Z", e.action, str(e.version), str(e.live), e.by, e.reason) for e in events]
    print_table(("at", "action", "version", "live since", "by", "reason"), rows)


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="A published version.")],
    reason: ReasonOption,
    store: StoreOption = None,
) -> None:
    """Make a published version live, by hand."""
    event = Registry(store_of(store)).promote(version, reason)
    out.print(f"version {event.live} is live", soft_wrap=True)


@app.command()
def rollback(reason: ReasonOption, store: StoreOption = None) -> None:
    """Make the version live again that was live before the present one."""
    event = Registry(store_of(store)).rollback(reason)
    out.print(f"version {event.live} is live again", soft_wrap=True)


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(metavar="[RUN|VERSION]", help="One of them; all by default.")] = None,
    store: StoreOption = None,
) -> None:
    """Check every file of runs and published versions against its sha256."""
    result = verify_store(store_of(store), name)
    for fault in result.faults:
        out.print(fault, soft_wrap=True)
    if result.faults:
        raise CorruptArtifact(f"{len(result.faults):,} of {result.files:,} checks failed: they are listed above")
    out.print(f"{result.files:,} files and documents are as they were written", soft_wrap=True)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go, and why.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove what nothing kept refers to, and is old enough (keep_versions, keep_days)."""
    settings = settings_of(store, None, [])
    there = store_of(store)
    count = size = 0
    for removal in removals(there, settings) if dry_run else collect(there, settings):
        out.print(f"{'would remove' if dry_run else 'removed'} {removal.path} ({removal.why})", soft_wrap=True)
        count, size = count + 1, size + removal.bytes
    out.print(f"{count} folders, {size:,} bytes; kept is {_kept(settings)}", soft_wrap=True)


def _kept(settings: Settings) -> str:
    before, days = settings.keep_versions, settings.keep_days
    return f"the live version, {before} before it, and whatever is younger than {days:g} days"


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
    from pipeline.execution import predict

    with TemporaryDirectory(prefix="tagger-predict-") as scratch:
        Registry(store_of(store)).fetch(version, Path(scratch))
        if source and target:
            text, limit = column or settings.text_column, settings.max_source_bytes
            done = predict.tag_file(Path(scratch), source, target, text, limit)
            aside = f", {done.rejected:,} rows set aside" if done.rejected else ""
            err.print(f"{done.posts:,} posts tagged into {target}{aside}", soft_wrap=True)
        else:
            for answer in predict.tag_texts(Path(scratch), texts or []):
                print_json(answer, indent=None)
