"""The serving directory, from which TensorFlow Serving loads the model: the live version, and none above it."""

from collections.abc import Iterator

from pipeline.files import FileEntry, scratch_folder
from pipeline.registry.card import MODEL, Card
from pipeline.store.objects import Store

MODELS = f"models/{MODEL}"
SAVED_MODEL = "saved_model.pb"
"""The file by which a server sees that a version is there: it is copied last and removed first."""


def path_of(version: int) -> str:
    """The version's folder in the store, as TensorFlow Serving expects it: <model>/<integer>."""
    return f"{MODELS}/{version}"


class ServingDir:
    """The serving directory of one store. The registry decides which versions belong in it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def display_path(self, version: int | None = None) -> str:
        """The path or URL of the directory, or of a version in it, as messages show it."""
        return self.store.display_path(MODELS if version is None else path_of(version))

    def versions(self) -> dict[int, dict[str, int]]:
        """The versions in the directory, complete or not, oldest first, each with its files' sizes in bytes."""
        found = dict[int, dict[str, int]]()
        for name, size in sorted(self.store.tree(MODELS).items()):
            version, slash, file = name.partition("/")
            if slash and version.isdecimal():
                files = found.setdefault(int(version), {})
                if file and not file.endswith("/"):
                    files[file] = size
        return dict(sorted(found.items()))

    def whole(self, card: Card) -> bool:
        """Whether the version's folder holds exactly its files, byte for byte, and no others."""
        path, sizes = path_of(card.version), {name: entry.bytes for name, entry in card.files.items()}
        return self.store.sizes(path) == sizes and not any(self.store.faults(path, card.files))

    def faults(self, version: int, files: dict[str, FileEntry]) -> Iterator[str | None]:
        """For each of these files of the version, what is wrong with its copy, or None."""
        return self.store.faults(path_of(version), files)

    def stray(self, live: int) -> list[int]:
        """The versions that a server should not find there, newest first: those above the live one or incomplete."""
        found = self.versions()
        return [v for v in reversed(found) if v > live or (v != live and SAVED_MODEL not in found[v])]

    def bring(self, card: Card) -> None:
        """Copy the version's files to the directory, and remove other files from the version's folder."""
        path = path_of(card.version)
        with scratch_folder("serve") as scratch:
            self.store.download(card.path, card.files, scratch)
            self.store.upload(scratch, path, sorted(card.files, key=lambda name: (name == SAVED_MODEL, name)))
        for name in self.store.sizes(path).keys() - card.files.keys():
            self.store.remove(f"{path}/{name}")

    def withdraw(self, version: int) -> None:
        """Remove a version from the directory; its card, and its files in its run, stay."""
        self.store.remove(f"{path_of(version)}/{SAVED_MODEL}")
        self.store.remove(path_of(version))
