"""The command `run`."""

import os
import shlex
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline.cli.app import (
    SetOption,
    SourceOption,
    StoreOption,
    command,
    run_name,
    say,
    say_aside,
    settings_of,
    track,
)
from pipeline.errors import BadInput
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import path_of
from pipeline.report.runs import card_of, note
from pipeline.run.runner import run_stage
from pipeline.settings import Deployment, Settings, read
from pipeline.stages import accounting
from pipeline.stages.plan import FIRST, LAST, STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.tuning.winner import with_tuned

ORDER = ", ".join(STAGES)


def run(
    source: SourceOption = None,
    store: StoreOption = None,
    name: Annotated[
        str | None, typer.Option("--run", help="Name of the run, or its Airflow run id; a new name by default.")
    ] = None,
    pairs: SetOption = None,
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
    say_aside(f"run {this.name}")
    for stage in chosen:
        start = time.monotonic()
        summary = run_stage(stage, this, track())
        if "worker" in summary:
            say_aside(f"  {stage:<15}{'as ' + summary['worker']:>16} {time.monotonic() - start:7.1f} s")
            return
        took = f"{summary['rows']:>10,} posts {time.monotonic() - start:7.1f} s"
        say_aside(f"  {stage:<15}{took}  {note(this, this.manifest(stage))}".rstrip())
        if account := accounting.sentence(summary):
            say_aside(f"  {'':<15}{account}")
    if chosen[-1] == LAST:
        print_published(this)
    else:
        say(f"continue with  {command()} run --run {this.name} --from {_after(chosen[-1])}")


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


def _after(stage: str) -> str:
    names = list(STAGES)
    return names[names.index(stage) + 1]


def print_published(this: Run) -> None:
    """Print where the run's model is, its accuracy, and a command that uses it."""
    if not this.existing().settings.publish:
        if this.manifest(LAST):
            say("not published, because publish is false: what is live stays")
        return
    card = card_of(this, this.manifests())
    if card is None:
        return
    default = this.store.url == read(os.environ)[1].store
    store = "" if default else f" --store {shlex.quote(this.store.url)}"
    made, by = ("published", "") if card.run == this.name else ("unchanged", f", which run {card.run} published")
    say(f"{made}  version {card.version}{by}, accuracy {card.accuracy:.4f}")
    say(f"model      {this.store.display_path(path_of(card.version))}")
    live = Registry(this.store).live()
    if live != card.version:
        say(f"not live   version {live} is live: `{command()} models --log` shows since when and why")
    question = "How do I center a div with css?"
    say(f"ask it     {command()} predict{store} --version {card.version} '{question}'")
