"""Suggests the settings of trials, by Optuna: it learns from the trials that are done, on whatever machine."""

from contextlib import suppress
from typing import Any

import optuna
from optuna.trial import TrialState

from pipeline.settings import Settings
from pipeline.settings.tuning import Range
from pipeline.store.objects import Store
from pipeline.tuning.documents import Asked, Trial
from pipeline.tuning.journal import Journal

START = {
    "vocabulary_size": 240_000,
    "word_rule": "signs",
    "ngrams": 2,
    "vector_mode": "log_tfidf",
    "hidden_units": 128,
    "dropout": 0.75,
    "learning_rate": 0.0025,
}
"""What the search tries first, as far as the search space has it: settings that do well on many texts."""

TRIAL_PATIENCE = 2
"""A trial ends after so many epochs without a higher accuracy on the validation posts."""

RANDOM = 8
"""Trials whose settings are drawn at random before the sampler learns from the others."""

optuna.logging.set_verbosity(optuna.logging.WARNING)

STATES = {"scored": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class Hopeless(Exception):
    """The trial is not among the best third at this epoch, so it is not trained to its end."""


class Search:
    """The Optuna study of a tuning.

    Its sampler is TPE (Bergstra et al. 2011), and its pruner asynchronous successive halving (Li et al. 2020).
    """

    def __init__(self, store: Store, folder: str, asked: Asked) -> None:
        self.asked = asked
        storage = optuna.storages.JournalStorage(Journal(store, f"{folder}/journal"))
        with suppress(optuna.exceptions.DuplicatedStudyError):
            if not storage.get_all_studies():
                optuna.create_study(study_name=asked.tuning, storage=storage, direction="maximize")
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
        self.study = optuna.load_study(study_name=asked.tuning, storage=storage, pruner=pruner)
        self.trial: optuna.Trial | None = None

    def ask(self, number: int) -> dict[str, Any]:
        """Suggest the settings of the trial with this number: the same as before if it was interrupted."""
        # Seeded for each trial, so that a search that was interrupted goes on as it would have.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=self.asked.settings.seed + number, n_startup_trials=RANDOM, multivariate=True
        )
        interrupted = self._running(number)
        if interrupted:
            self.trial = optuna.Trial(self.study, interrupted[0]._trial_id)
        else:
            if number == len(self.asked.references):
                self.study.enqueue_trial({name: value for name, value in START.items() if self._has(name, value)})
            self.trial = self.study.ask()
            self.trial.set_user_attr("number", number)
        fixed = {"optimizer": "lazy_adam", "epochs": self.asked.options.max_epochs, "patience": TRIAL_PATIENCE}
        return fixed | {name: self._suggest(name, values) for name, values in self._space().items()}

    def report(self, epoch: int, accuracy: float) -> None:
        """Record the trial's accuracy after an epoch; raise Hopeless if it is not worth going on."""
        assert self.trial is not None  # noqa: S101 - for the type checker: it was asked for
        self.trial.report(accuracy, epoch)
        if self.trial.should_prune():
            raise Hopeless(f"its accuracy of {accuracy:.4f} after epoch {epoch} was not among the best third")

    def settle(self, number: int, done: Trial) -> None:
        """Tell the study how the trial with this number ended, if it does not know."""
        for trial in self._running(number):
            self.study.tell(trial.number, done.accuracy, STATES[done.state])

    def _running(self, number: int) -> list[optuna.trial.FrozenTrial]:
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if trial.user_attrs.get("number") == number]

    def _space(self) -> dict[str, list[Any] | Range]:
        return self.asked.options.space

    def _has(self, name: str, value: Any) -> bool:
        values = self._space().get(name)
        if isinstance(values, Range):
            return bool(values.low <= value <= values.high)
        return bool(values and value in values)

    def _suggest(self, name: str, values: list[Any] | Range) -> Any:
        assert self.trial is not None  # noqa: S101 - for the type checker: it was asked for
        if not isinstance(values, Range):
            return self.trial.suggest_categorical(name, values)
        if Settings.model_fields[name].annotation is int:
            return self.trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
        return float(f"{self.trial.suggest_float(name, values.low, values.high, log=values.log):.6g}")
