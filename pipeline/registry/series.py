"""The series of what was observed of live models: their accuracy on newly tagged posts, and a shadow's agreement."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from pipeline.registry.card import MODEL
from pipeline.store.append_log import AppendLog
from pipeline.store.documents import Document
from pipeline.store.objects import Store

Kind = TypeVar("Kind", "Observation", "Agreement")
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

    Left out are the posts that the live version's run had (`known`), `copies` of another post, those without one of
    keep_tags (`not_kept`), and those whose tags it does not know (`unknown_tags`; older observations counted them as
    wrong answers). `published` is the accuracy with which it was published, and `limit` the accuracy below which it is
    to be replaced: `below` says that the whole interval is, and that no figure of `drift`, see pipeline.checks.drift,
    says that the posts are too different to
    tell. `called` says that this observation asks for a retraining.
    """

    WHAT = "observation"

    kind: Literal["posts"] = "posts"
    number: int
    at: str
    source: str
    posts: int
    known: int
    copies: int = 0
    not_kept: int = 0
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

    def lines(self) -> list[str]:
        """What was observed, for a person; the warnings and the decline are apart."""
        scored = [(self.live, "live"), *([(self.before, "live before")] if self.before else [])]
        lines = [
            f"version {score.version}, {which}: accuracy {score.accuracy:.4f} on {self.posts:,} new posts "
            f"(95 % interval {score.low:.4f} to {score.high:.4f})"
            for score, which in scored
        ]
        lines.append(f"worst tags: {', '.join(f'{tag} {of.accuracy:.2f}' for tag, of in self.worst())}")
        left_out = {
            "that the live version's run had": self.known,
            "that copy another": self.copies,
            "without one of keep_tags": self.not_kept,
            "with unknown tags": self.unknown_tags,
            "rejected": self.rejected,
        }
        if any(left_out.values()):
            lines.append(f"left out: {', '.join(f'{n:,} {which}' for which, n in left_out.items() if n)}")
        return lines

    @property
    def decline(self) -> str | None:
        """The sentence that says that the live version must be replaced; None if it need not be."""
        if not self.below:
            return None
        return (
            f"the accuracy of version {self.live.version} fell from {self.published:.4f} to {self.live.accuracy:.4f}, "
            f"below {self.limit:.4f} (watch_drop): train a new one, with `tagger run` or in Airflow"
        )

    @property
    def why_not_called(self) -> str:
        """Why the observation asks for no retraining; empty where it asks for one."""
        if self.called:
            return ""
        if self.below:
            return "a retraining was started before"
        if self.live.high < self.limit:
            return "the posts are too different from those that it learned to say that it has declined"
        return f"it is not below {self.limit:.4f}"


class Agreement(Document):
    """How many of the `posts` that were asked of the live version the version `shadow` tagged the same."""

    WHAT = "agreement of a shadow version"

    kind: Literal["shadow"] = "shadow"
    number: int
    at: str
    live: int
    shadow: int
    posts: int
    same: int
    previous: str = ""


Entry = Observation | Agreement


class Series:
    """What was observed of one store's live versions, oldest first; an entry is added and never changed."""

    def __init__(self, store: Store) -> None:
        self.store, self.log = store, AppendLog(store, SERIES)

    def entries(self) -> list[Entry]:
        """Everything that was observed, oldest first."""
        return [self._parsed(entry) for entry in self.log.entries()]

    def observations(self) -> list[Observation]:
        """The observations on newly tagged posts, oldest first."""
        return [entry for entry in self.entries() if isinstance(entry, Observation)]

    def agreements(self) -> list[Agreement]:
        """What shadow versions answered, oldest first."""
        return [entry for entry in self.entries() if isinstance(entry, Agreement)]

    def append(self, make: Callable[[int, str, list[Entry]], Kind]) -> Kind:
        """Add what `make` makes of the next number, the time, and the entries so far."""
        while True:
            so_far = self.entries()
            number = so_far[-1].number + 1 if so_far else 1
            made = make(number, datetime.now(UTC).isoformat(timespec="seconds"), so_far)
            if entry := self.log.append(number, made.to_dict()):
                return type(made).parse(entry, self.store.display_path(SERIES))

    def _parsed(self, entry: dict[str, Any]) -> Entry:
        kind = Agreement if entry.get("kind") == "shadow" else Observation
        return kind.parse(entry, f"an entry of {self.store.display_path(SERIES)}")
