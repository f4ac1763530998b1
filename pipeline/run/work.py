"""A stage of a run that is about to be done, with everything it is done with, decided once and passed on."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.progress import OnEpoch, SaveCheckpoint, Track, log_lines, no_checkpoint, no_report
from pipeline.run.champion import Champion
from pipeline.settings import Settings
from pipeline.sources.source import Source
from pipeline.stages.context import Context
from pipeline.stages.plan import STAGES, Stage
from pipeline.store.manifest import Manifest
from pipeline.store.runs import Record, Run


@dataclass(frozen=True)
class Work:
    """A stage of a run, with its inputs' manifests, its source, and the champion it is compared with (None: no one).

    `needs_approval` says that a person must have approved the model before it is published.
    """

    stage: Stage
    run: Run
    record: Record
    inputs: Mapping[str, Manifest]
    source: Source
    champion: Champion | None
    track: Track = log_lines
    on_epoch: OnEpoch = no_report
    needs_approval: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        run: Run,
        track: Track = log_lines,
        on_epoch: OnEpoch = no_report,
        *,
        needs_approval: bool = False,
    ) -> "Work":
        """Decide the stage's inputs and champion now. StageOutOfOrder if the run or an input is missing or stale."""
        stage, record = STAGES[name], run.existing()
        champion = Champion.resolve(run.store, record) if stage.asks_champion else None
        source = Source.parse(record.settings.source, record.allowed)
        inputs = run.inputs(name, stage.needs)
        return cls(stage, run, record, inputs, source, champion, track, on_epoch, needs_approval)

    @property
    def settings(self) -> Settings:
        """The run's settings."""
        return self.record.settings

    def context(self, save_checkpoint: SaveCheckpoint = no_checkpoint) -> Context:
        """What the stage's own code may use besides its inputs and settings."""
        return Context(self.source, self.record.deployment, self.track, save_checkpoint, self.on_epoch)
