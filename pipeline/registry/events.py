"""The registry's log of events: one entry for each change of the live version, and what can be computed from them."""

import getpass
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile

from pipeline.errors import BadInput, escape_control
from pipeline.registry.card import Card
from pipeline.store.documents import Document

PUBLISH, PROMOTE, ROLLBACK = "publish", "promote", "rollback"

SKEW = timedelta(minutes=5)
"""How far apart the clocks of two machines may be before one of them counts as wrong."""


class Event(Document):
    """An entry of the log: the action on `version`, the version that is `live` after it, and by whom and why.

    For a publication that did not go live, `reason` says why the live version stayed. `model` identifies the version's
    model, as model_digest; the entries of older versions of the pipeline have none. `previous`
    is the digest of the entry before it.
    """

    WHAT = "entry of the log"

    number: int
    at: str
    action: str
    version: int
    live: int
    by: str
    reason: str
    model: str = ""
    previous: str = ""

    @property
    def time(self) -> datetime:
        """When it happened, by the clock of the machine that wrote it."""
        return datetime.fromisoformat(self.at)

    @property
    def told(self) -> str:
        """What happened, when, by whom and why, for a sentence about it."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.action} at {self.at[:16]} by {self.by}{why}"


def model_digest(card: Card) -> str:
    """sha256 of what identifies a model (Card.model), the same for every version made of it."""
    return hashlib.sha256(json.dumps(card.model).encode()).hexdigest()


def live_at(events: Sequence[Event], at: datetime | None = None, now: datetime | None = None) -> int | None:
    """The version that was live at a time (None: after the last event); None if there was none.

    An event that is earlier than the one before it, by the clock of its machine, counts as simultaneous. One from the
    future happened at some time before the next: BadInput if the answer depends on when.
    """
    now = now or datetime.now(UTC)
    if at is None or at >= now:
        return events[-1].live if events else None
    live, unsure = None, None
    for event in events:
        if event.time > now + SKEW:
            unsure = event
            continue
        if event.time > at:
            break
        live, unsure = event.live, None
    if unsure:
        raise BadInput(
            f"which version was live then is not known: entry {unsure.number} of the log, of version {unsure.version}, "
            f"has the time {unsure.at[:16]}, which is to come, so it may have been before or after; `tagger models "
            "--log` lists the entries in their order"
        )
    return live


def clock_fault(events: Sequence[Event], now: datetime) -> str | None:
    """A sentence that says that the last event is from the future, and what to do; None if it is not."""
    last = events[-1] if events else None
    if last is None or last.time <= now + SKEW:
        return None
    return (
        f"entry {last.number} of the log, its last, has the time {last.at[:16]}, which is to come, so a clock is "
        f"wrong: if it is this machine's ({now:%Y-%m-%dT%H:%M}), set it right; else that of whoever wrote it, "
        f"then `tagger promote {last.live} --reason 'the clock was wrong'`, from which on the times are right again"
    )


def moved_on(events: Sequence[Event], version: int | None) -> str:
    """A sentence for whoever would take down a version that is not live any more."""
    changes = [after for before, after in pairwise(events) if before.live == version != after.live]
    how = f" since the {changes[-1].told}" if changes else ""
    return (
        f"nothing was changed: version {version} is not live, version {events[-1].live} is{how}; to go back from that "
        "one, run the command again"
    )


def checked_reason(reason: str) -> str:
    """The reason as one line of visible characters; BadInput if there is none."""
    if not reason.strip():
        raise BadInput("a change of the live version is logged with its reason: give one with --reason")
    return escape_control(reason.strip())


def user() -> str:
    """The name of the person who uses this process, for the log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have a number and no name
        return f"user {os.getuid()}"


def live_before(events: Iterable[Event], version: int) -> int | None:
    """The version that was live before the first event about `version`; None if there was none."""
    return live_at(list(takewhile(lambda event: event.version != version, events)))


def publication(events: Iterable[Event], version: int) -> Event | None:
    """The event that published the version, or None."""
    return next((event for event in events if (event.action, event.version) == (PUBLISH, version)), None)


def live_history(events: Iterable[Event]) -> list[int]:
    """The versions that were live and have not been rolled back, oldest first; the last one is live now."""
    history: list[int] = []
    for event in events:
        if event.action == ROLLBACK and event.live in history:
            while history[-1] != event.live:
                history.pop()
        elif not history or history[-1] != event.live:
            history.append(event.live)
    return history


def taken_down(events: Iterable[Event]) -> dict[int, Event]:
    """Each version that a person replaced by hand and that has not been live since, with the event that replaced it."""
    down: dict[int, Event] = {}
    live = None
    for event in events:
        if live not in {None, event.live} and event.action in {PROMOTE, ROLLBACK}:
            down[live] = event
        live = event.live
        down.pop(live, None)
    return down


def versions_of(events: Sequence[Event]) -> list[int]:
    """Every version that the log names, newest first."""
    return sorted({event.version for event in events}, reverse=True)
