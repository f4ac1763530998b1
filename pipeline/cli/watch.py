"""The command `watch`."""

from typing import Annotated

import typer

from pipeline.cli.app import JsonOption, StoreOption, out, print_json, settings_of, track
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

    The exit status is 3 if the accuracy is too low, so that `tagger watch || tagger run` retrains when it is needed.
    """
    from pipeline.execution.watch import watch as observe  # imports TensorFlow

    settings, deployment = settings_of(store, source, pairs or [])
    place = source or deployment.watch_source or settings.source
    seen = observe(Store(deployment.store).require(), Source.parse(place), settings, deployment, track())
    if seen is None:
        out.print("nothing new: the live version's run had every post", soft_wrap=True)
        return
    if as_json:
        print_json([seen.to_dict()])
    else:
        for score, which in ((seen.live, "live"), (seen.before, "live before")):
            if score:
                out.print(
                    f"version {score.version}, {which}: accuracy {score.accuracy:.4f} on {seen.posts:,} new posts "
                    f"(95 % interval {score.low:.4f} to {score.high:.4f})",
                    soft_wrap=True,
                )
        worst = ", ".join(f"{tag} {of.accuracy:.2f}" for tag, of in seen.worst())
        out.print(f"worst tags: {worst}", soft_wrap=True)
        for warning in seen.warnings:
            out.print(f"warning: {warning}", soft_wrap=True)
    if seen.below:
        raise GateNotPassed(
            f"the accuracy of version {seen.live.version} fell from {seen.published:.4f} to {seen.live.accuracy:.4f}, "
            f"below {seen.limit:.4f} (watch_drop): train a new one with `tagger run`"
        )
