"""The series of what was observed of live models: their accuracy on newly tagged posts, and a shadow's agreement."""

from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from pipeline.registry.card import MODEL
from pipeline.store.append_log import AppendLog
from pipeline.store.documents import Document
from pipeline.store.objects import Store

SERIES = f"registry/{MODEL}/series"


class Score(BaseModel):
    """A version's accuracy on posts, with the limits of its 95 % confidence interval (Wilson's)."""

    version: int
    accuracy: float
    low: float
    high: float


class OfTag(BaseModel):
    """The posts of a tag, and the share of them to which the live model gave it."""

    posts: int
    accuracy: float


class Observation(Document):
    """What the live version `live` answered on `posts` newly tagged posts of `source`, and the one `before` it.

    `known` counts the posts that were left out because the live version's run had them; `published` is the accuracy
    with which it was published, and `limit` the accuracy below which it is to be replaced: `below` says that the whole
    interval is. `called` says that this observation asks for a retraining. `drift` has the figures of
    pipeline.checks.drift.
    """

    WHAT = "observation"

    number: int
    at: str
    source: str
    posts: int
    known: int
    rejected: int
    live: Score
    before: Score | None
    published: float
    limit: float
    below: bool
    called: bool
    by_tag: dict[str, OfTag]
    unknown_tags: int
    drift: dict[str, float] | None
    warnings: list[str] = Field(default_factory=list)
    previous: str = ""

    def worst(self, count: int = 5) -> list[tuple[str, OfTag]]:
        """The tags that the live version found least often."""
        return sorted(self.by_tag.items(), key=lambda pair: pair[1].accuracy)[:count]


class Series:
    """The observations of one store, oldest first; an entry is added and never changed."""

    def __init__(self, store: Store) -> None:
        self.store, self.log = store, AppendLog(store, SERIES)

    def observations(self) -> list[Observation]:
        """Every observation, oldest first."""
        return [
            Observation.parse(entry, f"an entry of {self.store.display_path(SERIES)}") for entry in self.log.entries()
        ]

    def append(self, make: Callable[[int, str, list[Observation]], Observation]) -> Observation:
        """Add what `make` makes of the next number, the time, and the observations so far."""
        while True:
            so_far = self.observations()
            number = so_far[-1].number + 1 if so_far else 1
            made = make(number, datetime.now(UTC).isoformat(timespec="seconds"), so_far)
            if entry := self.log.append(number, made.to_dict()):
                return Observation.parse(entry, self.store.display_path(SERIES))
