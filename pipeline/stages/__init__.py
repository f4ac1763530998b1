"""The six stages: their order, what each needs, and what each is for. A stage's module is imported when it runs."""

from dataclasses import dataclass

LABELS = "labels.txt"
"""fit_vocabulary: one tag a line, sorted; a tag's label is its line's number less one."""

CHECKPOINT = "model"
"""train: the Estimator's model_dir."""

CHAMPION = "champion"
"""An input of evaluate that is no stage's: the live version, as card.json and the SavedModel in model/. Absent where no
version is live."""

RESUME = "resume"
"""An input of train that is no stage's: the model_dir of a try that did not end. Absent where there is none."""

EVALUATION = "evaluation.json"
"""evaluate: every figure, the thresholds and the verdict."""


@dataclass(frozen=True)
class Stage:
    """`needs` are the stages whose folders it reads; `does` is one sentence for people."""

    name: str
    needs: tuple[str, ...]
    does: str


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            (),
            "Reads the source in batches; keeps posts with a text and a tag, and sets other rows aside with a reason.",
        ),
        Stage(
            "fit_vocabulary",
            ("ingest",),
            "Counts the words of the train posts only, and fixes the words and the labels the network will know.",
        ),
        Stage(
            "vectorize",
            ("ingest", "fit_vocabulary"),
            "Turns every post into a sparse vector over the vocabulary, as Parquet.",
        ),
        Stage(
            "train",
            ("fit_vocabulary", "vectorize"),
            "Builds the Keras network, converts it with model_to_estimator, and trains the Estimator.",
        ),
        Stage(
            "evaluate",
            ("ingest", "fit_vocabulary", "vectorize", "train"),
            "Measures the Estimator on the test posts and holds the result against the threshold: below, the run ends.",
        ),
        Stage(
            "export",
            ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"),
            "Exports a SavedModel that reads raw text, proves in a fresh process that it answers as the Estimator "
            "does, and publishes it.",
        ),
    )
}
