"""The registry's log of events: one entry for each change of the live version, and what can be computed from them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile

from pipeline.registry.card import Card
from pipeline.store.documents import Document

PUBLISH, PROMOTE, ROLLBACK = "publish", "promote", "rollback"


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


def model_digest(card: Card) -> str:
    """sha256 of what identifies a model (Card.model), the same for every version made of it."""
    return hashlib.sha256(json.dumps(card.model).encode()).hexdigest()


def live_at(events: Iterable[Event], at: datetime | None = None) -> int | None:
    """The version that was live at a time (None: after the last event); None if there was none."""
    passed = [event for event in events if at is None or datetime.fromisoformat(event.at) <= at]
    return passed[-1].live if passed else None


def live_before(events: Iterable[Event], version: int) -> int | None:
    """The version that was live before the first event about `version`; None if there was none."""
    return live_at(takewhile(lambda event: event.version != version, events))


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
