"""The stored documents of a tuning: what was asked, and what came of it."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from pipeline.errors import BadInput
from pipeline.settings import Deployment, Settings, Tuning
from pipeline.settings.tuning import OF_WINNER
from pipeline.store.documents import Document
from pipeline.store.names import Name


def _of_winner(values: dict[str, Any]) -> dict[str, Any]:
    """The values, if they are settings that a tuning may set, each within its limits."""
    if others := values.keys() - set(OF_WINNER):
        raise ValueError(f"a tuning does not set {', '.join(sorted(others))}")
    try:
        Settings.of(values)
    except BadInput as error:
        raise ValueError(str(error).partition(";")[0]) from None
    return values


Tried = Annotated[dict[str, Any], AfterValidator(_of_winner)]
"""The settings of a trial, which may become those of a run."""


class Asked(Document):
    """What a tuning was begun with; `references` are settings that are tried besides those that the search suggests."""

    WHAT = "tuning"

    tuning: Name
    created: datetime
    settings: Settings
    options: Tuning
    deployment: Deployment
    restricted: bool = False
    references: dict[str, Tried] = Field(default_factory=dict)
    posts: str | None = None  # digest of the posts, once they are ingested

    def to_dict(self) -> dict[str, Any]:
        """The document as a dict of JSON values, without the address of the store."""
        return self.model_dump(mode="json", exclude={"deployment": {"store"}})


class Trial(Document):
    """One set of settings that was tried, with its accuracy on the validation posts by epoch.

    `state` is `scored`, `stopped` (it was hopeless and not trained to its end), or `failed`. `origin` says where the
    settings come from: `search`, or the name of a reference.
    """

    WHAT = "trial"

    number: int
    origin: str
    state: str
    settings: Tried
    accuracy: float | None = None
    best_epoch: int | None = None
    temperature: float = 1.0  # fitted to the validation posts
    curve: list[dict[str, float]] = Field(default_factory=list)
    seconds: float
    why: str = ""

    def text(self, names: Iterable[str]) -> str:
        """These settings of the trial, as on a command line."""
        return " ".join(f"{name}={self.settings[name]}" for name in names)


class Comparison(BaseModel):
    """The winner against another trial, on the same validation posts, with the p-value of McNemar's exact test."""

    trial: int
    accuracy: float
    difference: float
    gained: int
    lost: int
    p_value: float
    more_than_chance: bool


class Result(Document):
    """The outcome of a tuning: every trial, the winner, and the winner against each reference, by its name."""

    WHAT = "tuning's result"

    tuning: Name
    finished: datetime
    source: str
    posts: str
    validation_posts: int
    searched: list[str]
    trials: list[Trial]
    winner: int
    against: dict[str, Comparison]

    @model_validator(mode="after")
    def _has_a_winner(self) -> Self:
        """Refuse a result without a winner, or whose winner has settings that no run can have."""
        if self.winner not in {trial.number for trial in self.trials if trial.accuracy is not None}:
            raise ValueError("its winner is not one of the trials that were scored")
        _of_winner(self.winning_settings)
        return self

    @property
    def best(self) -> Trial:
        """The trial that won."""
        return next(trial for trial in self.trials if trial.number == self.winner)

    @property
    def sentence(self) -> str:
        """The outcome in a sentence."""
        best = self.best
        others = [
            f"{self.against[origin].difference:+.4f} against the {origin} (p = {self.against[origin].p_value:g}, "
            f"{'more than chance' if self.against[origin].more_than_chance else 'may be chance'})"
            for origin in self.against
            if self.against[origin].trial != best.number
        ]
        settings = f"{best.text(self.searched)} epochs={best.best_epoch} temperature={best.temperature:g}"
        return (
            f"trial {best.number} has accuracy {best.accuracy:.4f} on {self.validation_posts:,} validation posts, with "
            f"{settings}{'; ' if others else ''}{', '.join(others)}"
        )

    @property
    def winning_settings(self) -> dict[str, Any]:
        """The settings of a run that trains the winner on all train posts: its own, epochs, and temperature."""
        return self.best.settings | {"epochs": self.best.best_epoch, "temperature": self.best.temperature}
