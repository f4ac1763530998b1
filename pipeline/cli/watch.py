"""The command `watch`."""

from typing import Annotated

import typer

from pipeline.cli.app import JsonOption, StoreOption, print_json, say, settings_of, track
from pipeline.errors import GateNotPassed
from pipeline.sources.source import Source
from pipeline.store.objects import Store


def watch(
    source: Annotated[
        str | None,
        typer.Option(help="Where newly tagged posts are; by default the setting watch_source, or else source."),
    ] = None,
    store: StoreOption = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a setting, such as tag_column; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the live model about newly tagged posts, and note its accuracy.

    The exit status is 3 if the accuracy is too low, 2 if the source cannot be used: retrain only after status 3, as
    `tagger watch; test $? -ne 3 || tagger run` does.
    """
    from pipeline.scoring.watch import NOTHING_NEW  # imports TensorFlow
    from pipeline.scoring.watch import watch as observe

    settings, deployment = settings_of(store, source, pairs or [])
    place = source or deployment.watch_source or settings.source
    seen = observe(Store(deployment.store).require(), Source.parse(place), settings, deployment, track())
    if seen is None:
        say(NOTHING_NEW)
        return
    if as_json:
        print_json([seen.to_dict()])
    else:
        for line in (*seen.lines(), *(f"warning: {warning}" for warning in seen.warnings)):
            say(line)
    if seen.decline:
        raise GateNotPassed(seen.decline)
