"""The six stages: their order, what each needs, and what each is for. A stage's module is imported when it runs."""

from dataclasses import dataclass

LABELS = "labels.txt"
"""fit_vocabulary: one tag a line, sorted; a tag's label is its line's number less one."""

FREQUENT = "frequent"
"""fit_vocabulary: counts of more words than the vocabulary may have, in the vocabulary's form."""

CHECKPOINT = "model"
"""train: the Estimator's model_dir."""

CHAMPION = "champion"
"""An input of evaluate that is no stage's: the live version, as card.json and the SavedModel in model/. Absent where no
version is live."""

RESUME = "resume"
"""An input of train that is no stage's: the model_dir of a try that did not end. Absent where there is none."""

EVALUATION = "evaluation.json"
"""evaluate: every figure of the candidate."""

DECISION = "decision.json"
"""evaluate: the gate's verdict and all that it rests on."""


@dataclass(frozen=True)
class Stage:
    """`needs` are the stages whose folders it reads, `reads` its settings; `does` is one sentence for people.

    A stage that has `parts` can be done in as many as there are shards, at once and anywhere: `part(inputs, out,
    settings)` for each shard of the posts, then `gather(parts, out, settings)`. The result is that of `run`.
    """

    name: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    does: str
    parts: bool = False


SPLIT = ("split", "train_fraction")
NETWORK = ("vocabulary_size", "hidden_units", "dropout", "learning_rate", "checkpoint_steps", "seed")


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            (),
            (
                "source",
                "text_column",
                "tag_column",
                "max_rejected_fraction",
                *SPLIT,
                "drop_duplicates",
                "warn_duplicates",
                "fail_duplicates",
                "warn_leaked",
                "fail_leaked",
                "shards",
                "max_source_bytes",
            ),
            "Reads the source in batches; keeps posts with a text and a tag, and sets other rows aside with a reason.",
        ),
        Stage(
            "fit_vocabulary",
            ("ingest",),
            (*SPLIT, "max_rejected_fraction", "vocabulary_size"),
            "Counts the words of the train posts only, and fixes the words and the labels the network will know.",
            parts=True,
        ),
        Stage(
            "vectorize",
            ("ingest", "fit_vocabulary"),
            (*SPLIT, "vocabulary_size", "vector_mode"),
            "Turns every post into a sparse vector over the vocabulary, as Parquet.",
            parts=True,
        ),
        Stage(
            "train",
            ("fit_vocabulary", "vectorize"),
            (*NETWORK, "epochs", "batch_size"),
            "Builds the Keras network, converts it with model_to_estimator, and trains the Estimator.",
        ),
        Stage(
            "evaluate",
            ("ingest", "fit_vocabulary", "vectorize", "train"),
            (
                *NETWORK,
                *SPLIT,
                "source",
                "min_accuracy",
                "min_tag_recall",
                "max_regression",
                "force_reason",
            ),
            "Measures the Estimator on the test posts and holds the result against the threshold: below, the run ends.",
        ),
        Stage(
            "export",
            ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"),
            (*NETWORK, *SPLIT, "vector_mode"),
            "Exports a SavedModel that reads raw text, proves in a fresh process that it answers as the Estimator "
            "does, and publishes it.",
        ),
    )
}
