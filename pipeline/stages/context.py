"""The context of a stage: what it may use besides its inputs and settings."""

from dataclasses import dataclass, field

from pipeline.progress import OnEpoch, SaveCheckpoint, Track, log_lines, no_checkpoint, no_report
from pipeline.settings import Deployment
from pipeline.sources.source import Source


@dataclass(frozen=True)
class Context:
    """The run's source and deployment, and what is called while the stage works; see pipeline.progress."""

    source: Source
    deployment: Deployment = field(default_factory=Deployment)
    track: Track = log_lines
    save_checkpoint: SaveCheckpoint = no_checkpoint
    on_epoch: OnEpoch = no_report
