"""The model registry of a store: a card for each published version, and the log of which was live when and why."""

import logging
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import (
    BadInput,
    CorruptArtifact,
    Forbidden,
    NewerFormat,
    StageOutOfOrder,
    Unavailable,
    escape_control,
)
from pipeline.files import scratch_folder
from pipeline.registry import cards as by_number
from pipeline.registry import collected, signing
from pipeline.registry import events as log_events
from pipeline.registry.card import MODEL, Card
from pipeline.registry.cards import CARDS
from pipeline.registry.events import PROMOTE, PUBLISH, ROLLBACK, Event, live_history, model_digest
from pipeline.registry.serving_dir import ServingDir
from pipeline.registry.serving_dir import path_of as serving_path
from pipeline.store import signatures
from pipeline.store.append_log import AppendLog
from pipeline.store.manifest import RUNS
from pipeline.store.needs import needing
from pipeline.store.objects import Store

log = logging.getLogger(__name__)

TRIES = 3
"""How often the serving directory is tried to be made right, before a store that fails is given up."""

LOG = f"registry/{MODEL}/log"
Decide = Callable[[list[Event]], tuple[Card, int, str] | Event]
"""Given the log so far, decides the next event: its version's card, the version that goes live, and the reason.

An event is returned instead if it is in the log already, so that there is nothing to add.
"""


class Registry:
    """The published versions of one store. The log is the truth; `reconcile` makes the serving directory follow it."""

    def __init__(self, store: Store) -> None:
        self.store, self.serving = store, ServingDir(store)
        self.log = AppendLog(store, LOG)

    def card(self, version: int) -> Card | None:
        """The version's card, or None where there is none."""
        return by_number.card_at(self.store, version)

    def cards(self) -> list[Card]:
        """The card of every published version, newest first."""
        return self.cards_of(self.events())

    def cards_of(self, events: list[Event]) -> list[Card]:
        """The events' versions, newest first, without those whose card is lost or of a newer format."""
        found = []
        for version in log_events.versions_of(events):
            try:
                card = self.card(version)
            except NewerFormat as error:
                log.warning("version %d is left out: %s", version, error)
                continue
            if card:
                found.append(card)
        return found

    def events(self) -> list[Event]:
        """The whole log, oldest first."""
        return [Event.parse(entry, f"an entry of {self.store.display_path(LOG)}") for entry in self.log.entries()]

    def live(self, at: datetime | None = None) -> int | None:
        """The version that is live now, or was at the time `at`; None if there was none."""
        return log_events.live_at(self.events(), at, _now())

    def clock_fault(self) -> str | None:
        """A sentence that says that the log's last entry is from the future, and what to do; None if it is not."""
        return log_events.clock_fault(self.events(), _now())

    def live_before(self, version: int) -> int | None:
        """The version to compare this one with: live when it was published, or now if it is not published yet."""
        return log_events.live_before(self.events(), version)

    def publish(
        self, card: Card, *, compared_with: int | None, forced: str = "", approved_by: str = "", reason: str = ""
    ) -> Event:
        """Publish the model whose files are at card.path, and make it live. Publishing it again changes nothing.

        Its version is card.version or, where that number is taken, the next free one. If the live model was trained on
        newer data, that one stays live, unless `forced` gives a reason. Who approved it, and the reason, go into the
        log.

        Raises StageOutOfOrder if the live version is no longer the one that the candidate was compared with,
        `compared_with`.
        """
        by = f"run {card.run}" + (f", approved by {approved_by}" if approved_by else "")
        earlier, events = by_number.earlier_try(self.store, card), self.events()
        event = log_events.publication(events, earlier.version) if earlier else None
        if event:
            self.reconcile()
            return event
        self._refuse_outdated_comparison(card, events, compared_with)  # before anything is written
        with needing(self.store, card.path):  # from before there is a card that would name them
            self._refuse_incomplete(card)
            numbered = by_number.write_with_number(self.store, card, {event.version for event in events})
            if earlier:  # its files may have been gone meanwhile
                collected.withdraw(self.store, numbered.version)
            # Not before the number is this version's own: the signature would replace that of another one.
            signing.sign_version(self.store, numbered)

            def decide(events: list[Event]) -> tuple[Card, int, str] | Event:
                # A retry may have published it while the task that it replaces was still running.
                if published := log_events.publication(events, numbered.version):
                    return published
                champion = self._refuse_outdated_comparison(numbered, events, compared_with)
                if champion and not forced and champion.is_newer_than(numbered):
                    return numbered, champion.version, f"its data is newer than that of version {numbered.version}"
                return numbered, numbered.version, forced or reason

            return self._log(PUBLISH, decide, by=by)

    def _refuse_outdated_comparison(self, card: Card, events: list[Event], compared_with: int | None) -> Card | None:
        """The live version's card; StageOutOfOrder if that is another model than the candidate was compared with."""
        champion = self._published(events[-1].live) if events else None
        version = champion.version if champion else None
        if version == compared_with or (champion and champion.model == card.model):
            return champion
        raise StageOutOfOrder(
            f"version {version} went live since this run was compared with {compared_with or 'no model'}: run evaluate "
            f"of run {card.run} again, then export"
        )

    def taken_down(self, model: Card) -> tuple[Card, Event] | None:
        """The version with this same model that a person took down, and the event that did so; None if none was."""
        events, wanted = self.events(), model_digest(model)
        models = {event.version: event.model for event in events if event.model}
        for version, event in log_events.taken_down(events).items():
            card = self.card(version) if models.get(version, wanted) == wanted else None
            if card and card.model == model.model:
                return card, event
        return None

    def promote(self, version: int, reason: str) -> Event:
        """Make a published version live, on a person's request.

        Raises BadInput if there is no such version or no reason, CorruptArtifact if files are missing or damaged.
        """
        card, given = self._published(version), log_events.checked_reason(reason)
        return self._log(PROMOTE, lambda _: (card, version, given), by=log_events.user())

    def rollback(self, reason: str, bad: int | None = None) -> Event:
        """Make the version live that was live before `bad`, by default the one that is live when this begins.

        Raises BadInput if there is none, if another version went live meanwhile (perhaps by the same rollback, of
        another person), or if it completed an earlier, interrupted rollback instead; CorruptArtifact if the version's
        files are missing or damaged.
        """
        given = log_events.checked_reason(reason)
        begun_with = self.live() if bad is None else bad
        self._complete_interrupted_rollback()

        def decide(events: list[Event]) -> tuple[Card, int, str]:
            history = live_history(events)
            if history and history[-1] != begun_with:
                raise BadInput(log_events.moved_on(events, begun_with))
            if len(history) < 2:
                raise BadInput(
                    f"{self.store.display_path(LOG)} names no earlier live version to go back to: choose one with "
                    "`tagger promote`"
                )
            card = self._published(history[-2])
            return card, card.version, given

        return self._log(ROLLBACK, decide, by=log_events.user())

    def _complete_interrupted_rollback(self) -> None:
        """Complete a rollback that was interrupted: a user who repeats it does not want to go back two versions."""
        last = next(reversed(self.events()), None)
        if last and last.action == ROLLBACK and self.disagreement():
            self.reconcile()
            raise BadInput(
                f"the {last.told} had been interrupted, and was completed just now: version {last.live} is live; run "
                "the command again to go back further"
            )

    def _refuse_unservable(self, card: Card) -> None:
        """Raise CorruptArtifact if the version's files are missing or damaged, or have no signature that is trusted."""
        gone = self.collected(card.version)
        fault = gone or next(filter(None, self.store.faults(card.path, card.files)), None)
        if not fault and signatures.keys().trusted:
            with scratch_folder("verify") as scratch:
                self._download(card, Path(scratch, str(card.version)))
        if fault:
            raise CorruptArtifact(
                f"version {card.version} cannot go live: {fault}; the live version is unchanged, promote another one"
            )

    def _refuse_incomplete(self, card: Card) -> None:
        """Raise CorruptArtifact if files of a model that is to be published are missing or damaged."""
        if fault := next(filter(None, self.store.faults(card.path, card.files)), None):
            raise CorruptArtifact(f"the model of run {card.run} cannot be published: {fault}; run export again")

    def reconcile(self) -> None:
        """Make the serving directory hold the live version whole, and no published version with a higher number.

        TensorFlow Serving's default policy serves the highest version, which so is the live one, also after a rollback.
        """
        events, failures = self.events(), 0
        while events:
            try:
                live = self._published(events[-1].live)
                if not self.serving.whole(live):
                    self.serving.bring(live)
                for version in self._stray(events):
                    self.serving.withdraw(version)
            except Unavailable:
                # Another process may have removed what this one was writing, to follow a change of its own.
                failures += 1
                if failures == TRIES:
                    raise
                events = self.events()
                continue
            seen, events = events, self.events()
            if len(events) == len(seen):
                return  # otherwise the live version was changed meanwhile, and the directory may be in either state

    def disagreement(self) -> str | None:
        """How the serving directory differs from the log, in a sentence; None if it does not."""
        events = self.events()
        if not events:
            return None
        live = self._published(events[-1].live)
        cure = f"`tagger promote {live.version}` fixes it"
        if not self.serving.whole(live):
            place = self.serving.display_path(live.version)
            return f"live version {live.version} is incomplete or damaged in {place}: {cure}"
        stray = self._stray(events)
        return f"version {stray[0]} does not belong in {self.serving.display_path()}: {cure}" if stray else None

    def _stray(self, events: list[Event]) -> list[int]:
        """The published versions that a server should not find in the serving directory, newest first."""
        published = {event.version for event in events}
        return [version for version in self.serving.stray(events[-1].live) if version in published]

    def fetch(self, version: int | None, folder: Path) -> Card:
        """Copy a version's SavedModel (None: the live one's) into the local folder, and check it against its card.

        Raises BadInput if there is no such version, CorruptArtifact if its files are missing or damaged.
        """
        card = self.published(version)
        if gone := self.collected(card.version):
            raise CorruptArtifact(f"version {card.version} cannot be fetched: {gone}; name another version")
        self._download(card, folder)
        return card

    def _download(self, card: Card, folder: Path) -> None:
        """Copy the version's files; CorruptArtifact if one is damaged, or if no trusted key signed them."""
        self.store.download(card.path, card.files, folder)
        try:
            signing.refuse_untrusted(self.store, card.version, folder)
        except CorruptArtifact:
            shutil.rmtree(folder)  # so that nobody uses what is there
            raise

    def published(self, version: int | None) -> Card:
        """The card of a published version (None: the live one's); BadInput if there is no such version."""
        wanted = version if version is not None else self.live()
        if wanted is None:
            raise BadInput(f"{self.store.url} does not hold a live version: run `tagger run` to publish one")
        return self._published(wanted)

    def note_collected(self, folder: str, why: str, cards: Iterable[Card] | None = None) -> None:
        """Record that a folder of the store is about to be removed, for each version whose files are in it.

        `cards` are the versions to look at, None for all.
        """
        for card in self.cards() if cards is None else cards:
            if f"{card.path}/".startswith(f"{folder}/"):
                collected.note(self.store, card.version, why)

    def note_unpublished(self) -> None:
        """Record that the files are gone of each version whose publication was interrupted, if they are.

        So its number stays taken, and it is known that nothing is missing. If its run is made again, its export
        publishes it.
        """
        known = {*self.collected_versions(), *log_events.versions_of(self.events())}
        for version in by_number.numbers(self.store):
            try:
                card = self.card(version) if version not in known else None
            except CorruptArtifact:
                continue  # `tagger verify` names it
            if card and any(self.store.faults(card.path, card.files)):
                self.note_collected(card.path, "its publication was interrupted", [card])

    def with_files(self) -> list[Card]:
        """The card of every published version whose files garbage collection has not removed, newest first."""
        gone = self.collected_versions()
        return self.cards_of([event for event in self.events() if event.version not in gone])

    def collected_versions(self) -> set[int]:
        """The versions whose files garbage collection has removed."""
        return collected.versions(self.store)

    def collected(self, version: int) -> str | None:
        """A sentence that says when garbage collection removed the version's files; None if it has not."""
        return collected.sentence(self.store, version)

    def _published(self, version: int) -> Card:
        events = self.events()
        # A card without an entry in the log belongs to a publication that was interrupted.
        if version not in {event.version for event in events}:
            listed = ", ".join(str(card.version) for card in self.cards_of(events)) or "none yet"
            raise BadInput(
                f"{self.store.url} does not hold version {version} (published: {listed}): name one of these or run "
                "`tagger run`"
            )
        card = self.card(version)
        if card is None:
            raise by_number.lost(self.store, version)
        return card

    def _log(self, action: str, decide: Decide, *, by: str) -> Event:
        """Append the event that `decide` decides on, and make the serving directory follow it.

        If another process appends one first, decide again. Raises what `decide` raises, and Forbidden if the store
        cannot create a file only if it is absent.
        """
        event = self._append(action, decide, by)
        try:
            self.reconcile()
        except (Unavailable, Forbidden) as error:
            lag = f"version {event.live} is live in the log since {event.at[:16]}, but not in the serving directory yet"
            error.args = (f"{lag}: {error.args[0]}",)
            raise
        return event

    def _append(self, action: str, decide: Decide, by: str) -> Event:
        while True:
            events = self.events()
            decided = decide(events)
            if isinstance(decided, Event):
                return decided
            card, live, reason = decided
            self._refuse_overwriting(card)
            number, now = events[-1].number + 1 if events else 1, _now()
            if fault := log_events.clock_fault(events, now):
                log.warning("%s", fault)
            # The clocks of two machines differ a little, and times shall be in the order of the entries.
            at = max([now, *(event.time for event in events[-1:] if event.time <= now + log_events.SKEW)])
            event = Event(
                number=number,
                at=at.isoformat(),
                action=action,
                version=card.version,
                live=live,
                by=escape_control(by),
                reason=escape_control(reason),
                model=model_digest(card),
            )
            with needing(self.store, card.path, f"{RUNS}/{card.run}", serving_path(card.version)):
                if action != PUBLISH:
                    self._refuse_unservable(card)
                entry = self.log.append(number, event.to_dict())
            if entry:
                return Event.parse(entry, self.store.display_path(LOG))

    def _refuse_overwriting(self, card: Card) -> None:
        """Raise Forbidden if the store overwrites a file that it is asked to create, as some S3 servers do.

        The card exists already, so a reliable store refuses to create it.
        """
        if self.store.create(f"{CARDS}/{card.version}.json", card.to_dict()):
            raise Forbidden(
                f"the store {self.store.url} overwrites a file that it is asked to create, so two publishers at once "
                "could lose an entry of the log: nothing is made live; use a local disk, or an S3 server that supports "
                "If-None-Match"
            )


def _now() -> datetime:
    return datetime.now(UTC)
