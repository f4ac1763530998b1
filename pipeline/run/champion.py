"""The champion: the live version that a run's data and its candidate are compared with."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadInput, CorruptArtifact
from pipeline.registry.card import Card
from pipeline.registry.cards import cards_of
from pipeline.registry.registry import Registry
from pipeline.stages.plan import CARD, LEARNS
from pipeline.store.manifest import Manifest, current
from pipeline.store.objects import Store
from pipeline.store.runs import Record, Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """A live version and its card; the card is None if it is lost."""

    registry: Registry
    version: int
    card: Card | None

    @classmethod
    def resolve(cls, store: Store, record: Record) -> "Champion | None":
        """The version that is live now, or was when the run's own model was published; None if there is none.

        A run that makes another model than it published is compared with what is live now, be it its own.
        """
        registry = Registry(store)
        own = cards_of(store, record.run, record.first_version)
        unchanged = own and manifests_of(store, own[-1])
        version = registry.live_before(own[-1].version) if unchanged else registry.live()
        return None if version is None else cls(registry, version, registry.card(version))

    def fetch(self, folder: Path) -> None:
        """Write its card to card.json and its SavedModel to model/ in the folder.

        If files of the SavedModel are missing or damaged, log a warning and leave no model/: without one of its files,
        such as the list of the posts that it learned, the others would say something else.
        """
        folder.mkdir(parents=True)
        card = self.card.to_dict() if self.card else {"version": self.version}
        (folder / CARD).write_text(json.dumps(card))
        try:
            self.registry.fetch(self.version, folder / "model")
        except (BadInput, CorruptArtifact) as error:
            log.warning("the live model cannot be fetched: %s", error)
            shutil.rmtree(folder / "model", ignore_errors=True)


def manifests_of(store: Store, card: Card) -> dict[str, Manifest]:
    """The manifests of the run that made the version; empty if that run has replaced them since, or is gone."""
    manifests = Run(store, card.run).manifests()
    trained = current(manifests, LEARNS)
    return manifests if trained and trained.summary["checkpoint"] == card.checkpoint else {}
