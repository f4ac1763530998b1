"""The commands that concern tunings: `tune` and `tunings`."""

import shlex
from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline.cli.app import (
    JsonOption,
    SetOption,
    SourceOption,
    StoreOption,
    all_settings_of,
    command,
    number,
    print_json,
    print_table,
    say,
    say_aside,
    store_of,
    track,
)
from pipeline.errors import BadInput
from pipeline.settings import Settings
from pipeline.settings.tuning import OF_WINNER
from pipeline.store.objects import Store
from pipeline.store.runs import TUNINGS
from pipeline.tuning.documents import Result, Trial
from pipeline.tuning.winner import result_of, results


def tune(
    name: Annotated[
        str | None,
        typer.Argument(metavar="TUNING", help="Name of the tuning; that of an interrupted one continues it."),
    ] = None,
    source: SourceOption = None,
    store: StoreOption = None,
    pairs: SetOption = None,
) -> None:
    """Search settings that tag more posts correctly, by trials on a part of the train posts."""
    from pipeline.tuning.tuning import TuningRun, asked_of

    settings, deployment, options = all_settings_of(store, source, pairs or [])
    now = datetime.now(UTC)
    there = Store(deployment.store)
    tuning = TuningRun(there, name or f"{now:%Y%m%dT%H%M%SZ}")
    with tuning.held() as still_held:
        say_aside(f"tuning {tuning.name}")
        asked = tuning.begin(asked_of(tuning.name, settings, options, deployment, now), track())
        for trial in range(len(asked.references) + options.trials):
            if tuning.spent(asked):
                say_aside(f"  budget_minutes={options.budget_minutes:g} are over: no further trial is begun")
                break
            still_held()
            done = tuning.do_trial(asked, trial, track())
            say_aside(f"  {_line(done, list(options.search_space))}")
        result = tuning.finish(asked)
    _print_result(result)
    given = {"--source": source, "--store": store}
    options_given = "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)
    sets = "".join(f" --set {shlex.quote(pair)}" for pair in pairs or [] if _is_of_run(pair))
    say(f"train it   {command()} run{options_given}{sets} --set tuned={result.tuning}")


def _is_of_run(pair: str) -> bool:
    """Whether `name=value` is a setting of a run that a winner does not replace."""
    name = pair.partition("=")[0].strip()
    return name in Settings.model_fields and name not in (*OF_WINNER, "tuned")


def _line(trial: Trial, searched: list[str]) -> str:
    """A trial on one line: its number, accuracy and time, and what was tried."""
    accuracy = number(trial.accuracy) or trial.state
    return f"{trial.number:>3}  {accuracy:<8} {trial.seconds:6.1f} s  {_what(trial, searched)}"


def _what(trial: Trial, searched: list[str]) -> str:
    """What was tried: where it comes from, or the settings."""
    return trial.origin if trial.origin != "search" else trial.text(searched)


def _print_result(result: Result) -> None:
    best = result.best
    say(f"winner     trial {best.number}: {best.text(result.searched)}")
    say(f"accuracy   {best.accuracy:.4f} on {result.validation_posts:,} validation posts, in epoch {best.best_epoch}")
    for origin, other in result.against.items():
        if other.trial == best.number:
            say(f"against    the {origin}: these are the winner")
            continue
        chance = "more than chance" if other.more_than_chance else "may be chance"
        say(f"against    the {origin}, {other.accuracy:.4f}: {other.difference:+.4f} (p = {other.p_value:g}, {chance})")


def tunings(
    name: Annotated[str | None, typer.Argument(metavar="TUNING", help="Name of a tuning, to see its trials.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tunings, newest first, or show one with its trials."""
    there = store_of(store).require()
    if name is None:
        found = sorted(results(there), key=lambda result: result.finished, reverse=True)
        if as_json:
            print_json([result.to_dict() for result in found])
            return
        listed = [
            (
                each.tuning,
                f"{each.finished:%Y-%m-%d %H:%M}",
                str(len(each.trials)),
                number(each.best.accuracy),
                each.best.text(each.searched),
            )
            for each in found
        ]
        print_table(("tuning", "finished", "trials", "accuracy", "winner"), listed)
        return
    result = result_of(there, name)
    if result is None:
        raise BadInput(f"{there.display_path(TUNINGS)} has no finished tuning {name!r}: `tagger tunings` lists them")
    if as_json:
        print_json(result.to_dict())
        return
    _print_result(result)
    rows = [
        (
            str(each.number),
            number(each.accuracy),
            each.state,
            str(len(each.curve)),
            f"{each.seconds:.1f}",
            _what(each, result.searched),
        )
        for each in sorted(result.trials, key=lambda trial: (-(trial.accuracy or 0.0), trial.number))
    ]
    print_table(("trial", "accuracy", "", "epochs", "seconds", "settings"), rows)
