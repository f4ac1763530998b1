"""The small documents of a run: saved work, why it was refused or approved, and what it published."""

from datetime import datetime
from typing import Any

from pydantic import Field

from pipeline.store.documents import Document
from pipeline.store.names import Files, RelativePath

REFUSED, APPROVED, PUBLISHED = "refused.json", "approved.json", "published.json"
"""The names of three of them in the folder of their run."""


class Saved(Document):
    """A saved piece of a stage's unfinished work: its folder, its files, and the digests of its inputs.

    Of a report `refused` is the stage that had refused the run when it was made; empty if none had.
    """

    WHAT = "piece of unfinished work"

    path: RelativePath
    files: Files
    inputs: dict[str, str]
    refused: str = ""


class Refusal(Document):
    """Why a stage refused the run, in a sentence, when, and the figures that led to it, as in the stage's summary."""

    WHAT = "refusal"

    stage: str
    why: str
    at: datetime
    evidence: dict[str, Any] = Field(default_factory=dict)


class Approval(Document):
    """Who approved the model of a run, why and when; `evaluated` is the attempt of evaluate that was approved."""

    WHAT = "approval"

    by: str
    why: str
    at: datetime
    evaluated: str


class Publication(Document):
    """The version that a run's model has, None if it was not to be published, and when export said so."""

    WHAT = "note of a publication"

    version: int | None
    at: datetime
