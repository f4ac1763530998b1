"""Measure pairs of words, compared with scikit-learn, words compared with Polars, and the accuracy of a tuned model."""

import json
import math
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import polars
import pyarrow as pa
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.process import spent
from benchmarks.table import Row
from benchmarks.whole import HALF, TAGGER
from pipeline.data.vectors import vectorize_all
from pipeline.data.vocabulary import count_words
from pipeline.data.words import FILTERS

SIZE = 40_000
BATCH = 4000
ROUNDS = 2
THREADS = 2
SKLEARN_RATIO, POLARS_RATIO = 10, 2
"""The bounds: how many times as fast as the peers."""

SEEDS = (0, 1, 2)
LINEAR = {"LinearSVC, words and pairs": ["pairs"], "LinearSVC, and signs": ["pairs", "signs"]}
"""The peers of a tuned model, with the options of benchmarks.linear."""


def pair_rows(posts: list[str], rounds: int = ROUNDS) -> list[Row]:
    """Time counting and vectorizing in turn with the peers, on the same posts, and compare the best rounds."""
    batches = [pa.array(posts[start : start + BATCH], pa.string()) for start in range(0, len(posts), BATCH)]
    made = dict[str, Any]()

    def vectors() -> Any:
        records = (pa.record_batch({"post": batch}) for batch in batches)
        vocabulary = made["count words and pairs"]
        made_of = vectorize_all(records, vocabulary, size=SIZE, mode="log_tfidf", threads=THREADS)
        return [each for _, each in made_of]

    sides: dict[str, Callable[[], Any]] = {
        "count words": partial(count_words, batches, size=SIZE, threads=THREADS),
        "Polars, extract_all": partial(_polars, posts),
        "count words and pairs": partial(count_words, batches, size=SIZE, ngrams=2, threads=THREADS),
        "TfidfVectorizer.fit": lambda: TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, max_features=SIZE - 1
        ).fit(posts),
        "make vectors of pairs": vectors,
        "TfidfVectorizer.transform": lambda: made["TfidfVectorizer.fit"].transform(posts),
    }
    seconds = dict.fromkeys(sides, math.inf)
    for _ in range(rounds):
        for side, work in sides.items():
            made.pop(side, None)
            start = time.perf_counter()
            made[side] = work()
            seconds[side] = min(seconds[side], time.perf_counter() - start)
    names = list(sides)
    bounds = (POLARS_RATIO, SKLEARN_RATIO, SKLEARN_RATIO)
    return [
        Row(ours, "posts/s", len(posts) / seconds[ours], peer, len(posts) / seconds[peer], bound)
        for ours, peer, bound in zip(names[::2], names[1::2], bounds, strict=True)
    ]


def _polars(posts: list[str]) -> polars.DataFrame:
    """Count words as a person would with Polars; its lower case differs from ours on a few characters."""
    word = f"[^{re.escape(FILTERS.strip())}\t\n ]+"
    return polars.Series("word", posts).str.to_lowercase().str.extract_all(word).explode().value_counts(sort=True)


def tuned_rows(source: str, seeds: tuple[int, ...] = SEEDS) -> list[Row]:
    """Search settings and train the winner, with several seeds; compare accuracy on the test half with LinearSVC's."""
    settings = ["--source", source, "--set", HALF]
    runs = []
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        for seed in seeds:
            chosen = [*settings, "--store", f"{scratch}/{seed}", "--set", f"seed={seed}"]
            search = spent([TAGGER, "tune", "bench", *chosen])
            spent([TAGGER, "run", *chosen, "--set", "tuned=bench"])
            shown = json.loads(spent([TAGGER, "show", "--store", f"{scratch}/{seed}", "--json"]).printed)
            runs.append((search.cpu, shown["accuracy"]))
    accuracies = [accuracy for _, accuracy in runs]
    rows = [Row("tagger tune", "CPU s", mean(cpu for cpu, _ in runs), reach=240, least=True)]
    for peer, options in LINEAR.items():
        linear = json.loads(spent([sys.executable, "-m", "benchmarks.linear", source, *options]).printed)["accuracy"]
        rows += [
            Row(f"tuned, mean of {len(seeds)} seeds", "accuracy", mean(accuracies), peer, linear, 1),
            Row(f"tuned, worst of {len(seeds)} seeds", "accuracy", min(accuracies), peer, linear, 1),
        ]
    return rows
