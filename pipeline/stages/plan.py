"""The table of the six stages: their order, their inputs, and everything else that the runner must know.

A stage's module, `pipeline.stages.<name>`, is imported when it runs. Its `run(inputs, out, settings, context)` gets the
inputs as a mapping from names to local folders and an empty folder `out`, and returns a dataclass: its summary.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.data import FEEDBACK_FILE as FEEDBACK_FILE
from pipeline.data import LABELS as LABELS  # fit_vocabulary: the tags

FREQUENT = "frequent"
"""fit_vocabulary: a folder with a Vocabulary of more words than the network knows, to measure drift."""

MODEL_DIR = "model"
"""train: the Estimator's model_dir."""

VALIDATED = "validated.parquet"
"""train: the network's answer to each validation post, in the order of the posts, if there are any."""

EVALUATION = "evaluation.json"
"""evaluate: the candidate's scores."""

DECISION = "decision.json"
"""evaluate: the gate's verdict, and the scores, thresholds and posts that led to it."""

CONFUSION_MATRIX = "confusion_matrix.png"
"""evaluate: the drawing of it, where a post has one tag."""

CHAMPION = "champion"
"""A further input: the live version, as its card and the SavedModel in model/. Absent if no version is live."""

CARD = "card.json"
"""The card in that input, and in the next one."""

WARM_START = "warm_start"
"""A further input: the same, where the setting warm_start is live."""

FEEDBACK = "feedback"
"""A further input: the file FEEDBACK_FILE of the posts whose tag users told, where learn_feedback asks for them."""

RESUME = "resume"
"""A further input: the checkpoint of an interrupted attempt. Absent if there is none."""

FurtherInput = Literal["champion", "feedback", "resume", "warm_start"]


@dataclass(frozen=True)
class Stage:
    """An entry of the table: everything that the runner must know about a stage.

    `needs` are the stages whose folders it reads; a stage that needs none begins its run. `reads` are the settings, of
    the run or of the deployment, that its result depends on. `does` is a sentence for users.

    `sharded_by` names the input that comes in shards, if the stage can process shards in parallel, on any machine:
    `run_shard(inputs, out, settings, context)` for each, then `gather(shards, out, settings, context)`, with the same
    result as `run`. `by_cluster` says that the processes of a TF_CONFIG cluster run the stage together.

    `further_inputs` are inputs that no stage of the run makes. The stage that `reads_source` depends on what the source
    holds; before the one that `checks_drift` the run's data are compared with the champion's. The result of the one
    that `makes_report` is shown in the run's report, that of the one that `publishes` goes live, and after those that
    `mirrors` the run is copied to MLflow.
    """

    name: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    does: str
    sharded_by: str | None = None
    by_cluster: bool = False
    further_inputs: tuple[FurtherInput, ...] = ()
    reads_source: bool = False
    checks_drift: bool = False
    makes_report: bool = False
    publishes: bool = False
    mirrors: bool = False

    @property
    def asks_champion(self) -> bool:
        """Whether the stage depends on which version is live."""
        return self.checks_drift or not {CHAMPION, WARM_START}.isdisjoint(self.further_inputs)


NETWORK = (
    "vocabulary_size",
    "multi_tag",
    "hidden_units",
    "dropout",
    "optimizer",
    "learning_rate",
    "checkpoint_steps",
    "seed",
)

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            needs=(),
            reads=(
                "source",
                "text_column",
                "tag_column",
                "keep_tags",
                "multi_tag",
                "learn_feedback",
                "max_rejected_fraction",
                "split",
                "train_fraction",
                "validation_fraction",
                "drop_test_posts",
                "drop_duplicates",
                "warn_duplicates",
                "fail_duplicates",
                "warn_leaked",
                "fail_leaked",
                "shards",
                "max_source_bytes",
            ),
            does="Reads the source in batches, keeps the posts with a text and a tag, and decides which of them train.",
            further_inputs=("feedback",),
            reads_source=True,
        ),
        Stage(
            "fit_vocabulary",
            needs=("ingest",),
            reads=(
                "multi_tag",
                "train_fraction",
                "validation_fraction",
                "drop_test_posts",
                "max_rejected_fraction",
                "vocabulary_size",
                "word_rule",
                "ngrams",
                "min_documents",
            ),
            does="Counts the words of the train posts, if asked also pairs of words, and fixes the words and the tags "
            "that the network will know.",
            sharded_by="ingest",
        ),
        Stage(
            "vectorize",
            needs=("ingest", "fit_vocabulary"),
            reads=("multi_tag", "vocabulary_size", "vector_mode"),
            does="Turns every post into a sparse vector over the vocabulary, as Parquet.",
            sharded_by="ingest",
            checks_drift=True,
        ),
        Stage(
            "train",
            needs=("fit_vocabulary", "vectorize"),
            reads=(
                *NETWORK,
                "vector_mode",
                "epochs",
                "batch_size",
                "patience",
                "warm_start",
                "class_weights",
                "temperature",
                "fit_temperature",
            ),
            does="Builds the Keras network, converts it with model_to_estimator, and trains the Estimator.",
            by_cluster=True,
            further_inputs=("resume", "warm_start"),
        ),
        Stage(
            "evaluate",
            needs=("ingest", "fit_vocabulary", "vectorize", "train"),
            reads=(
                *NETWORK,
                "source",
                "warm_start",
                "min_accuracy",
                "min_tag_recall",
                "min_macro_f1",
                "max_regression",
                "when_unsure",
                "min_compared_posts",
                "retired_tags",
                "force",
                "force_reason",
            ),
            does="Tests the Estimator on the test posts and compares it with the thresholds and with the live model; "
            "if it does not pass, the run ends here.",
            further_inputs=("champion",),
            makes_report=True,
            mirrors=True,
        ),
        Stage(
            "export",
            needs=("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"),
            reads=(*NETWORK, "vector_mode"),
            does="Exports a SavedModel that reads raw text, checks in a fresh process that it answers as the Estimator "
            "does, and publishes it.",
            publishes=True,
            mirrors=True,
        ),
    )
}

FIRST, LAST = next(iter(STAGES)), next(reversed(STAGES))

LEARNS, JUDGES = "train", "evaluate"
"""The stages whose results are the model, and the gate's verdict on it."""
