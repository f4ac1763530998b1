"""The card of a published version: which run made it, where its files are, and its scores."""

from typing import Annotated, Any, Self

from pydantic import Field

from pipeline.store.documents import Document
from pipeline.store.names import Files, Name, RelativePath

MODEL = "stackoverflow_tagger"


class Card(Document):
    """A published version: the run and checkpoint (sha256) it comes from, the folder of its files, and its scores.

    `data` is the time of its run, which stands for the age of its training posts; `synthetic` says that these were
    generated; `path` is a folder of the store; `warnings` are those that it was published with.
    """

    WHAT = "card of a version"

    version: int
    run: Name
    data: str
    path: Annotated[RelativePath, Field(pattern=r"^runs(/[^/]+){3}$")]
    checkpoint: str
    accuracy: float
    macro_f1: float
    tags: int
    synthetic: bool
    published: str
    files: Files
    warnings: list[str] = Field(default_factory=list)

    @classmethod
    def upgraded(cls, document: dict[str, Any], found: int) -> dict[str, Any]:
        """Rename the field that format 1 called `invented`."""
        return {"synthetic" if name == "invented" else name: value for name, value in document.items()}

    @property
    def model(self) -> tuple[str, ...]:
        """What identifies a trained model: its checkpoint, and the digests of its vocabulary and labels."""
        assets = sorted((name, entry.sha256) for name, entry in self.files.items() if name.startswith("assets/"))
        return (self.checkpoint, *(digest for _, digest in assets))

    def is_newer_than(self, candidate: Self) -> bool:
        """Whether its data is newer than the candidate's; synthetic posts are never newer than real ones."""
        return self.data > candidate.data and (candidate.synthetic or not self.synthetic)
