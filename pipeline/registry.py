"""Published versions: the SavedModels that a server watches, a card for each, and which one is live."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pipeline.errors import BadInput, VersionTaken
from pipeline.files import FileEntry, entries
from pipeline.store import Store

MODEL = "stackoverflow_tagger"
CARDS = f"registry/{MODEL}/versions"
LIVE = f"registry/{MODEL}/live.json"


@dataclass(frozen=True)
class Card:
    """A published version: the run and the checkpoint (sha256) it comes from, and what it scored."""

    version: int
    run: str
    checkpoint: str
    accuracy: float
    macro_f1: float
    tags: int
    published: str
    files: dict[str, FileEntry]

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The card that `asdict` made the document from."""
        return cls(**document | {"files": {name: FileEntry(**entry) for name, entry in document["files"].items()}})


def path_of(version: int) -> str:
    """The version's folder in the store, as TensorFlow Serving expects it: <model>/<integer>."""
    return f"models/{MODEL}/{version}"


class Registry:
    """The published versions of one store. A version is published when its card is there."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def card(self, version: int) -> Card | None:
        """The version's card, or None where it is not published."""
        document = self.store.read(f"{CARDS}/{version}.json")
        return Card.of(document) if document else None

    def cards(self) -> list[Card]:
        """Every published version's card, newest version first."""
        names = [name.removesuffix(".json") for name in self.store.names(CARDS) if name.endswith(".json")]
        cards = [self.card(int(name)) for name in sorted(names, key=int, reverse=True)]
        return [card for card in cards if card]

    def live(self) -> int | None:
        """The version that is live, or None where nothing was published."""
        document = self.store.read(LIVE)
        return int(document["version"]) if document else None

    def publish(
        self, folder: Path, *, version: int, run: str, checkpoint: str, accuracy: float, macro_f1: float, tags: int
    ) -> Card:
        """Publish the SavedModel in the local folder, and make it live unless a newer version is.

        Done twice it is the same. Raises VersionTaken where the version was published from another checkpoint.
        """
        card = self.card(version)
        if card and card.checkpoint != checkpoint:
            raise VersionTaken(
                f"version {version} is published already, by run {card.run} from another checkpoint "
                f"({card.checkpoint[:12]}, this one is {checkpoint[:12]}): train under a new run to publish this model"
            )
        if card is None:
            # A server takes saved_model.pb as the sign that the rest is there.
            self.store.upload(folder, path_of(version), last="saved_model.pb")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            card = Card(version, run, checkpoint, accuracy, macro_f1, tags, now, entries(folder))
            self.store.write(f"{CARDS}/{version}.json", asdict(card))
        if version >= (self.live() or 0):
            self.store.write(LIVE, {"version": version, "since": card.published, "run": run})
        return card

    def fetch(self, version: int | None, folder: Path) -> Card:
        """Copy a version's SavedModel (None: the live one) into the local folder, checked against its card.

        Raises BadInput where there is no such version.
        """
        wanted = version if version is not None else self.live()
        card = self.card(wanted) if wanted is not None else None
        if card is None:
            there = ", ".join(str(card.version) for card in self.cards()) or "none yet"
            what = f"version {version}" if version is not None else "a live version"
            raise BadInput(
                f"{self.store.url} does not hold {what} (published: {there}): name one of these or run `tagger run`"
            )
        self.store.download(path_of(card.version), card.files, folder)
        return card
