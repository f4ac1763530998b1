"""A published version's card: what it is, where it comes from, and what it scored."""

from dataclasses import dataclass, field
from typing import Any, Self

from pipeline.files import FileEntry

MODEL = "stackoverflow_tagger"


@dataclass(frozen=True)
class Card:
    """A version: where its files are kept (`path`), the run and checkpoint (sha256) it comes from, what it scored.

    `data` is the time of the run, and so of the posts it was trained on; `invented` says that no person wrote them;
    `warnings` are the reservations with which it was published.
    """

    version: int
    run: str
    data: str
    path: str
    checkpoint: str
    accuracy: float
    macro_f1: float
    tags: int
    invented: bool
    published: str
    files: dict[str, FileEntry]
    warnings: list[str] = field(default_factory=list)

    @property
    def model(self) -> tuple[str, ...]:
        """What tells one trained model from another: its checkpoint, and the words and tags that it names."""
        assets = sorted((name, entry.sha256) for name, entry in self.files.items() if name.startswith("assets/"))
        return (self.checkpoint, *(digest for _, digest in assets))

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The card that `asdict` made the document from."""
        return cls(**document | {"files": {name: FileEntry(**entry) for name, entry in document["files"].items()}})
