"""`tagger`: the same stages without Airflow, and a look at what they left."""

import sys
import traceback

from pipeline.cli import models, runs
from pipeline.cli.app import app, err
from pipeline.errors import TaggerError

__all__ = ["app", "main", "models", "runs"]


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
        for line in traceback.format_exc().splitlines():
            err.print(line, soft_wrap=True)
    err.print(f"tagger: {sentence}", soft_wrap=True)
    sys.exit(status)
