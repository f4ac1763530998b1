"""Published versions: a card for each, and a log of what was live when and why, which the watched folder follows."""

import getpass
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from pipeline.errors import BadInput, CorruptArtifact, Forbidden, StageOutOfOrder, VersionTaken, inert
from pipeline.registry.card import MODEL, Card
from pipeline.registry.serving_dir import Watched
from pipeline.store.objects import Store

CARDS = f"registry/{MODEL}/versions"
LOG = f"registry/{MODEL}/log"
LET_GO = f"registry/{MODEL}/let_go"

PUBLISH, PROMOTE, ROLLBACK = "publish", "promote", "rollback"

Decide = Callable[[list["Event"]], tuple[Card, int, str]]
"""Of the log so far: the card that the next event is about, the version that is live since, and why."""


@dataclass(frozen=True)
class Event:
    """An entry of the log: what was done to `version`, which version is `live` since, by whom, and why.

    For a publication that did not go live, `reason` says what it stood back for.
    """

    number: int
    at: str
    action: str
    version: int
    live: int
    by: str
    reason: str


class Registry:
    """The published versions of one store. What the log says is so; the watched folder is made to agree with it."""

    def __init__(self, store: Store) -> None:
        self.store, self.watched = store, Watched(store)
        self._read = dict[str, Event]()  # an entry of the log is never changed, so it is read once

    def card(self, version: int) -> Card | None:
        """The version's card, or None where there is none."""
        document = self.store.read(f"{CARDS}/{version}.json")
        return Card.of(document) if document else None

    def cards(self) -> list[Card]:
        """The card of every published version, newest version first."""
        return self._cards(self.events())

    def _cards(self, events: list[Event]) -> list[Card]:
        cards = [self.card(version) for version in sorted({event.version for event in events}, reverse=True)]
        return [card for card in cards if card]

    def events(self) -> list[Event]:
        """The whole log, oldest first."""
        names = [name for name in self.store.names(LOG) if name.endswith(".json")]
        for name in names:
            if name not in self._read and (document := self.store.read(f"{LOG}/{name}")):
                self._read[name] = Event(**document)
        return [self._read[name] for name in names if name in self._read]

    def live(self, at: datetime | None = None) -> int | None:
        """The version that is live, or was at a time; None where none was."""
        events = [event for event in self.events() if at is None or datetime.fromisoformat(event.at) <= at]
        return events[-1].live if events else None

    def live_before(self, version: int) -> int | None:
        """The version that was live until this one was published, or is where it was not: what it is measured by."""
        before = list(takewhile(lambda event: event.version != version, self.events()))
        return before[-1].live if before else None

    def publish(self, card: Card, *, beside: int | None, forced: str = "") -> Event:
        """Publish the version whose files are at card.path, and make it live.

        It is not made live where the live model's data is newer, unless a reason is given in `forced`. Done twice it is
        the same.

        Raises VersionTaken where the version is that of another checkpoint, and StageOutOfOrder where another version
        went live since it was compared with the one that was live then, `beside`.
        """

        def decide(events: list[Event]) -> tuple[Card, int, str]:
            champion = self._published(events[-1].live) if events else None
            self._refuse_outrun(card, champion, beside)
            if champion and not forced and _newer(champion, card):
                return card, champion.version, f"its data is newer than that of version {card.version}"
            return card, card.version, forced

        event = self._publication(card.version)
        if event is None:
            decide(self.events())
        if not self.store.create(f"{CARDS}/{card.version}.json", asdict(card)):
            self._take_card(card, published=event is not None)
        event = event or self._log(PUBLISH, decide, by=f"run {card.run}")
        self.reconcile()
        return event

    def _publication(self, version: int) -> Event | None:
        return next((event for event in self.events() if (event.action, event.version) == (PUBLISH, version)), None)

    def _take_card(self, card: Card, *, published: bool) -> None:
        """There is a card of the version: the same model's, left by this run or by a try of it that was cut off."""
        there = self.card(card.version)
        if there and there.checkpoint != card.checkpoint:
            raise VersionTaken(
                f"version {card.version} is published already, by run {there.run} from another checkpoint "
                f"({there.checkpoint[:12]}, this one is {card.checkpoint[:12]}): train under a new run to publish "
                "this model"
            )
        if not published:
            self.store.write(f"{CARDS}/{card.version}.json", asdict(card))

    def _refuse_outrun(self, card: Card, champion: Card | None, beside: int | None) -> None:
        """A verdict holds against the model it was reached against: not once another has gone live."""
        version = champion.version if champion else None
        if version == beside or (champion and champion.model == card.model):
            return
        raise StageOutOfOrder(
            f"version {version} went live since this run was compared with {beside or 'no model'}: run evaluate of run "
            f"{card.run} again, then export"
        )

    def taken_down(self, model: Card) -> tuple[Card, Event] | None:
        """The version of this very model that was taken down by hand, and the event; None where there is none."""
        for version, event in taken_down(self.events()).items():
            card = self.card(version)
            if card and card.model == model.model:
                return card, event
        return None

    def promote(self, version: int, reason: str) -> Event:
        """Make a published version live, by hand.

        Raises BadInput where there is no such version or no reason, CorruptArtifact where its files are not whole.
        """
        card, given = self._published(version), _given(reason)

        def decide(events: list[Event]) -> tuple[Card, int, str]:
            self._refuse_unservable(card)
            return card, version, given

        event = self._log(PROMOTE, decide, by=_user())
        self.reconcile()
        return event

    def rollback(self, reason: str) -> Event:
        """Make the version live that was live before the present one.

        Raises BadInput where there is none, or where an earlier rollback had been cut off and has been ended instead;
        CorruptArtifact where the version's files are not whole.
        """
        given = _given(reason)
        self._end_rollback()

        def decide(events: list[Event]) -> tuple[Card, int, str]:
            history = lives(events)
            if len(history) < 2:
                raise BadInput(
                    f"{self.store.shown(LOG)} knows no version to go back to: promote one with `tagger promote`"
                )
            card = self._published(history[-2])
            self._refuse_unservable(card)
            return card, card.version, given

        event = self._log(ROLLBACK, decide, by=_user())
        self.reconcile()
        return event

    def _end_rollback(self) -> None:
        """Whoever tries a rollback again that was cut off does not mean to go back twice."""
        last = next(reversed(self.events()), None)
        if last and last.action == ROLLBACK and self.disagreement():
            self.reconcile()
            raise BadInput(
                f"the rollback to version {last.live} of {last.at[:16]} had been cut off and has been ended just now: "
                f"version {last.live} is live; run the command again to go back further"
            )

    def _refuse_unservable(self, card: Card) -> None:
        gone = self.let_go(card.version)
        fault = gone or next(filter(None, self.store.faults(card.path, card.files)), None)
        if fault:
            raise CorruptArtifact(
                f"version {card.version} cannot go live: {fault}; what is live stays, promote another version"
            )

    def reconcile(self) -> None:
        """Make the watched folder agree with the log: the live version whole, and none above it that was withdrawn.

        So TensorFlow Serving's default policy, the latest version, serves the live one, also after a rollback.
        """
        events = self.events()
        while events:
            live = self._published(events[-1].live)
            if not self.watched.whole(live):
                self.watched.bring(live)
            for card in self._cards(events):
                if self.watched.astray(card, live):
                    self.watched.withdraw(card.version)
            seen, events = events, self.events()
            if len(events) == len(seen):
                return  # else somebody changed what is live meanwhile, and the folder may be as either left it

    def disagreement(self) -> str | None:
        """Where the watched folder is not as the log has it, in a sentence; None where it is."""
        events = self.events()
        if not events:
            return None
        live = self._published(events[-1].live)
        cure = f"`tagger promote {live.version}` puts it right"
        if not self.watched.whole(live):
            return f"live version {live.version} is not whole in {self.watched.shown(live.version)}: {cure}"
        astray = [card for card in self._cards(events) if self.watched.astray(card, live)]
        return f"version {astray[0].version} does not belong in {self.watched.shown()}: {cure}" if astray else None

    def fetch(self, version: int | None, folder: Path) -> Card:
        """Copy a version's SavedModel (None: the live one) into the local folder, checked against its card.

        Raises BadInput where there is no such version, CorruptArtifact where its files are not whole.
        """
        wanted = version if version is not None else self.live()
        if wanted is None:
            raise BadInput(f"{self.store.url} does not hold a live version: run `tagger run` to publish one")
        card = self._published(wanted)
        if gone := self.let_go(wanted):
            raise CorruptArtifact(f"version {wanted} cannot be fetched: {gone}; name another version")
        self.store.download(card.path, card.files, folder)
        return card

    def note_let_go(self, folder: str, why: str) -> None:
        """Note which versions go with a folder of the store, before it goes."""
        for card in self.cards():
            if f"{card.path}/".startswith(f"{folder}/"):
                note = {"version": card.version, "at": _now().isoformat(timespec="seconds"), "why": why}
                self.store.create(f"{LET_GO}/{card.version}.json", note)

    def let_go(self, version: int) -> str | None:
        """That retention has removed the version's files, in words; None where it has not."""
        note = self.store.read(f"{LET_GO}/{version}.json")
        return f"retention removed its files on {note['at'][:10]} ({note['why']})" if note else None

    def _published(self, version: int) -> Card:
        events = self.events()
        # A card without an entry in the log is of a publication that was cut off.
        if version not in {event.version for event in events}:
            listed = ", ".join(str(card.version) for card in self._cards(events)) or "none yet"
            raise BadInput(
                f"{self.store.url} does not hold version {version} (published: {listed}): name one of these or run "
                "`tagger run`"
            )
        card = self.card(version)
        if card is None:
            raise CorruptArtifact(
                f"{self.store.shown(CARDS)}/{version}.json is gone, though the log names version {version}: restore it"
            )
        return card

    def _log(self, action: str, decide: Decide, *, by: str) -> Event:
        """Append an event. Of two at once, whoever comes second looks at the log again and decides anew."""
        while True:
            events = self.events()
            card, live, reason = decide(events)
            self._refuse_overwriting(card)
            number = events[-1].number + 1 if events else 1
            # The clocks of two machines differ; the order of the log is that of its numbers.
            at = max([_now(), *(datetime.fromisoformat(event.at) for event in events[-1:])])
            event = Event(number, at.isoformat(), action, card.version, live, by, reason)
            path = f"{LOG}/{number:08d}.json"
            # Where an object store's answer is lost, its client writes again, and is told that there is one already.
            if self.store.create(path, asdict(event)) or self.store.read(path) == asdict(event):
                return event

    def _refuse_overwriting(self, card: Card) -> None:
        """The log relies on a store that creates a file only where there is none, which some servers claim to."""
        if self.store.create(f"{CARDS}/{card.version}.json", asdict(card)):
            raise Forbidden(
                f"the store {self.store.url} writes over a file that it is asked to create, so two publishers at once "
                "could lose an entry of the log: nothing is made live; use a disk, or a server that knows S3's "
                "If-None-Match"
            )


def _newer(champion: Card, candidate: Card) -> bool:
    """Whether the live model's data is newer; invented posts are never newer than real ones."""
    return champion.data > candidate.data and (candidate.invented or not champion.invented)


def lives(events: Iterable[Event]) -> list[int]:
    """The versions that were live and were not rolled back, oldest first; the last is live now."""
    history: list[int] = []
    for event in events:
        if event.action == ROLLBACK and event.live in history:
            while history[-1] != event.live:
                history.pop()
        elif not history or history[-1] != event.live:
            history.append(event.live)
    return history


def taken_down(events: Iterable[Event]) -> dict[int, Event]:
    """The versions that a person has replaced by hand and that were not live since, each with the event that did so."""
    down: dict[int, Event] = {}
    live = None
    for event in events:
        if live not in {None, event.live} and event.action in {PROMOTE, ROLLBACK}:
            down[live] = event
        live = event.live
        down.pop(live, None)
    return down


def _given(reason: str) -> str:
    if not reason.strip():
        raise BadInput("a change of the live version is kept for ever with its reason: give one with --reason")
    return inert(reason.strip())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number only
        return f"user {os.getuid()}"


def _now() -> datetime:
    return datetime.now(UTC)
