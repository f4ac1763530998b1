"""The settings of a run and of a deployment: their names, ranges, defaults and meanings."""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipeline.errors import BadInput, escape_control
from pipeline.source_policy import SAMPLE, is_url, refuse_secrets

PREFIX = "TAGGER_"
MAX_SOURCE_BYTES = 64 * 2**30
"""Enough for all questions ever asked on Stack Overflow, about 24 million of 2 KB each."""

FIRST = "Run Parameters"
"""The one section of Airflow's trigger form that is not collapsed at first."""

DATA = "Data"
COPIES = "Share of posts, 0 to 1, that are copies of an earlier one"
LEAKED = "Share of test posts, 0 to 1, that are copies of a train post"
TAG_DRIFT = "Jensen-Shannon divergence, 0 to 1, between the run's tags and those that the live model was trained on"
WORD_DRIFT = "Jensen-Shannon divergence, 0 to 1, between the run's words and those that the live model was trained on"
UNKNOWN_WORDS = "Rise, 0 to 1, in the share of words that the live model does not know"
LENGTH_CHANGE = (
    "Factor, 1 or more, between the median length of the run's posts and of those that the live model was trained on"
)


def root() -> Path:
    """The folder of the default store: AIRFLOW_HOME, else the folder that contains this package."""
    return Path(os.environ.get("AIRFLOW_HOME") or Path(__file__).parent.parent).absolute()


def _field(default: Any, section: str, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"section": section}, **limits)


def _of_deployment(description: str, **rest: Any) -> Any:
    return Field(description=description, json_schema_extra={"section": "Deployment"}, **rest)


def _warn(default: float, what: str, ge: float = 0, le: float | None = 1) -> Any:
    return _field(default, DATA, f"{what}; above this the run continues with a warning.", ge=ge, le=le)


def _fail(default: float, what: str, ge: float = 0, le: float | None = 1) -> Any:
    return _field(default, DATA, f"{what}; above this the run is refused.", ge=ge, le=le)


class _Settings(BaseModel):
    """The base of both kinds of settings: immutable, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    NULLABLE: ClassVar[frozenset[str]]
    """The settings that may be none."""

    @field_validator("*", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any, info: ValidationInfo) -> Any:
        """Read "none", "null" and empty text as no value, since variables and command lines hold only text."""
        is_none = isinstance(value, str) and value.strip().lower() in {"", "none", "null"}
        return None if is_none and info.field_name in cls.NULLABLE else value

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from names and values; BadInput lists each that is unknown or out of range."""
        _refuse_unknown(values, cls)
        try:
            return cls(**values)
        except ValidationError as error:
            faults = [f"{e['loc'][0]}={e['input']!r}: {e['msg'][:1].lower()}{e['msg'][1:]}" for e in error.errors()]
            raise BadInput(f"{'; '.join(faults)}; correct the setting and start again") from None


class Settings(_Settings):
    """The settings of one run; the defaults are those of the article that the network comes from."""

    NULLABLE = frozenset({"min_accuracy", "force_reason"})

    source: str = _field(
        "sample://posts?rows=4000&seed=0",
        FIRST,
        "Where the posts are: the path, http(s):// address or fsspec URL of a CSV, CSV.gz or Parquet file, or "
        "sample://posts?rows=N&seed=N for synthetic posts. Airflow's trigger form accepts only allowed_sources.",
        min_length=1,
    )
    text_column: str = _field("post", FIRST, "Column that holds the post's text.", min_length=1)
    tag_column: str = _field("tags", FIRST, "Column that holds the post's one tag.", min_length=1)
    max_rejected_fraction: float = _field(
        0.01,
        FIRST,
        "Share of rows, 0 to 1, that may be unusable and rejected; above this the run is refused.",
        ge=0,
        le=1,
    )
    reuse: bool = _field(
        True,
        FIRST,
        "Use the cached result of an earlier run for each stage whose data, settings and code have not changed.",
    )
    split: Literal["sequential", "hash"] = _field(
        "sequential",
        FIRST,
        "Which posts are for training and which for testing. sequential: the first ones are for training. hash: each "
        "post's content decides, so that no post changes sides as the data grows.",
    )
    train_fraction: float = _field(
        0.8, FIRST, "Share of posts, between 0 and 1, to train on; the rest are for testing.", gt=0, lt=1
    )
    drop_duplicates: bool = _field(
        False, DATA, "Keep only the first of several posts with the same text, and reject the others."
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
        "Length of a post's vector, as Keras num_words, 2 to 1,000,000. Index 0 is not used, so 1000 means 999 words.",
        ge=2,
        le=1_000_000,
    )
    ngrams: int = _field(
        1,
        "Words",
        "1 for a vocabulary of words, 2 for one of words and pairs of neighbouring words; the most frequent are used.",
        ge=1,
        le=2,
    )
    min_documents: int = _field(
        1, "Words", "Train posts, 1 or more, in which a word must occur at least to be in the vocabulary.", ge=1
    )
    vector_mode: Literal["binary", "count", "freq", "tfidf", "log_tfidf"] = _field(
        "binary",
        "Words",
        "What a vector says of each word. As in Keras texts_to_matrix: whether it occurs (binary), how often (count), "
        "its share of the post (freq), or its tf-idf weight (tfidf). As scikit-learn's TfidfVectorizer with "
        "sublinear_tf: its tf-idf weight, with each post's vector scaled to length 1 (log_tfidf).",
    )
    hidden_units: int = _field(512, "Network", "Units of the hidden layer, 1 to 65,536.", ge=1, le=65_536)
    dropout: float = _field(
        0.0, "Network", "Share of hidden units, 0 to below 1, that each training step drops.", ge=0, lt=1
    )
    epochs: int = _field(
        2, "Training", "How often training goes through all training posts, 1 to 1,000.", ge=1, le=1000
    )
    batch_size: int = _field(128, "Training", "Posts in one training step, 1 to 65,536.", ge=1, le=65_536)
    optimizer: Literal["adam", "lazy_adam"] = _field(
        "adam",
        "Training",
        "Adam as in Keras, or lazy Adam, which updates in each step only the weights of words in the batch: several "
        "times faster with a large vocabulary.",
    )
    learning_rate: float = _field(
        0.001, "Training", "Learning rate of the optimizer, above 0.", gt=0, allow_inf_nan=False
    )
    checkpoint_steps: int = _field(
        500,
        "Training",
        "Training steps, 1 or more, between two checkpoints in the store; a retry of train continues from the last.",
        ge=1,
    )
    seed: int = _field(
        0, "Training", "Seed of the initial weights and of the shuffling, 0 to 2^31 - 1.", ge=0, lt=2**31
    )
    min_accuracy: float | None = _field(
        0.80,
        "Gate",
        "Accuracy on the test posts, 0 to 1, below which nothing is published. It must be set: if it is empty (or "
        "none), nothing is published at all.",
        ge=0,
        le=1,
    )
    min_tag_recall: float = _field(
        0.0,
        "Gate",
        "Recall of the worst tag, 0 to 1, below which nothing is published; 0 switches this off.",
        ge=0,
        le=1,
    )
    max_regression: float = _field(
        0.01,
        "Gate",
        "Largest loss of accuracy, 0 to 1, against the live model on the same test posts; with a larger one nothing is "
        "published.",
        ge=0,
        le=1,
    )
    force_reason: str | None = _field(
        None,
        "Gate",
        "A reason to publish even if the live model is better, newer, not comparable or trained on other data; it is "
        "stored permanently. min_accuracy and min_tag_recall must still be reached. Empty (or none): not forced.",
    )

    @field_validator("force_reason")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        """Make the reason one visible line, because it is logged and stored."""
        return value and escape_control(value.strip())


class Deployment(_Settings):
    """The settings of an installation, which Airflow's trigger form does not change."""

    NULLABLE = frozenset({"schedule", "store_connection"})

    keep_versions: int = _of_deployment(
        "Versions that garbage collection keeps besides the live one, 0 or more.", default=5, ge=0
    )
    keep_days: float = _of_deployment(
        "Days for which garbage collection keeps everything, 0 to 36,500.", default=30.0, ge=0, le=36_500
    )
    shards: int = _of_deployment(
        "Shards, 1 to 1,024, of the posts; fit_vocabulary and vectorize process each in an Airflow task of its own. "
        "The result is the same for any number.",
        default=1,
        ge=1,
        le=1024,
    )
    store: str = _of_deployment(
        "Where artifacts and models are stored: a folder or any fsspec URL.",
        default_factory=lambda: str(root() / "store"),
    )
    max_source_bytes: int = _of_deployment(
        "Largest size of a source, unpacked, in bytes, 1 or more; a larger one is refused before it fills the disk.",
        default=MAX_SOURCE_BYTES,
        ge=1,
    )
    store_connection: str | None = _of_deployment(
        "The Airflow connection, of type aws, with the keys to an s3:// store for Airflow's runs. If none, they come "
        "from the environment's AWS_* variables, as they do on the command line.",
        default=None,
    )
    schedule: str | None = _of_deployment(
        "When the DAG runs by itself: a cron expression or a preset such as @weekly; if none, only when triggered.",
        default="@weekly",
    )
    allowed_sources: str = _of_deployment(
        "Sources that Airflow's trigger form accepts, separated by commas: folders (relative ones are in AIRFLOW_HOME) "
        "and URLs, each with everything below it. It always accepts TAGGER_SOURCE, and the command line accepts any "
        "source.",
        default="sample://, https://storage.googleapis.com/tensorflow-workshop-examples/stack-overflow-data.csv, data",
    )

    @property
    def allowed(self) -> tuple[str, ...]:
        """The folders, as absolute paths, and URLs of allowed_sources."""
        return places(self.allowed_sources)


def read(environ: Mapping[str, str], **values: Any) -> tuple[Settings, Deployment]:
    """Combine the defaults, the environment's TAGGER_* variables and the values given; later ones win.

    Raises BadInput for a name that is unknown, a value out of range, and a secret in a source.
    """
    named = {k[len(PREFIX) :].lower(): v for k, v in environ.items() if k.startswith(PREFIX)} | values
    _refuse_unknown(named, Settings, Deployment)
    settings = Settings.of({name: value for name, value in named.items() if name in Settings.model_fields})
    deployment = Deployment.of({name: value for name, value in named.items() if name in Deployment.model_fields})
    for source in (settings.source, *deployment.allowed_sources.split(",")):
        refuse_secrets(source)
    return settings, deployment


def _refuse_unknown(names: Iterable[str], *kinds: type[_Settings]) -> None:
    known = [name for kind in kinds for name in kind.model_fields]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            cure = f"did you mean {near[0]}?" if near else "`tagger settings` lists them all"
            raise BadInput(f"no setting is named {name!r}: {cure}")


def trigger_form(settings: Settings, deployment: Deployment) -> dict[str, dict[str, Any]]:
    """The trigger form's fields: for each setting of a run, its default and its JSON Schema, as for Airflow's Param."""
    properties = Settings.model_json_schema()["properties"]
    properties["source"]["description"] = _accepted(deployment.allowed)
    return {name: {"default": getattr(settings, name), **_flat(properties[name])} for name in Settings.model_fields}


def from_form(settings: Settings, params: Mapping[str, Any]) -> tuple[Settings, bool]:
    """Make a run's settings from the trigger form, and say whether its source is restricted to allowed_sources.

    `settings` are the installation's; their source is the default and is not restricted. Any other source is, because
    not everybody who may start runs may read every file and host. Fields of the deployment's settings are ignored.
    """
    sent = {name: value for name, value in params.items() if name not in Deployment.model_fields}
    chosen = Settings.of({"source": settings.source, **sent})
    return chosen, chosen.source != settings.source


def places(allowed_sources: str) -> tuple[str, ...]:
    """Split the setting allowed_sources into folders, as absolute paths, and URLs."""
    entries = filter(None, map(str.strip, allowed_sources.split(",")))
    return tuple(entry if is_url(entry) else str(root() / Path(entry).expanduser()) for entry in entries)


def _accepted(allowed: tuple[str, ...]) -> str:
    """The trigger form's description of its field `source`: what the installation accepts there."""
    files = [place for place in allowed if not place.startswith(SAMPLE)]
    kinds = ["the source that this form starts with"]
    kinds += ["sample://posts?rows=N&seed=N for synthetic posts"] if len(files) < len(allowed) else []
    kinds += [f"a CSV, CSV.gz or Parquet file at or below {' or '.join(files)}"] if files else []
    return f"Where the posts are: {'; '.join(kinds)}. The operator can allow more (TAGGER_ALLOWED_SOURCES)."


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """Rewrite `anyOf: [number, null]` as `type: [number, null]`, the only form that Airflow's trigger form supports."""
    schema = {k: v for k, v in schema.items() if k not in {"default", "title"}}
    for branch in schema.pop("anyOf", []):
        kinds = [*schema.get("type", []), branch["type"]]
        schema |= branch | {"type": kinds}
    return schema
