"""Published versions: a card for each, a log of what was live when and why, and the folder that a server watches."""

import getpass
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from pipeline.errors import BadInput, CorruptArtifact, VersionTaken
from pipeline.files import FileEntry
from pipeline.store import Store

MODEL = "stackoverflow_tagger"
MODELS = f"models/{MODEL}"
CARDS = f"registry/{MODEL}/versions"
LOG = f"registry/{MODEL}/log"
SAVED_MODEL = "saved_model.pb"
"""A server takes this file as the sign that the rest of a version is there: it comes last and goes first."""


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

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The card that `asdict` made the document from."""
        return cls(**document | {"files": {name: FileEntry(**entry) for name, entry in document["files"].items()}})


@dataclass(frozen=True)
class Event:
    """An entry of the log: what was done to `version`, and which version is `live` since."""

    number: int
    at: str
    action: str
    version: int
    live: int
    by: str
    reason: str


def path_of(version: int) -> str:
    """The version's folder in the store, as TensorFlow Serving expects it: <model>/<integer>."""
    return f"{MODELS}/{version}"


class Registry:
    """The published versions of one store. What the log says is so; the watched folder is made to agree with it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def card(self, version: int) -> Card | None:
        """The version's card, or None where there is none."""
        document = self.store.read(f"{CARDS}/{version}.json")
        return Card.of(document) if document else None

    def cards(self) -> list[Card]:
        """The card of every published version, newest version first."""
        cards = [self.card(version) for version in sorted({e.version for e in self.events()}, reverse=True)]
        return [card for card in cards if card]

    def events(self) -> list[Event]:
        """The whole log, oldest first."""
        documents = [self.store.read(f"{LOG}/{name}") for name in self.store.names(LOG) if name.endswith(".json")]
        return [Event(**document) for document in documents if document]

    def live(self, at: datetime | None = None) -> int | None:
        """The version that is live, or was at a time; None where none was."""
        events = [event for event in self.events() if at is None or datetime.fromisoformat(event.at) <= at]
        return events[-1].live if events else None

    def live_before(self, version: int) -> int | None:
        """The version that was live until this one was published, or is where it was not: what it is measured by."""
        before = list(takewhile(lambda event: event.version != version, self.events()))
        return before[-1].live if before else None

    def publish(self, card: Card, folder: Path, *, forced: str = "") -> Card:
        """Publish the SavedModel in the local folder; it goes live unless the live model's data is newer.

        Done twice it is the same. Raises VersionTaken where the version is that of another checkpoint. `forced`, a
        reason, makes older data go live all the same.
        """
        created = self.store.create(f"{CARDS}/{card.version}.json", asdict(card))
        if not created:
            there = self.card(card.version)
            if there and there.checkpoint != card.checkpoint:
                raise VersionTaken(
                    f"version {card.version} is published already, by run {there.run} from another checkpoint "
                    f"({there.checkpoint[:12]}, this one is {card.checkpoint[:12]}): train under a new run to publish "
                    "this model"
                )
            card = there or card
        if not any(event.version == card.version for event in self.events()):
            if created:
                self.store.upload(folder, path_of(card.version), sorted(card.files.keys() - {SAVED_MODEL}))
            self._log("publish", card, by=f"run {card.run}", reason=forced, only_newer=not forced)
        self.reconcile()
        return card

    def promote(self, version: int, reason: str) -> Event:
        """Make a published version live, by hand.

        Raises BadInput where there is no such version or no reason, CorruptArtifact where its files are not whole.
        """
        return self._by_hand("promote", self._published(version), reason)

    def rollback(self, reason: str) -> Event:
        """Make the version live that was live before the present one; one that was cut off is ended, not done twice.

        Raises BadInput where there is none, CorruptArtifact where its files are not whole.
        """
        events = self.events()
        if events and events[-1].action == "rollback" and self.disagreement():
            self.reconcile()
            return events[-1]
        history = lives(events)
        if len(history) < 2:
            raise BadInput(f"{self.store.shown(LOG)} knows no version to go back to: promote one with `tagger promote`")
        return self._by_hand("rollback", self._published(history[-2]), reason)

    def _by_hand(self, action: str, card: Card, reason: str) -> Event:
        given = _given(reason)
        fault = next(filter(None, self.store.faults(card.path, card.files)), None)
        if fault:
            raise CorruptArtifact(
                f"version {card.version} cannot go live, because {fault}; what is live stays: promote another version"
            )
        event = self._log(action, card, by=_user(), reason=given)
        self.reconcile()
        return event

    def reconcile(self) -> None:
        """Make the watched folder agree with the log: the live version whole, and none above it that was withdrawn.

        So TensorFlow Serving's default policy, the latest version, serves the live one, also after a rollback.
        """
        events = self.events()
        while events:
            live = events[-1].live
            card = self._published(live)
            if not self._whole(card):
                with TemporaryDirectory(prefix="tagger-serve-") as scratch:
                    self.store.download(card.path, card.files, Path(scratch))
                    self.store.upload(Path(scratch), path_of(live), _last(card.files, SAVED_MODEL))
            for version in self._astray(events):
                self.withdraw(version)
            seen, events = events, self.events()
            if len(events) == len(seen):
                return  # else somebody has changed what is live meanwhile, and the folder may hold either's

    def disagreement(self) -> str | None:
        """Where the watched folder is not as the log has it, in a sentence; None where it is."""
        events = self.events()
        if not events:
            return None
        live = events[-1].live
        cure = f"`tagger promote {live}` puts it right"
        if not self._whole(self._published(live)):
            return f"live version {live} is not whole in {self.store.shown(path_of(live))}: {cure}"
        astray = self._astray(events)
        return f"version {astray[0]} does not belong in {self.store.shown(MODELS)}: {cure}" if astray else None

    def _whole(self, card: Card) -> bool:
        """Whether the watched folder holds the version's files, to the byte, and no others."""
        path = path_of(card.version)
        return self._complete(card) and not any(self.store.faults(path, card.files))

    def _complete(self, card: Card) -> bool:
        sizes = {name: entry.bytes for name, entry in card.files.items()}
        return self.store.sizes(path_of(card.version)) == sizes

    def _astray(self, events: list[Event]) -> list[int]:
        """Versions in the watched folder that a server should not find: above the live one, or not complete.

        Only such as these events tell of: another may be being published just now.
        """
        live = events[-1].live
        known = {event.version for event in events} - {live}
        there = [int(name) for name in self.store.names(MODELS) if name.isdecimal() and int(name) in known]
        return [version for version in there if version > live or not self._complete(self._published(version))]

    def withdraw(self, version: int) -> None:
        """Take a version out of the watched folder; its card, and its files in its run, stay."""
        self.store.remove(f"{path_of(version)}/{SAVED_MODEL}")
        self.store.remove(path_of(version))

    def fetch(self, version: int | None, folder: Path) -> Card:
        """Copy a version's SavedModel (None: the live one) into the local folder, checked against its card.

        Raises BadInput where there is no such version.
        """
        wanted = version if version is not None else self.live()
        # A card without an entry in the log is of a publication that was cut off.
        logged = {event.version for event in self.events()}
        card = self.card(wanted) if wanted is not None and wanted in logged else None
        if card is None:
            what = f"version {version}" if version is not None else "a live version"
            raise BadInput(
                f"{self.store.url} does not hold {what} (published: {self._listed()}): name one of these or run "
                "`tagger run`"
            )
        self.store.download(card.path, card.files, folder)
        return card

    def _published(self, version: int) -> Card:
        card = self.card(version)
        if card is None or version not in {event.version for event in self.events()}:
            raise BadInput(f"version {version} is not published (published: {self._listed()}): name one of these")
        return card

    def _listed(self) -> str:
        return ", ".join(str(card.version) for card in self.cards()) or "none yet"

    def _log(self, action: str, card: Card, *, by: str, reason: str, only_newer: bool = False) -> Event:
        """Append an event. Two at once take two numbers: whoever comes second looks at the log again."""
        while True:
            events = self.events()
            champion = self.card(events[-1].live) if events else None
            live = champion.version if only_newer and champion and _newer(champion, card) else card.version
            number = events[-1].number + 1 if events else 1
            # The clocks of two machines differ; the order of the log is that of its numbers.
            at = max([datetime.now(UTC), *(datetime.fromisoformat(event.at) for event in events[-1:])])
            event = Event(number, at.isoformat(), action, card.version, live, by, reason)
            if self.store.create(f"{LOG}/{number:08d}.json", asdict(event)):
                return event


def _newer(champion: Card, candidate: Card) -> bool:
    """Whether the live model's data is newer; invented posts are never newer than real ones."""
    return champion.data > candidate.data and (candidate.invented or not champion.invented)


def lives(events: Iterable[Event]) -> list[int]:
    """The versions that were live and were not rolled back, oldest first; the last is live now."""
    history: list[int] = []
    for event in events:
        if event.action == "rollback":
            history.pop()
        elif not history or history[-1] != event.live:
            history.append(event.live)
    return history


def _last(names: Iterable[str], last: str) -> list[str]:
    return sorted(names, key=lambda name: (name == last, name))


def _given(reason: str) -> str:
    if not reason.strip():
        raise BadInput("a change of the live version is kept for ever with its reason: give one with --reason")
    return reason.strip()


def _user() -> str:
    return getpass.getuser()
