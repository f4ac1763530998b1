"""The settings of a run: one frozen, typed class, and the only place that knows their names, ranges and defaults."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from pipeline.errors import BadInput, inert
from pipeline.source_policy import refuse_secrets

PREFIX = "TAGGER_"
MAX_SOURCE_BYTES = 64 * 2**30
"""Room for every question that was ever asked on Stack Overflow, about 24 million, at 2 KB each."""

FIRST = "Run Parameters"
"""The one section of Airflow's trigger form that is open from the start."""

DATA = "Data"
COPIES = "Share of posts, 0 to 1, that are copies of an earlier one"
LEAKED = "Share of test posts, 0 to 1, that are copies of a train post"
TAG_DRIFT = "Jensen-Shannon divergence, 0 to 1, of the tags from those that the live model was trained on"
WORD_DRIFT = "Jensen-Shannon divergence, 0 to 1, of the words from those that the live model was trained on"
UNKNOWN_WORDS = "Rise, 0 to 1, of the share of words that the live model does not know"
LENGTH_CHANGE = "Factor, 1 or more, between the length of the median post and that which the live model was trained on"


def root() -> Path:
    """The folder that holds the store by default: AIRFLOW_HOME, else the folder above this package."""
    return Path(os.environ.get("AIRFLOW_HOME") or Path(__file__).parent.parent).absolute()


def _field(default: Any, section: str, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"section": section}, **limits)


def _warn(default: float, what: str, ge: float = 0, le: float | None = 1) -> Any:
    return _field(default, DATA, f"{what}, above which the run goes on with a reservation.", ge=ge, le=le)


def _fail(default: float, what: str, ge: float = 0, le: float | None = 1) -> Any:
    return _field(default, DATA, f"{what}, above which the run is refused.", ge=ge, le=le)


def _deployment(description: str, **rest: Any) -> Any:
    """A setting of the installation, not of one run: absent from the trigger form."""
    return Field(description=description, json_schema_extra={"section": "Deployment"}, **rest)


class Settings(BaseModel):
    """What one run is made with. Defaults are those of the article the network comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    source: str = _field(
        "sample://posts?rows=4000&seed=0",
        FIRST,
        "Where the posts are: a path, http(s)://, any fsspec URL (CSV, CSV.gz or Parquet), or "
        "sample://posts?rows=N&seed=N for invented posts.",
        min_length=1,
    )
    text_column: str = _field("post", FIRST, "Column that holds the post's text.", min_length=1)
    tag_column: str = _field("tags", FIRST, "Column that holds the post's one tag.", min_length=1)
    max_rejected_fraction: float = _field(
        0.01, FIRST, "Share of rows, 0 to 1, that may be set aside before the run is refused.", ge=0, le=1
    )
    reuse: bool = _field(
        True, FIRST, "Take over what an earlier run made of the same data with the same settings and the same code."
    )
    split: Literal["sequential", "hash"] = _field(
        "sequential",
        FIRST,
        "sequential: the first posts train, the rest test. hash: by the post's content, so that a post never "
        "changes sides as the data grows.",
    )
    train_fraction: float = _field(
        0.8, FIRST, "Share of posts, between 0 and 1, that train; the rest test.", gt=0, lt=1
    )
    drop_duplicates: bool = _field(
        False, DATA, "Keep only the first of posts with the same text; the others are set aside."
    )
    warn_duplicates: float = _warn(0.01, COPIES)
    fail_duplicates: float = _fail(0.5, COPIES)
    warn_leaked: float = _warn(0.01, LEAKED)
    fail_leaked: float = _fail(0.1, LEAKED)
    warn_tag_drift: float = _warn(0.02, TAG_DRIFT)
    fail_tag_drift: float = _fail(0.2, TAG_DRIFT)
    warn_word_drift: float = _warn(0.01, WORD_DRIFT)
    fail_word_drift: float = _fail(0.15, WORD_DRIFT)
    warn_unknown_words: float = _warn(0.05, UNKNOWN_WORDS)
    fail_unknown_words: float = _fail(0.2, UNKNOWN_WORDS)
    warn_length_change: float = _warn(1.25, LENGTH_CHANGE, ge=1, le=None)
    fail_length_change: float = _fail(2.0, LENGTH_CHANGE, ge=1, le=None)
    vocabulary_size: int = _field(
        1000,
        "Words",
        "Columns of a vector, as Keras num_words: index 0 is never used, so 1000 is 999 words; 2 to 1,000,000.",
        ge=2,
        le=1_000_000,
    )
    vector_mode: Literal["binary", "count", "freq", "tfidf"] = _field(
        "binary", "Words", "What a vector's cell holds, as Keras texts_to_matrix."
    )
    hidden_units: int = _field(512, "Network", "Units of the hidden layer, 1 to 65,536.", ge=1, le=65_536)
    dropout: float = _field(0.0, "Network", "Share of hidden units dropped in training, 0 to below 1.", ge=0, lt=1)
    epochs: int = _field(2, "Training", "Passes over the train posts, 1 to 1,000.", ge=1, le=1000)
    batch_size: int = _field(128, "Training", "Posts in a step, 1 to 65,536.", ge=1, le=65_536)
    learning_rate: float = _field(0.001, "Training", "Adam's step size, above 0.", gt=0, allow_inf_nan=False)
    checkpoint_steps: int = _field(
        500,
        "Training",
        "Steps between the checkpoints that reach the store; a retry of train goes on from the last, 1 or more.",
        ge=1,
    )
    seed: int = _field(0, "Training", "Seed of initial weights and shuffling, 0 to 2^31 - 1.", ge=0, lt=2**31)
    min_accuracy: float | None = _field(
        0.80,
        "Gate",
        "Accuracy on the test posts, 0 to 1, below which nothing is published. Empty (or none) is no threshold, and "
        "no threshold is not a pass.",
        ge=0,
        le=1,
    )
    min_tag_recall: float = _field(
        0.0, "Gate", "Recall of the worst tag, 0 to 1, below which nothing is published; 0 asks nothing.", ge=0, le=1
    )
    max_regression: float = _field(
        0.01,
        "Gate",
        "How far accuracy, 0 to 1, may be below the live model's on the same test posts.",
        ge=0,
        le=1,
    )
    force_reason: str | None = _field(
        None,
        "Gate",
        "Why to publish though the live model is better, newer, not comparable or trained on other data; kept for "
        "ever. Empty: not forced. The thresholds hold all the same.",
    )
    keep_versions: int = _deployment("Versions that retention keeps besides the live one, 0 or more.", default=5, ge=0)
    keep_days: float = _deployment(
        "Days for which retention keeps everything, 0 to 36,500.", default=30.0, ge=0, le=36_500
    )
    shards: int = _deployment(
        "Pieces of the posts that fit_vocabulary and vectorize work on, each in a task of its own where there are "
        "several, 1 to 1,024. The result is the same.",
        default=1,
        ge=1,
        le=1024,
    )
    store: str = _deployment(
        "Where artifacts and models are kept: a folder or any fsspec URL.",
        default_factory=lambda: str(root() / "store"),
    )
    max_source_bytes: int = _deployment(
        "Bytes, unpacked, after which reading a source is given up, 1 or more: no source makes a run endless or fills "
        "a disk of any size.",
        default=MAX_SOURCE_BYTES,
        ge=1,
    )
    store_connection: str | None = _deployment(
        "Airflow's connection of type aws that opens an s3:// store for its runs; none: the environment's AWS_* "
        "variables, as on the command line.",
        default=None,
    )
    schedule: str | None = _deployment(
        "When the DAG runs by itself: a cron expression, a preset such as @weekly, or none.", default="@weekly"
    )

    allowed_sources: str = _deployment(
        "Sources that may be named in Airflow's trigger form, separated by commas: folders (relative ones are in "
        "AIRFLOW_HOME) and URLs, with all that is below them. TAGGER_SOURCE may be read in any case; the command line "
        "is not limited.",
        default="sample://, https://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv, data",
    )

    @property
    def may_read(self) -> tuple[str, ...] | None:
        """The folders and URLs that the source must be in, or None where it may be anything."""
        return None

    @field_validator("min_accuracy", "force_reason", "schedule", "store_connection", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:
        """A variable or a command line can only say "none" in letters."""
        return None if isinstance(value, str) and value.strip().lower() in {"", "none", "null"} else value

    @field_validator("force_reason")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        """It is logged, and kept for ever."""
        return value and inert(value.strip())

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Settings from names and values; BadInput names each that is unknown or out of range."""
        for name in values:
            if name not in cls.model_fields:
                near = get_close_matches(name, cls.model_fields, n=1)
                cure = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(cls.model_fields)}"
                raise BadInput(f"no setting is named {name!r}: {cure}")
        try:
            return cls(**values)
        except ValidationError as error:
            faults = [f"{e['loc'][0]}={e['input']!r}: {e['msg'][:1].lower()}{e['msg'][1:]}" for e in error.errors()]
            raise BadInput(f"{'; '.join(faults)}; correct the setting and start again") from None

    @classmethod
    def read(cls, environ: Mapping[str, str], **values: Any) -> Self:
        """Defaults, then the environment's TAGGER_* variables, then the values given; BadInput for a secret in them."""
        named = {k[len(PREFIX) :].lower(): v for k, v in environ.items() if k.startswith(PREFIX)}
        settings = cls.of(named | values)
        for source in (settings.source, *settings.allowed_sources.split(",")):
            refuse_secrets(source)
        return settings

    def triggered(self, params: Mapping[str, Any]) -> "Settings":
        """A run's settings from the trigger form, where this is the installation's.

        The form decides nothing of the deployment, whatever fields were sent with it, and a source other than the
        installation's own must be among allowed_sources.
        """
        own = self.model_dump(exclude=set(self.per_run()))
        kind = Settings if params.get("source", self.source) == self.source else Restricted
        return kind.of({"source": self.source, **params, **own})

    @classmethod
    def per_run(cls) -> dict[str, FieldInfo]:
        """The settings that a person may choose anew for each run."""
        return {n: f for n, f in cls.model_fields.items() if _extra(f)["section"] != "Deployment"}

    def params(self) -> dict[str, dict[str, Any]]:
        """For each setting of a run its value here and its JSON Schema, as Airflow's Param takes them."""
        properties = type(self).model_json_schema()["properties"]
        return {name: {"default": getattr(self, name), **_flat(properties[name])} for name in self.per_run()}


class Restricted(Settings):
    """Settings whose source was named by somebody who may start runs, but need not be let at every file and host."""

    @property
    def may_read(self) -> tuple[str, ...]:
        """The entries of allowed_sources, folders as whole paths."""
        entries = filter(None, map(str.strip, self.allowed_sources.split(",")))
        return tuple(entry if "://" in entry else str(root() / Path(entry).expanduser()) for entry in entries)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return dict(field.json_schema_extra)  # type: ignore[arg-type]


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """`anyOf: [number, null]` as `type: [number, null]`, the only form of it that Airflow's trigger form draws."""
    schema = {k: v for k, v in schema.items() if k not in {"default", "title"}}
    for branch in schema.pop("anyOf", []):
        kinds = [*schema.get("type", []), branch["type"]]
        schema |= branch | {"type": kinds}
    return schema
