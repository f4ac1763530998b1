"""The errors that users see. Each is one sentence that says what is wrong, where, and what to do.

TaggerError                exit 1, a retry cannot help
├── BadInput               exit 2: settings, source or usage
│   └── SourceRefused      exit 2: the rules for sources refuse the source
├── GateNotPassed          exit 3: the candidate is not good enough to be published
├── StageOutOfOrder        exit 2: an earlier stage of the run is missing or was made again since
├── TrainingFailed         exit 1: the loss is not a number, or training made no step
├── ExportRefused          exit 1: the exported model answers differently from the trained one
├── Forbidden              exit 1: the store refuses; a permission or a setting must change first
├── CorruptArtifact        exit 1: a stored file is missing or was changed
│   └── NewerFormat        exit 1: a stored document was written by a newer version of the pipeline
└── Unavailable            exit 1, a retry may help: a disk, a network or the store failed
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def escape_control(text: str) -> str:
    r"""Escape unprintable characters, as \x1b, because they could control a terminal or forge a line of a log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TaggerError(Exception):
    """Base class: `str(error)` is the sentence, on one line, and `exit_status` is the exit status of `tagger`.

    `evidence` are the figures that led to a refusal, as in a stage's summary.
    """

    exit_status = 1

    def __init__(self, sentence: str, evidence: dict[str, Any] | None = None) -> None:
        super().__init__(escape_control(sentence))
        self.evidence = evidence or {}


class BadInput(TaggerError):
    """A setting, a source or a command line cannot be used."""

    exit_status = 2


class SourceRefused(BadInput):
    """The rules for sources refuse a source. `without_source` is the sentence without it, for it may hold a secret."""

    def __init__(self, sentence: str, without_source: str) -> None:
        super().__init__(sentence)
        self.without_source = escape_control(without_source)


class GateNotPassed(TaggerError):
    """The candidate is not published. `evidence` is the stage's summary; unless empty, the stage's files are kept."""

    exit_status = 3


class StageOutOfOrder(TaggerError):
    """A stage that this one needs has not been run, or was run again since."""

    exit_status = 2


class TrainingFailed(TaggerError):
    """Training ended without a usable model."""


class ExportRefused(TaggerError):
    """The exported model's answers differ from the trained model's."""


class Forbidden(TaggerError):
    """The store refuses the operation; a retry cannot help, but another permission or setting can."""


class CorruptArtifact(TaggerError):
    """A file in the store is missing, or has other bytes than were written."""


class NewerFormat(CorruptArtifact):
    """A stored document has a format that only a newer version of the pipeline can read."""


class Unavailable(TaggerError):
    """A disk, a network or the store failed; the same call may succeed later.

    `then` ends the sentence: what to do once it works again. Whoever knows what was begun may replace it.
    """

    def __init__(self, sentence: str, then: str = "") -> None:
        super().__init__(sentence)
        self.then = then

    def __str__(self) -> str:
        return f"{super().__str__()}, then {self.then}" if self.then else super().__str__()


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Raise BadInput, which says how to get it, where a package of an extra that is imported within is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # which Python Google will support next year
            yield
    except ImportError as error:
        raise BadInput(
            f"{purpose}, a package is missing ({error}): install it with pip install 'stackoverflow-tagger[{extra}]'"
        ) from error
