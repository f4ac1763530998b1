"""A tuning in a store: begins it, does its trials one by one, and finds the winner.

Each step may run in another process, on another machine. A trial is a run of the stages up to train, in a store of the
tuning's own, whose cache they share. It never sees a test post.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.checks.comparison import mcnemar
from pipeline.data import posts
from pipeline.errors import BadInput, TrainingFailed
from pipeline.files import scratch_folder
from pipeline.progress import Track, log_lines
from pipeline.run.runner import run_stage
from pipeline.settings import Deployment, Settings, Tuning
from pipeline.settings.tuning import SEARCHABLE
from pipeline.source_policy import checked, refuse_secrets
from pipeline.stages.plan import VALIDATED
from pipeline.store.hold import hold
from pipeline.store.names import required
from pipeline.store.objects import Store
from pipeline.store.runs import RESULT, TUNING, TUNINGS, Run
from pipeline.tuning.documents import Asked, Comparison, Result, Trial
from pipeline.tuning.search import Hopeless, Search
from pipeline.tuning.winner import latest

OF_TRIAL = ("ingest", "fit_vocabulary", "vectorize", "train")
"""The stages of a trial."""

PRESENT, PREVIOUS = "present settings", "previous winner"
"""The references: the settings that runs have now, and those that the last tuning found."""

TUNED = (*SEARCHABLE, "optimizer")
"""The settings that a winner has, besides its epochs."""

VALIDATION = 0.2
"""The share of the train posts to validate on, where the settings name none."""


class TuningRun:
    """A tuning in a store, by its name."""

    def __init__(self, store: Store, name: str) -> None:
        """Raises BadInput for a name that cannot name a folder."""
        self.store, self.name, self.path = store, required(name, "tuning"), f"{TUNINGS}/{name}"

    def asked(self) -> Asked:
        """What the tuning was begun with; BadInput if it was not begun."""
        asked = self.store.load(f"{self.path}/{TUNING}", Asked)
        if asked is None:
            raise BadInput(
                f"{self.store.url} holds no tuning {self.name!r}: `tagger tunings` lists those that are finished"
            )
        return asked

    def begin(self, asked: Asked, track: Track = log_lines) -> Asked:
        """Begin the tuning, or go on with it, and ingest its posts.

        Raises BadInput if it was begun with other settings or on other posts, and what ingest raises.
        """
        refuse_secrets(asked.settings.source)
        if asked.restricted:
            checked(asked.settings.source, asked.deployment.allowed)
        path, previous = f"{self.path}/{TUNING}", latest(self.store, without=self.name)
        references = {PRESENT: {name: getattr(asked.settings, name) for name in (*TUNED, "epochs")}}
        if previous:
            references[PREVIOUS] = previous.winning_settings
        asked = asked.model_copy(update={"references": references})
        if not self.store.create(path, asked.to_dict()):
            known = self.asked()
            if (known.settings, known.options) != (asked.settings, asked.options):
                raise BadInput(f"tuning {self.name} was begun with other settings: begin this one under a new name")
            asked = known
        posts = self._run(asked, "posts", asked.settings)
        run_stage("ingest", posts, track)
        digest = posts.inputs("fit_vocabulary", ["ingest"])["ingest"].digest
        if asked.posts not in (None, digest):
            raise BadInput(
                f"{asked.settings.source} has other posts than when tuning {self.name} was begun, so its trials cannot "
                "be compared: begin one under a new name"
            )
        asked = asked.model_copy(update={"posts": digest})
        self.store.write(path, asked.to_dict())
        return asked

    def _run(self, asked: Asked, name: str, settings: Settings) -> Run:
        run = Run(self.store.within(f"{self.path}/trials"), name)
        run.begin(settings, asked.created, deployment=asked.deployment, restricted=asked.restricted)
        return run

    def held(self) -> AbstractContextManager[Callable[[], None]]:
        """Keep other processes from doing this tuning; BadInput if another one is doing it.

        Gives a function to call before each trial: BadInput if another process took the tuning over.
        """
        return hold(self.store, self.name)

    def trials(self) -> list[Trial]:
        """The trials that are done, in the order of their numbers."""
        folder = f"{self.path}/done"
        read = (self.store.load(f"{folder}/{name}", Trial) for name in self.store.names(folder))
        return sorted((trial for trial in read if trial), key=lambda trial: trial.number)

    def spent(self, asked: Asked) -> bool:
        """Whether the trials have taken as long as budget_minutes allows."""
        budget = asked.options.budget_minutes
        return budget is not None and sum(trial.seconds for trial in self.trials()) >= 60 * budget

    def do_trial(self, asked: Asked, number: int, track: Track = log_lines) -> Trial:
        """Do the trial of this number, unless it is done: first the references, then what the search suggests.

        A trial that was interrupted is done again. Raises what the stages raise, except TrainingFailed.
        """
        path, search = f"{self.path}/done/{number:04d}.json", Search(self.store, self.path, asked)
        if trial := self.store.load(path, Trial):
            search.settle(number, trial)
            return trial
        origins = dict(enumerate(asked.references))
        values = asked.references[origins[number]] if number in origins else search.ask(number)
        origin, curve = origins.get(number, "search"), list[dict[str, float]]()

        def on_epoch(epoch: int, figures: Mapping[str, float]) -> None:
            curve.append({"epoch": epoch, **figures})
            if not math.isfinite(figures["loss"]):
                raise TrainingFailed(f"the loss on the validation posts is {figures['loss']} after epoch {epoch}")
            if number not in origins:
                search.report(epoch, figures["accuracy"])

        state, why, start, found = "scored", "", time.monotonic(), dict[str, Any]()
        settings = Settings.of(asked.settings.model_dump() | values)
        try:
            run = self._run(asked, f"trial{number}", settings)
            for stage in OF_TRIAL:
                found = run_stage(stage, run, track, on_epoch)
            curve = found["curve"]
        except Hopeless as error:
            state, why = "stopped", str(error)
        except TrainingFailed as error:
            state, why = "failed", str(error)
        trial = Trial(
            number=number,
            origin=origin,
            state=state,
            settings={name: getattr(settings, name) for name in TUNED},
            best_epoch=(found["best_epoch"] or len(curve)) if state == "scored" else None,
            accuracy=curve[(found["best_epoch"] or len(curve)) - 1]["accuracy"] if state == "scored" else None,
            temperature=found["temperature"] if state == "scored" else 1.0,
            curve=curve,
            seconds=round(time.monotonic() - start, 2),
            why=why,
        )
        self.store.write(path, trial.model_dump(mode="json"))
        search.settle(number, trial)
        return trial

    def finish(self, asked: Asked) -> Result:
        """Find the winner, compare it with the references, and store the result; TrainingFailed if there is none."""
        trials = self.trials()
        scored = [trial for trial in trials if trial.accuracy is not None]
        if not scored:
            why = next((trial.why for trial in trials if trial.why), "none was done")
            raise TrainingFailed(f"no trial of tuning {self.name} succeeded ({why}): correct the settings to search")
        winner = max(scored, key=lambda trial: (trial.accuracy or 0.0, -trial.number))
        right = self._right(asked, winner)
        references = [trial for trial in scored if trial.origin in asked.references]
        result = Result(
            tuning=self.name,
            finished=datetime.now(UTC),
            source=asked.settings.source,
            posts=asked.posts or "",
            validation_posts=len(right),
            searched=list(asked.options.search_space),
            trials=trials,
            winner=winner.number,
            against={trial.origin: _compare(winner, trial, right, self._right(asked, trial)) for trial in references},
        )
        self.store.write(f"{self.path}/{RESULT}", result.to_dict())
        return result

    def _right(self, asked: Asked, trial: Trial) -> Any:
        """Whether the trial's network tags each validation post correctly: bool [validation posts]."""
        run = Run(self.store.within(f"{self.path}/trials"), f"trial{trial.number}")
        with scratch_folder("tuning") as scratch:
            run.files.fetch(run.manifests()["train"], scratch, [VALIDATED])
            table = pq.read_table(Path(scratch, VALIDATED))
        return posts.correct(table)


def _compare(winner: Trial, other: Trial, right: Any, others: Any) -> Comparison:
    gained, lost, p_value, more_than_chance = mcnemar(right, others)
    return Comparison(
        trial=other.number,
        accuracy=other.accuracy or 0.0,
        difference=round((winner.accuracy or 0.0) - (other.accuracy or 0.0), 6),
        gained=gained,
        lost=lost,
        p_value=p_value,
        more_than_chance=more_than_chance,
    )


def asked_of(
    name: str,
    settings: Settings,
    options: Tuning,
    deployment: Deployment,
    created: datetime,
    *,
    restricted: bool = False,
) -> Asked:
    """What to begin a tuning with: the settings of a run, without its test posts and with posts to validate on."""
    base = settings.model_copy(
        update={
            "validation_fraction": settings.validation_fraction or VALIDATION,
            "drop_test_posts": True,
            "patience": 0,
            "fit_temperature": True,
            "tuned": None,
        }
    )
    return Asked(
        tuning=name, created=created, settings=base, options=options, deployment=deployment, restricted=restricted
    )
