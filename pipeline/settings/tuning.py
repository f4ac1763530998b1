"""The settings of a tuning."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from pipeline.errors import BadInput
from pipeline.settings.base import Base, field
from pipeline.settings.run import Settings


class Range(BaseModel):
    """The numbers from `low` to `high`, for a setting to search; `log` prefers the small ones evenly by their order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    log: bool = False


SEARCHABLE = (
    "vocabulary_size",
    "word_rule",
    "ngrams",
    "min_documents",
    "vector_mode",
    "hidden_units",
    "dropout",
    "batch_size",
    "learning_rate",
)
"""The settings that a tuning can search. It finds `epochs`, too, by stopping early."""

OF_WINNER = (*SEARCHABLE, "optimizer", "epochs", "temperature")
"""The settings that a run takes from a tuning's winner, and no others, whatever the result says."""


class Tuning(Base):
    """The settings of a tuning, besides those of a run that its trials share."""

    NULLABLE = frozenset({"budget_minutes"})

    search_space: dict[str, Any] = field(
        {
            "vocabulary_size": [20_000, 60_000, 120_000, 240_000],
            "word_rule": ["keras", "signs"],
            "ngrams": [1, 2],
            "vector_mode": ["tfidf", "log_tfidf"],
            "hidden_units": [128, 256],
            "dropout": {"low": 0.4, "high": 0.8},
            "learning_rate": {"low": 0.001, "high": 0.004, "log": True},
        },
        "Tuning",
        "What to search, as JSON: for each setting a list of values, or a range such as "
        '{"low": 0.001, "high": 0.004, "log": true}. Possible are ' + ", ".join(SEARCHABLE) + ".",
    )
    trials: int = field(
        20,
        "Tuning",
        "Sets of settings, 1 to 1,000, that a tuning tries besides the present ones and the last winner.",
        ge=1,
        le=1000,
    )
    max_epochs: int = field(
        10,
        "Tuning",
        "Epochs, 1 to 1,000, after which a trial ends at the latest; most end earlier.",
        ge=1,
        le=1000,
    )
    budget_minutes: float | None = field(
        None,
        "Tuning",
        "Minutes of all trials together after which no further trial is begun; if none, only trials bounds the tuning.",
        gt=0,
        allow_inf_nan=False,
    )

    @field_validator("search_space", mode="before")
    @classmethod
    def _checked(cls, value: Any) -> Any:
        """Read JSON text, and check each value by the limits of its setting."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise ValueError(f"it is not JSON ({error})") from None
        if not isinstance(value, dict) or not value:
            raise ValueError('it must name settings to search, such as {"hidden_units": [128, 256]}')
        for name, values in value.items():
            if name not in SEARCHABLE:
                raise ValueError(f"{name} cannot be searched: possible are {', '.join(SEARCHABLE)}")
            _check_searched(name, values)
        return value

    @property
    def space(self) -> dict[str, list[Any] | Range]:
        """The search space with its ranges as such."""
        return {name: Range(**each) if isinstance(each, dict) else each for name, each in self.search_space.items()}


def _check_searched(name: str, values: Any) -> None:
    """Raise ValueError if a setting cannot have these values."""
    if isinstance(values, dict):
        try:
            found = Range(**values)
        except ValidationError:
            raise ValueError(f'{name} needs numbers "low" and "high", and may have "log": true') from None
        if not found.low < found.high or (found.log and found.low <= 0):
            raise ValueError(f"{name}: low must be below high, and with log above 0")
        values = [found.low, found.high]
    if not isinstance(values, list) or not values:
        raise ValueError(f"{name} needs a list of values, or a range")
    for each in values:
        try:
            Settings.of({name: each})
        except BadInput as error:
            raise ValueError(str(error).partition(";")[0]) from None
