"""The commands that concern models and the store: `predict`, `models`, `promote`, `rollback`, `verify` and `gc`."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import (
    JsonOption,
    StoreOption,
    command,
    number,
    print_json,
    print_table,
    run_name,
    say,
    say_aside,
    settings_of,
    store_of,
    track,
)
from pipeline.errors import BadInput, CorruptArtifact, escape_control
from pipeline.registry import model_cache
from pipeline.registry.events import Event, user
from pipeline.registry.registry import Registry
from pipeline.settings import Deployment, read
from pipeline.sources.source import Source
from pipeline.stages.plan import LAST
from pipeline.store.runs import Run
from pipeline.upkeep.gc import collect, removals
from pipeline.upkeep.sign import sign_store
from pipeline.upkeep.verify import verify as verify_store

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is stored permanently in the log.")]


def models(
    store: StoreOption = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="Show only the version that was live at this time, such as 2026-11-01T12:00Z."
        ),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="List every publication, promotion and rollback instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the published versions, newest first, and which one is live."""
    registry = Registry(store_of(store).require())
    _warn_of_clock(registry)
    if log:
        _print_log(registry.events(), as_json)
        return
    cards, live = registry.cards(), registry.live(None if at is None else _time(at))
    if at is not None:
        cards = [card for card in cards if card.version == live]
        if not cards:
            raise BadInput(f"no version was live at {at}: `tagger models --log` lists when each one went live")
    if as_json:
        print_json([{"live": card.version == live} | card.to_dict() for card in cards])
        return
    gone = registry.collected_versions()
    rows = [
        (
            str(c.version),
            "live" if c.version == live else "collected" if c.version in gone else "",
            number(c.accuracy),
            number(c.macro_f1),
            c.published[:19] + "Z",
            str(len(c.warnings) or ""),
            c.run,
        )
        for c in cards
    ]
    print_table(("version", "", "accuracy", "macro F1", "published", "warnings", "run"), rows)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--at {text!r} is not a time: write it as 2026-11-01T12:00Z") from None
    # The log shows whole seconds, so a time copied from it includes all that happened in that second.
    time = time if "." in text else time.replace(microsecond=999_999)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _print_log(events: list[Event], as_json: bool) -> None:
    if as_json:
        print_json([event.to_dict() for event in events])
        return
    rows = [(e.at[:19] + "Z", e.action, str(e.version), str(e.live), e.by, e.reason) for e in events]
    print_table(("at", "action", "version", "live after it", "by", "reason"), rows)


def promote(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A published version; `tagger models` lists them.")],
    reason: ReasonOption,
    store: StoreOption = None,
) -> None:
    """Make a published version the live one."""
    registry = Registry(store_of(store))
    event = registry.promote(version, reason)
    _print_live(registry, event, f"version {event.live} is live")


def _print_live(registry: Registry, event: Event, said: str) -> None:
    """Print that the event made a version live, and which one another person made live since, if one did."""
    last = registry.events()[-1]
    if last.live == event.live:
        say(said)
        return
    followed = f"version {event.live} went live, and version {last.live} since: {last.told}"
    say(escape_control(followed))


def _warn_of_clock(registry: Registry) -> None:
    if fault := registry.clock_fault():
        say_aside(f"warning: {fault}")


def approve(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run that was evaluated, by name or Airflow run id.")],
    reason: ReasonOption,
    evaluated: Annotated[
        str | None,
        typer.Option(metavar="RESULT", help="The result of evaluate that you saw, by the name in its report."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Approve the model of a run whose publication waits for a person; `tagger run --from export` then publishes it."""
    opened = store_of(store).require()
    run = Run(opened, run_name(opened, name))
    run.existing()
    run.approve(user(), reason, evaluated)
    say(f"approved: publish it with  {command()} run --run {run.name} --from {LAST}")


def rollback(
    reason: ReasonOption,
    bad: Annotated[
        int | None,
        typer.Option("--from", metavar="VERSION", help="The version to take down; nothing is done if it is not live."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Make the version live again that was live before the current one."""
    registry = Registry(store_of(store))
    event = registry.rollback(reason, bad)
    _print_live(registry, event, f"version {event.live} is live again")


def verify(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RUN|VERSION", help="A run, by name or Airflow run id, or a version; all by default."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Check that every file in the store is there, and as it was written."""
    there = store_of(store).require()
    result = verify_store(there, run_name(there, name) if name else None, track())
    with suppress(CorruptArtifact):  # it is one of the faults
        _warn_of_clock(Registry(there))
    for fault in result.faults:
        say(fault)
    if result.faults:
        raise CorruptArtifact(f"{len(result.faults):,} of {result.files:,} checks failed: see the list above")
    say(f"{result.files:,} files and documents are unchanged since they were written")


def sign(store: StoreOption = None) -> None:
    """Sign everything in the store with TAGGER_SIGNING_KEY: after the first key was made, or with a new one.

    Run `tagger verify` before: what is signed counts as right from then on.
    """
    documents, versions = sign_store(store_of(store).require(), track())
    say(f"signed {documents:,} documents and {versions:,} versions")


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed, and why.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove old runs and versions from the store.

    The settings keep_versions and keep_days decide what is kept.
    """
    _, deployment = settings_of(store, None, [])
    there = store_of(store).require()
    from pipeline.store.feedback import forget_older  # imports Arrow

    count = size = 0
    for removal in removals(there, deployment) if dry_run else collect(there, deployment):
        say(f"{'would remove' if dry_run else 'removed'} {removal.path} ({removal.why})")
        count, size = count + 1, size + removal.bytes
    say(f"{count} folders, {size:,} bytes. Kept: {_kept(deployment)}")
    if not dry_run and (forgotten := forget_older(there, deployment.keep_feedback_days)):
        say(f"{forgotten:,} recorded posts older than {deployment.keep_feedback_days:g} days")


def forget(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="An id that `tagger serve` gave in Tagger-Id.")],
    store: StoreOption = None,
) -> None:
    """Remove recorded posts by their ids, as people may ask for.

    Runs that have learned from them keep a copy until `tagger gc` removes the run.
    """
    from pipeline.store.feedback import forget as forget_posts  # imports Arrow

    say(f"removed {forget_posts(store_of(store).require(), ids):,} rows")


def _kept(deployment: Deployment) -> str:
    before, days = deployment.keep_versions, deployment.keep_days
    return f"the live version, the last {before} live before it, their runs, and everything of the last {days:g} days"


def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts to tag; the answers are JSON lines.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="The published version to use; the live one by default.")] = None,
    source: Annotated[
        str | None, typer.Option("--input", help="Tag every post of this file or URL instead of TEXT.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--output", help="Parquet file to write the tags of --input to.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option("--text-column", help="Column of --input with the text; by default the setting text_column."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Predict the tags of texts, or of all posts of a file, with a published model."""
    if bool(texts) == bool(source) or bool(source) != bool(target):
        raise BadInput("give either texts, or both --input FILE and --output FILE: see `tagger predict --help`")
    settings, deployment = read(os.environ)
    from pipeline.scoring import predict

    with model_cache.opened(Registry(store_of(store)), version) as model:
        if source and target:
            text, limit = column or settings.text_column, deployment.max_source_bytes
            done = predict.tag_file(model, Source.parse(source), target, text, limit, track())
            rejected = f", {done.rejected:,} rows rejected" if done.rejected else ""
            say_aside(f"{done.posts:,} posts tagged, written to {target}{rejected}")
        else:
            for answer in predict.tag_texts(model, texts or []):
                print_json(answer, indent=None)
