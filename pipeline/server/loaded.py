"""A version that is loaded to answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import CorruptArtifact
from pipeline.published.model import PublishedModel
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.registry.serving_dir import SAVED_MODEL
from pipeline.server.tf_serving_proto import signatures_of


@dataclass(frozen=True)
class Loaded:
    """A version in memory: the model, and the SavedModel's signatures by name, as SignatureDef messages."""

    model: PublishedModel
    signatures: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, version: int) -> "Loaded":
        """Load the files in a local folder. Raises CorruptArtifact if they cannot be read or answer nonsense."""
        try:
            signatures = signatures_of(folder / SAVED_MODEL)
            return cls(PublishedModel.open(folder, version), signatures)
        except Exception as error:  # whatever it is: the version before goes on answering
            why = str(error) if isinstance(error, CorruptArtifact) else f"{type(error).__name__}: {error}"
            line = why.partition("\n")[0]
            raise CorruptArtifact(f"version {version} cannot be served: {line}") from error

    @classmethod
    def of(cls, registry: Registry, version: int) -> "Loaded":
        """Fetch a published version and load it. Raises BadInput if there is none, CorruptArtifact as above."""
        with model_cache.opened(registry, version) as folder:
            return cls.open(folder, version)

    @property
    def version(self) -> int:
        """Its number in the registry."""
        return self.model.version

    def close(self) -> None:
        """Free the memory of the version, which must not be asked any more."""
        self.model.close()
