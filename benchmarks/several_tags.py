"""Measure posts with several tags against scikit-learn: `python -m benchmarks.several_tags [posts.csv]`.

Half of the posts are joined with another post of another tag, in the same half of the file, and have both tags. Ours is
a run with `multi_tag`; the peers train one linear SVM, or one logistic regression, for each tag. Both are tested on the
second half.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

from benchmarks.linear import OPTIONS
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run

REAL_POSTS = Path(__file__).parents[2] / "shared" / "data" / "stack-overflow-16k.csv"
Measure = Callable[[], dict[str, float]]

SETTINGS: dict[str, dict[str, object]] = {
    "the article's network": {"epochs": 2},
    "3 epochs of 20,000 words": {
        "epochs": 3,
        "vocabulary_size": 20_000,
        "vector_mode": "log_tfidf",
        "dropout": 0.5,
    },
    "words, signs and pairs": {
        "epochs": 6,
        "patience": 2,
        "vocabulary_size": 40_000,
        "vector_mode": "log_tfidf",
        "dropout": 0.5,
        "ngrams": 2,
        "word_rule": "signs",
    },
}

PEERS: list[tuple[str, object, dict[str, Any]]] = [
    ("logistic regressions on TF-IDF", LogisticRegression(max_iter=200), {}),
    ("linear SVMs on TF-IDF", LinearSVC(), {}),
    ("linear SVMs on words, signs and pairs", LinearSVC(), OPTIONS["signs"] | {"ngram_range": (1, 2)}),
]


def joined(data: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The posts, half of them with another one of another tag behind; each half of the file stays by itself."""
    random, posts, tags = np.random.default_rng(seed), *(data[name].to_numpy(object) for name in ("post", "tags"))
    other = np.concatenate([random.permutation(half) for half in np.split(np.arange(len(data)), [len(data) // 2])])
    both = (random.random(len(data)) < 0.5) & (tags != tags[other])
    return pd.DataFrame(
        {
            "post": np.where(both, posts + " " + posts[other], posts),
            "tags": np.where(both, tags + "|" + tags[other], tags),
        }
    )


def ours(source: Path, folder: Path, settings: dict[str, object]) -> dict[str, float]:
    """Run the stages until evaluate, and read its figures."""
    run = Run(Store(str(folder / "store")), "several")
    fixed = {"source": str(source), "multi_tag": True, "train_fraction": 0.5, "validation_fraction": 0.1}
    run.begin(Settings.of(fixed | {"min_accuracy": 0, "reuse": False} | settings), datetime.now(UTC))
    for stage in list(STAGES)[:-1]:
        run_stage(stage, run)
    run.files.fetch(run.manifests()["evaluate"], folder / "evaluated", ["evaluation.json"])
    found = json.loads((folder / "evaluated/evaluation.json").read_text())
    return {"accuracy": found["accuracy"], "micro F1": found["several_tags"]["micro_f1"], "macro F1": found["macro_f1"]}


def theirs(data: pd.DataFrame, model: object, **words: Any) -> dict[str, float]:
    """Train on the first half of the posts and test on the second."""
    half = len(data) // 2
    true = MultiLabelBinarizer().fit_transform(data["tags"].str.split("|"))
    fitted = make_pipeline(TfidfVectorizer(sublinear_tf=True, **words), OneVsRestClassifier(model))
    said = fitted.fit(data["post"][:half], true[:half]).predict(data["post"][half:])
    true = true[half:]
    return {
        "accuracy": float((said == true).all(axis=1).mean()),
        "micro F1": float(f1_score(true, said, average="micro")),
        "macro F1": float(f1_score(true, said, average="macro")),
    }


def main() -> None:
    """Print a row for each model."""
    data = joined(pd.read_csv(sys.argv[1] if len(sys.argv) > 1 else REAL_POSTS))
    print(f"| on {len(data) // 2:,} posts | accuracy | micro F1 | macro F1 | seconds |")
    print("|---|---|---|---|---|")
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        source = Path(scratch, "posts.csv")
        data.to_csv(source, index=False)
        measured: list[tuple[str, Measure]] = [
            (name, partial(ours, source, Path(scratch, str(at)), changed))
            for at, (name, changed) in enumerate(SETTINGS.items())
        ]
        for name, model, words in PEERS:
            measured.append((f"scikit-learn, {name}", partial(theirs, data, model, **words)))
        for name, measure in measured:
            started = time.monotonic()
            figures = [f"{each:.4f}" for each in measure().values()]
            print(f"| {name} | {' | '.join(figures)} | {time.monotonic() - started:.1f} |", flush=True)


if __name__ == "__main__":
    main()
