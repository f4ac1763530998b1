"""The settings of a run."""

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import override

from pipeline.errors import BadInput, escape_control
from pipeline.settings.base import Base, field

PARAMETERS = "Run Parameters"
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


def _warn(default: float, what: str, ge: float = 0, le: float | None = 1) -> Any:
    return field(default, DATA, f"{what}; above this the run continues with a warning.", ge=ge, le=le)


def _fail(default: float, what: str, ge: float = 0, le: float | None = 1) -> Any:
    return field(default, DATA, f"{what}; above this the run is refused.", ge=ge, le=le)


Objection = Literal["regression", "tags", "incomparable", "drift", "newer", "withdrawn"]
OBJECTIONS: tuple[Objection, ...] = get_args(Objection)
"""What stands against a publication and can be forced, each by its name."""

OBJECTION_NAMES = ", ".join(OBJECTIONS)


def _names(text: str | None) -> frozenset[str]:
    """The names of a text that separates them by commas."""
    return frozenset(filter(None, map(str.strip, (text or "").split(","))))


class Settings(Base):
    """The settings of one run; the defaults are those of the article that the network comes from."""

    NULLABLE = frozenset({"force", "force_reason", "keep_tags", "min_accuracy", "retired_tags", "tuned"})

    source: str = field(
        "sample://posts?rows=4000&seed=0",
        PARAMETERS,
        "Where the posts are: the path, http(s):// address or fsspec URL of a CSV or JSON Lines file, Stack Overflow's "
        "Posts.xml (all may be gzipped) or a Parquet file; a folder of such files (of an object store, with a slash at "
        "its end), or a pattern such as posts/*.csv; "
        "bigquery://project.dataset.table or bigquery://?query=SQL; or sample://posts?rows=N&seed=N for synthetic "
        "posts. Airflow's trigger form accepts only allowed_sources.",
        min_length=1,
    )
    text_column: str = field("post", PARAMETERS, "Column that holds the post's text.", min_length=1)
    tag_column: str = field(
        "tags",
        PARAMETERS,
        "Column that holds the post's tag or tags: one as text, or several with vertical bars between them, each in "
        "angle brackets, or as a list.",
        min_length=1,
    )
    multi_tag: bool = field(
        False,
        PARAMETERS,
        "A post may have several tags, and the model gives each post all the tags whose probability reaches the tag's "
        "threshold; otherwise a post with several is rejected, unless keep_tags is set. The thresholds are picked on "
        "the validation posts, see validation_fraction; without any, each is 0.5.",
    )
    keep_tags: str | None = field(
        None,
        PARAMETERS,
        "Tags to learn, separated by commas, such as python, java; a post's other tags do not count. Posts that have "
        "none of them are left out, and so are those that have several of them, unless multi_tag is set. If none, "
        "every tag is learned.",
    )
    learn_feedback: bool = field(
        False,
        PARAMETERS,
        "Add to the posts of the source those whose tag users told `tagger serve`, from the store's feedback/tagged. "
        "They come last, so that split=hash is the right split.",
    )
    max_rejected_fraction: float = field(
        0.01,
        PARAMETERS,
        "Share of rows, 0 to 1, that may be unusable and rejected; above this the run is refused.",
        ge=0,
        le=1,
    )
    reuse: bool = field(
        True,
        PARAMETERS,
        "Use the cached result of an earlier run for each stage whose data, settings and code have not changed.",
    )
    tuned: str | None = field(
        None,
        PARAMETERS,
        "The tuning whose winner this run trains: its name, or latest. The winner's settings replace the run's own. If "
        "none, the run's own are used.",
    )
    split: Literal["sequential", "hash"] = field(
        "sequential",
        PARAMETERS,
        "Which posts are for training and which for testing. sequential: the first ones are for training. hash: each "
        "post's content decides, so that no post changes sides as the data grows.",
    )
    train_fraction: float = field(
        0.8, PARAMETERS, "Share of posts, between 0 and 1, to train on; the rest are for testing.", gt=0, lt=1
    )
    validation_fraction: float = field(
        0.0,
        PARAMETERS,
        "Share of the train posts, 0 to 0.5, that are not learned from: after each epoch training measures loss and "
        "accuracy on them. Each post's content decides. 0: none.",
        ge=0,
        le=0.5,
    )
    drop_test_posts: bool = field(
        False,
        PARAMETERS,
        "Leave out the test posts, as a tuning does, so that no choice can depend on them; such a run can go on until "
        "train, because there is nothing to evaluate on.",
    )
    drop_duplicates: bool = field(
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
    vocabulary_size: int = field(
        1000,
        "Words",
        "Length of a post's vector, as Keras num_words, 2 to 1,000,000. Index 0 is not used, so 1000 means 999 words.",
        ge=2,
        le=1_000_000,
    )
    word_rule: Literal["keras", "signs"] = field(
        "keras",
        "Words",
        "What a word is. keras: as in Keras's Tokenizer, which drops signs such as # and +. signs: the same words, and "
        "each sign is a word, too; with ngrams=2, c# and c++ are then told from c.",
    )
    ngrams: int = field(
        1,
        "Words",
        "1 for a vocabulary of words, 2 for one of words and pairs of neighbouring words; the most frequent are used.",
        ge=1,
        le=2,
    )
    min_documents: int = field(
        1, "Words", "Train posts, 1 or more, in which a word or pair must occur to be in the vocabulary.", ge=1
    )
    vector_mode: Literal["binary", "count", "freq", "tfidf", "log_tfidf"] = field(
        "binary",
        "Words",
        "What a vector says of each word. As in Keras texts_to_matrix: whether it occurs (binary), how often (count), "
        "its share of the post (freq), or its tf-idf weight (tfidf). As scikit-learn's TfidfVectorizer with "
        "sublinear_tf: its tf-idf weight, with each post's vector scaled to length 1 (log_tfidf).",
    )
    hidden_units: int = field(512, "Network", "Units of the hidden layer, 1 to 65,536.", ge=1, le=65_536)
    dropout: float = field(
        0.0, "Network", "Share of hidden units, 0 to below 1, that each training step drops.", ge=0, lt=1
    )
    epochs: int = field(2, "Training", "How often training goes through all training posts, 1 to 1,000.", ge=1, le=1000)
    patience: int = field(
        0,
        "Training",
        "Early stopping: training ends after that many epochs without a higher accuracy on the validation posts, and "
        "the best epoch's weights are kept. It needs validation posts, see validation_fraction. 0: never.",
        ge=0,
    )
    batch_size: int = field(128, "Training", "Posts in one training step, 1 to 65,536.", ge=1, le=65_536)
    optimizer: Literal["adam", "lazy_adam"] = field(
        "adam",
        "Training",
        "Adam as in Keras, or lazy Adam, which updates in each step only the weights of words in the batch: faster "
        "with a large vocabulary.",
    )
    learning_rate: float = field(
        0.001, "Training", "Learning rate of the optimizer, above 0.", gt=0, allow_inf_nan=False
    )
    checkpoint_steps: int = field(
        500,
        "Training",
        "Training steps, 1 or more, between two checkpoints in the store; a retry of train continues from the last.",
        ge=1,
    )
    warm_start: Literal["none", "live"] = field(
        "none",
        "Training",
        "live: training begins from the weights of the live model, matched by the names of words and tags; what is new "
        "begins at random. It needs fewer epochs, and the result depends on what was live. none: all weights begin at "
        "random.",
    )
    class_weights: Literal["none", "balanced"] = field(
        "none",
        "Training",
        "balanced: in training a post of a rare tag counts for more, so that all tags together count the same, which "
        "helps the recall of rare tags. none: all posts count the same.",
    )
    temperature: float = field(
        1.0,
        "Training",
        "Number above 0 that the trained network's logits are divided by: above 1 its probabilities are less sure, "
        "below 1 surer; its tags stay the same.",
        gt=0,
        allow_inf_nan=False,
    )
    fit_temperature: bool = field(
        False,
        "Training",
        "Find the temperature with which the probabilities fit the validation posts best, and use it in place of the "
        "setting. It needs validation posts, see validation_fraction.",
    )
    seed: int = field(0, "Training", "Seed of the initial weights and of the shuffling, 0 to 2^31 - 1.", ge=0, lt=2**31)
    min_accuracy: float | None = field(
        0.80,
        "Gate",
        "Accuracy on the test posts, 0 to 1, below which nothing is published: the share of posts that get their tag, "
        "or with multi_tag exactly their tags. It must be set: if it is empty (or none), nothing is published at all.",
        ge=0,
        le=1,
    )
    min_tag_recall: float = field(
        0.0,
        "Gate",
        "Recall of the worst tag, 0 to 1, below which nothing is published; 0 switches this off.",
        ge=0,
        le=1,
    )
    min_macro_f1: float = field(
        0.0,
        "Gate",
        "F1 score, the mean of all tags, 0 to 1, below which nothing is published; 0 switches this off.",
        ge=0,
        le=1,
    )
    max_regression: float = field(
        0.01,
        "Gate",
        "Largest loss of accuracy, 0 to 1, against the live model on the test posts that it has not learned; with a "
        "larger one nothing is published. 1: any loss is accepted.",
        ge=0,
        le=1,
    )
    publish: bool = field(
        True,
        "Gate",
        "Publish the model if it passes. false: for an experiment; the model is exported and has a report, and what is "
        "live stays.",
    )
    when_unsure: Literal["keep", "publish", "ask"] = field(
        "keep",
        "Gate",
        "What happens if the comparison cannot tell whether the model is worse than the live one by more than "
        "max_regression, or not worse at all. keep: the live model stays. publish: the new one is published. ask: a "
        "person decides, by the task approve or `tagger approve`.",
    )
    min_compared_posts: int = field(
        200,
        "Gate",
        "Test posts that the live model has not learned, 1 or more, below which the comparison cannot tell. Fewer than "
        "180 cannot show that two models differ by less than 0.01, even if they agree on every post.",
        ge=1,
    )
    retired_tags: str | None = field(
        None,
        "Gate",
        "Tags of the live model, separated by commas, that the new model may lack. A tag that is lost and not named "
        "here stops the publication.",
    )
    force: str | None = field(
        None,
        "Gate",
        "Objections that force_reason overrides, separated by commas: regression (worse than the live model, or it "
        "cannot be told), tags (a tag is lost), incomparable (the live model cannot be asked, or is of other posts), "
        "drift (a fail_ limit against the live model's data), newer (the live model's data is newer), withdrawn (a "
        "person took this model down). No threshold can be overridden.",
    )
    force_reason: str | None = field(
        None,
        "Gate",
        "Why the objections that force names do not count; it is stored permanently. Empty (or none): nothing is "
        "forced.",
    )

    @property
    def kept_tags(self) -> frozenset[str]:
        """The tags of keep_tags; empty for all."""
        return _names(self.keep_tags)

    @property
    def retired(self) -> frozenset[str]:
        """The tags of retired_tags."""
        return _names(self.retired_tags)

    def forced(self, objection: Objection) -> str | None:
        """The reason to override the objection; None if it is not overridden."""
        return self.force_reason if objection in _names(self.force) else None

    @classmethod
    @override
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Make settings as Base.of does; BadInput also where only one of force and force_reason is set."""
        settings = super().of(values)
        if settings.force and not settings.force_reason:
            raise BadInput(f"force={settings.force} needs a reason: set force_reason, too")
        if settings.force_reason and not settings.force:
            raise BadInput(
                f"force_reason needs the objections that it overrides: set force to one or more of {OBJECTION_NAMES}"
            )
        return settings

    @field_validator("force")
    @classmethod
    def _known_objections(cls, value: str | None) -> str | None:
        """Refuse names that are not objections, which would override nothing."""
        unknown = sorted(_names(value) - set(OBJECTIONS))
        if unknown:
            raise PydanticCustomError(
                "force", "{unknown} cannot be forced: name one or more of {known}",
                {"unknown": ", ".join(unknown), "known": OBJECTION_NAMES},
            )  # fmt: skip
        return value

    @field_validator("class_weights")
    @classmethod
    def _of_one_tag(cls, value: str, info: ValidationInfo) -> str:
        """Refuse what multi_tag cannot be combined with."""
        if value == "balanced" and info.data.get("multi_tag"):
            raise PydanticCustomError("multi_tag", "it weighs posts of one tag, so with multi_tag set it to none")
        return value

    @field_validator("force_reason")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        """Make the reason one visible line, because it is logged and stored."""
        return value and escape_control(value.strip())
