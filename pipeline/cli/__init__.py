"""The command line `tagger`: runs the stages without Airflow, and shows and manages runs and models."""

import re
import sys
import traceback
from collections.abc import Callable

from typer.exceptions import TyperException

from pipeline.cli import models, run, runs, serve, settings, tunings, vertex, watch
from pipeline.cli.app import app, say_aside
from pipeline.errors import TaggerError, Unavailable

__all__ = ["app", "main", "models", "run", "runs", "serve", "settings", "tunings", "vertex", "watch"]

DEBUG = "--debug"

COMMANDS: dict[Callable[..., None], str] = {
    run.run: "Example: tagger run --source posts.csv --set epochs=3",
    runs.show: "Example: tagger show manual__2026-11-01T12:00:00+00:00",
    runs.report: "Example: tagger report --open",
    runs.runs: "",
    runs.compare: "Example: tagger compare monday friday --output compared.html",
    settings.settings: "Example: TAGGER_EPOCHS=3 tagger settings",
    tunings.tune: "Example: tagger tune november --source posts.csv --set trials=30",
    tunings.tunings: "Example: tagger tunings november",
    models.predict: "Examples: tagger predict 'How do I center a div with css?'\n\n"
    "tagger predict --input posts.csv --output tags.parquet",
    serve.serve: "Example: tagger serve --port 8501",
    watch.watch: "Example: tagger watch --source new-posts.csv; test $? -ne 3 || tagger run",
    vertex.upload: "Example: tagger upload --project my-project --location europe-west4 --store gs://bucket/tagger",
    models.models: "Example: tagger models --at 2026-11-01T12:00Z",
    models.promote: "Example: tagger promote 20261122082527 --reason 'fewer wrong tags'",
    models.approve: "Example: tagger approve monday --reason 'the new tags are right'",
    models.rollback: "Example: tagger rollback --reason 'tags c as c++'",
    models.verify: "Example: tagger verify 20261122082527",
    models.sign: "Example: TAGGER_SIGNING_KEY=tagger.pem tagger sign",
    models.forget: "Example: tagger forget 0f3c4e...-17",
    models.gc: "Example: tagger gc --dry-run",
}
"""The commands with the last lines of their help, in the order in which a new user needs them."""

for _command, _example in COMMANDS.items():
    app.command(epilog=_example or None)(_command)


AGAIN = {
    "promote": "give `tagger promote` again, which completes what is missing",
    "rollback": "give `tagger rollback` again, which goes back no further than this one",
    "tune": "give `tagger tune` again with the name of the tuning, which goes on where it stopped",
    "forget": "give `tagger forget` again with the same ids",
    "gc": "give `tagger gc` again, which goes on where it stopped",
}
"""What to do after a failure of the store, for the commands of which more is to be said than to give them again."""


def main() -> None:
    """Run the command line."""
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    run_and_exit(lambda: app(arguments, prog_name="tagger", standalone_mode=False))


def run_and_exit(program: Callable[[], int | None]) -> None:
    """Run a program to its end; every error becomes one sentence on standard error and an exit status."""
    debug = DEBUG in sys.argv
    try:
        status = program()
    except Unavailable as error:
        if error.then:
            error.then = _again(error.then)
        _fail(str(error), error.exit_status, debug)
    except TaggerError as error:
        _fail(str(error), error.exit_status, debug)
    except TyperException as error:
        _fail(_usage_sentence(error), error.exit_code, debug)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        _fail(f"unexpected error: {what} (run it again with {DEBUG} to see where)", 1, debug)
    sys.exit(status)


def _again(stage: str) -> str:
    """What to do once the store works again: to give the same command again, or to run the `stage` of a run again."""
    names = {command.__name__: command for command in COMMANDS}
    name = next((argument for argument in sys.argv[1:] if argument in names), run.run.__name__)
    return stage if name == run.run.__name__ else AGAIN.get(name, f"give `tagger {name}` again")


def _usage_sentence(error: TyperException) -> str:
    """Turn a usage error into one sentence that says what to do; empty where the help has been printed already."""
    message = error.format_message().rstrip(".")
    message = re.sub(r" \(Possible options: (.*)\)$", r": did you mean \1?", message)
    message = re.sub(r"\. Did you mean ", ": did you mean ", message)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "tagger"
    message = message.replace(": Input should ", ": input should ")
    sentence = message[:1].lower() + message[1:]
    return sentence if not sentence or sentence.endswith("?") else f"{sentence}: see `{command} --help`"


def _fail(sentence: str, status: int, debug: bool) -> None:
    if debug:
        for line in traceback.format_exc().splitlines():
            say_aside(line)
    if sentence:
        say_aside(f"tagger: {sentence}")
    sys.exit(status)
