"""The cards of a store, by number: those of a run, and the number that a new version gets."""

from collections.abc import Collection, Iterable, Iterator

from pipeline.errors import CorruptArtifact
from pipeline.registry.card import MODEL, Card
from pipeline.store.objects import Store

CARDS = f"registry/{MODEL}/versions"


def path_of(version: int) -> str:
    """The version's card in the store."""
    return f"{CARDS}/{version}.json"


def numbers(store: Store) -> list[int]:
    """The versions that have a card, also of interrupted publications, oldest first; other files are passed over."""
    stems = (name.removesuffix(".json") for name in store.names(CARDS))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def card_at(store: Store, version: int) -> Card | None:
    """The version's card, or None where there is none."""
    return store.load(path_of(version), Card)


def cards_of(store: Store, run: str, first: int) -> list[Card]:
    """The cards of one run, also of interrupted publications, oldest first.

    `first` is the lowest number that they can have. No number between it and theirs is without a card.
    """
    return [card for card in _cards_from(store, first) if card.run == run]


def _cards_from(store: Store, number: int) -> Iterator[Card]:
    """The cards from this number up to the first that has none."""
    while card := card_at(store, number):
        yield card
        number += 1


def earlier_try(store: Store, card: Card) -> Card | None:
    """The card that the run wrote last, if it is of this same model: then this is a retry of its publication."""
    return _earlier_try(_cards_from(store, card.version), card)


def _earlier_try(cards: Iterable[Card], card: Card) -> Card | None:
    own = [each for each in cards if each.run == card.run]
    return own[-1] if own and own[-1].model == card.model else None


def write_with_number(store: Store, card: Card, published: Collection[int]) -> Card:
    """Write the card under the number of an interrupted try, or under the next free one, and return it.

    Raises CorruptArtifact if that number is one of the `published`, whose card is then lost.
    """
    while True:
        # Read once: a twin's card that came between two readings would be passed over as another run's.
        cards = list(_cards_from(store, card.version))
        if earlier := _earlier_try(cards, card):
            numbered = card.model_copy(update={"version": earlier.version})
            store.write(path_of(numbered.version), numbered.to_dict())
            return numbered
        number = card.version + len(cards)
        if number in published:
            raise lost(store, number)
        numbered = card.model_copy(update={"version": number})
        # Of two that take a number at once, one creates its card; the other looks for the next.
        if store.create(path_of(number), numbered.to_dict()):
            return numbered


def lost(store: Store, version: int) -> CorruptArtifact:
    """The error for a version that the log names and that has no card."""
    return CorruptArtifact(
        f"{store.display_path(path_of(version))} is gone, though the log names version {version}: restore it"
    )
