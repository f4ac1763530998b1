"""The context of a stage: what it may use besides its inputs and settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.progress import Track, log_lines
from pipeline.settings import Deployment
from pipeline.sources.source import Source

SaveCheckpoint = Callable[[Path, int], None]
"""Called with a checkpoint's folder and its step, to save it for a retry."""


def _discard(folder: Path, step: int) -> None:
    """Save nothing, so that a retry begins again."""


@dataclass(frozen=True)
class Context:
    """The run's source and deployment, the display of progress, and the function that saves checkpoints."""

    source: Source
    deployment: Deployment = field(default_factory=Deployment)
    track: Track = log_lines
    save_checkpoint: SaveCheckpoint = _discard
