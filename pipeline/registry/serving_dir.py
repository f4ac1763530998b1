"""The folder that a server watches: the live version whole, and none above it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.registry.card import MODEL, Card
from pipeline.store.objects import Store

MODELS = f"models/{MODEL}"
SAVED_MODEL = "saved_model.pb"
"""A server takes this file as the sign that the rest of a version is there: it comes last and goes first."""


def path_of(version: int) -> str:
    """The version's folder in the store, as TensorFlow Serving expects it: <model>/<integer>."""
    return f"{MODELS}/{version}"


class Watched:
    """The watched folder of one store; what belongs in it is said by the registry."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def shown(self, version: int | None = None) -> str:
        """The folder, or that of a version in it, as a person may copy it."""
        return self.store.shown(MODELS if version is None else path_of(version))

    def versions(self) -> list[int]:
        """The versions in the folder, whole or not."""
        return sorted(int(name) for name in self.store.names(MODELS) if name.isdecimal())

    def whole(self, card: Card) -> bool:
        """Whether the folder holds the version's files, to the byte, and no others."""
        return self._complete(card) and not any(self.store.faults(path_of(card.version), card.files))

    def astray(self, card: Card, live: Card) -> bool:
        """Whether a server should not find the version there: it is above the live one, or not complete."""
        if card.version == live.version or not self.store.names(path_of(card.version)):
            return False
        return card.version > live.version or not self._complete(card)

    def _complete(self, card: Card) -> bool:
        sizes = {name: entry.bytes for name, entry in card.files.items()}
        return self.store.sizes(path_of(card.version)) == sizes

    def bring(self, card: Card) -> None:
        """Copy the version's files to the folder, and remove others that are there."""
        path = path_of(card.version)
        with TemporaryDirectory(prefix="tagger-serve-") as scratch:
            self.store.download(card.path, card.files, Path(scratch))
            self.store.upload(Path(scratch), path, sorted(card.files, key=lambda name: (name == SAVED_MODEL, name)))
        for name in self.store.sizes(path).keys() - card.files.keys():
            self.store.remove(f"{path}/{name}")

    def withdraw(self, version: int) -> None:
        """Take a version out of the folder; its card, and its files in its run, stay."""
        self.store.remove(f"{path_of(version)}/{SAVED_MODEL}")
        self.store.remove(path_of(version))
