"""The small documents of a run: unfinished work that was saved, and why it was refused or approved."""

from datetime import datetime

from pipeline.files import FileEntry
from pipeline.store.documents import Document


class Saved(Document):
    """A saved piece of a stage's unfinished work: its folder, its files, and the digests of its inputs."""

    WHAT = "piece of unfinished work"

    path: str
    files: dict[str, FileEntry]
    inputs: dict[str, str]


class Refusal(Document):
    """Why a stage refused the run, in a sentence, and when."""

    WHAT = "refusal"

    stage: str
    why: str
    at: datetime


class Approval(Document):
    """Who approved the model of a run, why and when; `evaluated` is the attempt of evaluate that was approved."""

    WHAT = "approval"

    by: str
    why: str
    at: datetime
    evaluated: str
