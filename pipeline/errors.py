"""Every error a person is meant to read: one sentence that names the thing, the fault and the cure.

TaggerError                exit 1, trying again cannot help
├── BadInput               exit 2: settings, source or usage
├── GateNotPassed          exit 3: the candidate did not earn publication
├── StageOutOfOrder        exit 2: an earlier stage of the run is missing or was made anew since
├── TrainingFailed         exit 1: the loss is no number, or training did not advance
├── ExportRefused          exit 1: the exported model does not answer as the trained one
├── VersionTaken           exit 1: the version is published already from another checkpoint
├── Forbidden              exit 1: the store cannot be used so; trying again cannot help
├── CorruptArtifact        exit 1: a stored file is not the one its manifest describes
└── Unavailable            exit 1, trying again can help: a disk, a network, a store
"""

from typing import Any


def inert(text: str) -> str:
    r"""The text with characters that cannot be seen, and so could steer a terminal or forge a line, as \x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TaggerError(Exception):
    """The root: `str(error)` is the sentence, in one line, and `exit_status` what `tagger` ends with."""

    exit_status = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(inert(sentence))


class BadInput(TaggerError):
    """What was given cannot be used: a setting, a source, a command line."""

    exit_status = 2


class GateNotPassed(TaggerError):
    """The candidate stays unpublished. `evidence`, the stage's summary, is kept with its files where there is one."""

    exit_status = 3

    def __init__(self, sentence: str, evidence: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.evidence = evidence or {}


class StageOutOfOrder(TaggerError):
    """A stage was asked for before the stages it needs."""

    exit_status = 2


class TrainingFailed(TaggerError):
    """Training ended without a usable model."""


class ExportRefused(TaggerError):
    """The exported model's answers differ from the trained model's."""


class VersionTaken(TaggerError):
    """A version is published once, from one checkpoint."""


class Forbidden(TaggerError):
    """The store cannot be used so by this user; trying again cannot help, a permission or a setting can."""


class CorruptArtifact(TaggerError):
    """A file in the store has other bytes than were written."""


class Unavailable(TaggerError):
    """A disk, network or store did not answer; the same call may succeed later."""
