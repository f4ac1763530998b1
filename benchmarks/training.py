"""Measure the speed of training, compared with the article's Estimator and with Keras's fit."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow.python.framework import config as determinism

from benchmarks.table import SAME, Row
from pipeline import progress
from pipeline.data import posts
from pipeline.data.vectors import as_matrix
from pipeline.model import input_fn, network, training
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run

WORDS, MANY_WORDS, PAIRS = 1000, 20_000, 40_000
PAIRS_SETTINGS = {"ngrams": 2, "vector_mode": "log_tfidf", "hidden_units": 128, "optimizer": "lazy_adam"}
ROUNDS = 3
FIRST = 2
"""The first steps, which are not timed: in them TensorFlow prepares the graph, with and without summaries."""

ARTICLE, FIT = "numpy_input_fn, dense in memory", "Keras fit, dense in memory"

ARTICLE_RATIO, MANY_WORDS_RATIO, LAZY_RATIO, PAIRS_RATIO = 1.5, 0.5, 0.7, 0.5
"""The bounds: of the ratio to the article's speed, and of the ratios of the speeds with many words and with few."""


@dataclass
class Trained:
    """One training: the time at the end of each step, the seconds of the whole call, and the accuracy."""

    ends: list[float]
    seconds: float = 0.0
    accuracy: float = 0.0

    def pace(self, examples: int, batch_size: int) -> float:
        """Examples per second over all steps but the FIRST."""
        return (examples - FIRST * batch_size) / (self.ends[-1] - self.ends[FIRST - 1])


def training_rows(source: str, rounds: int = ROUNDS) -> list[Row]:
    """Train on half of the posts in each way in turn.

    A speed is that of the fastest round without its first two steps, and so without building the graph and without what
    the pipeline reads in advance, one window of at most 16,384 posts. The seconds of the whole call, of the shortest
    round, include all of that, the conversion of the network, and the Estimators' checkpoints. An accuracy is the mean
    of the rounds.
    """
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        few, many = (_vectors(Path(scratch, str(words)), source, words) for words in (WORDS, MANY_WORDS))
        pairs = _vectors(Path(scratch, "pairs"), source, PAIRS, **PAIRS_SETTINGS)
        lazy = _with(many, optimizer="lazy_adam")
        dense, dense_many = ([_dense(vectors, side) for side in posts.SIDES_OF_SPLIT] for vectors in (few, many))
        ways: list[Callable[[Path], Trained]] = [
            lambda folder: _ours(folder, *few),
            lambda folder: _article(folder, few[1], *dense),
            lambda folder: _fit(few[1], *dense),
            lambda folder: _ours(folder, *many),
            lambda folder: _article(folder, many[1], *dense_many),
            lambda folder: _ours(folder, *lazy),
            lambda folder: _ours(folder, *pairs),
        ]
        done = [[_once(train) for train in ways] for _ in range(rounds)]
    examples, batch = few[1].epochs * len(dense[0][1]), few[1].batch_size
    ours, article, fit, ours_many, article_many, ours_lazy, ours_pairs = (
        _Way(each, examples, batch) for each in zip(*done, strict=True)
    )
    name_lazy, name_pairs = f"train, {MANY_WORDS:,} words, lazy Adam", f"train, {PAIRS:,} words and pairs, lazy Adam"
    name, name_many = (f"train, {words:,} words" for words in (WORDS, MANY_WORDS))
    whole, whole_many = (f"{each}, the whole call" for each in (name, name_many))
    return [
        Row(name, "examples/s", ours.pace, ARTICLE, article.pace, ARTICLE_RATIO),
        Row(name, "examples/s", ours.pace, FIT, fit.pace),
        Row(name_many, "examples/s", ours_many.pace, f"ours, {WORDS:,} words", ours.pace, MANY_WORDS_RATIO),
        Row(name_many, "examples/s", ours_many.pace, ARTICLE, article_many.pace),
        Row(whole, "s", ours.seconds, ARTICLE, article.seconds, least=True),
        Row(whole, "s", ours.seconds, FIT, fit.seconds, least=True),
        Row(whole_many, "s", ours_many.seconds, ARTICLE, article_many.seconds, least=True),
        Row(name, "accuracy", ours.accuracy, ARTICLE, article.accuracy, SAME),
        Row(name, "accuracy", ours.accuracy, FIT, fit.accuracy, SAME),
        Row(name_many, "accuracy", ours_many.accuracy, ARTICLE, article_many.accuracy, SAME),
        Row(name_lazy, "examples/s", ours_lazy.pace, f"ours, {WORDS:,} words", ours.pace, LAZY_RATIO),
        Row(name_lazy, "accuracy", ours_lazy.accuracy, "ours, Adam", ours_many.accuracy, SAME),
        Row(name_pairs, "examples/s", ours_pairs.pace, f"ours, {WORDS:,} words", ours.pace, PAIRS_RATIO),
        Row(name_pairs, "accuracy", ours_pairs.accuracy, "ours, Adam", ours_many.accuracy),
    ]


class _Way:
    """All rounds of one way: fastest speed, shortest time, mean accuracy."""

    def __init__(self, rounds: Sequence[Trained], examples: int, batch_size: int) -> None:
        self.pace = max(done.pace(examples, batch_size) for done in rounds)
        self.seconds = min(done.seconds for done in rounds)
        self.accuracy = float(np.mean([done.accuracy for done in rounds]))


def _once(train: Callable[[Path], Trained]) -> Trained:
    # The default of TensorFlow, which may be faster for the peers; the pipeline turns determinism on by itself.
    determinism.disable_op_determinism()
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        return train(Path(scratch, "model"))


def _ours(folder: Path, vectors: Path, settings: Settings, tags: int) -> Trained:
    done = Trained([])

    @contextmanager
    def clock(*_: Any) -> Iterator[progress.Advance]:
        yield lambda steps: done.ends.append(time.perf_counter()) if steps else None

    with _timed(done):
        training.train(vectors, folder, settings, tags, clock, lambda folder, step: None)
    with network.trained(folder, settings, tags) as estimator:
        test = input_fn.testing(vectors, columns=settings.vocabulary_size, tags=tags)
        done.accuracy = float(estimator.evaluate(test)["accuracy"])
    return done


@contextmanager
def _timed(done: Trained) -> Iterator[None]:
    start = time.perf_counter()
    yield
    done.seconds = time.perf_counter() - start


class _Clock(tf.estimator.SessionRunHook):
    def __init__(self, ends: list[float]) -> None:
        self.ends = ends

    def after_run(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def _article(folder: Path, settings: Settings, train: list[np.ndarray], test: list[np.ndarray]) -> Trained:
    def feed(side: list[np.ndarray], epochs: int) -> Any:
        vectors, labels = side
        return tf.compat.v1.estimator.inputs.numpy_input_fn(
            {"posts_input": vectors}, labels, batch_size=settings.batch_size, num_epochs=epochs, shuffle=epochs > 1
        )

    done = Trained([])
    with _timed(done):
        model = _network(settings, train[1].shape[1])
        estimator = tf.keras.estimator.model_to_estimator(model, model_dir=str(folder))
        tf.keras.backend.clear_session()
        estimator.train(feed(train, settings.epochs), hooks=[_Clock(done.ends)])
    done.accuracy = float(estimator.evaluate(feed(test, 1))["accuracy"])
    return done


def _fit(settings: Settings, train: list[np.ndarray], test: list[np.ndarray]) -> Trained:
    done = Trained([])
    clock = tf.keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: done.ends.append(time.perf_counter()))
    with _timed(done):
        model = _network(settings, train[1].shape[1])
        model.fit(*train, settings.batch_size, settings.epochs, verbose=0, callbacks=[clock])
    done.accuracy = float(model.evaluate(*test, verbose=0)[1])
    return done


def _network(settings: Settings, tags: int) -> tf.keras.Model:
    """Build the article's network, for dense rows."""
    tf.keras.utils.set_random_seed(settings.seed)
    hidden = tf.keras.layers.Dense(settings.hidden_units, "relu", input_shape=(settings.vocabulary_size,), name="posts")
    model = tf.keras.Sequential([hidden, tf.keras.layers.Dense(tags, "softmax", name="labels")])
    optimizer = tf.keras.optimizers.legacy.Adam(settings.learning_rate)
    model.compile(optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def _with(vectors: tuple[Path, Settings, int], **values: Any) -> tuple[Path, Settings, int]:
    """The same vectors with other settings."""
    folder, settings, tags = vectors
    return folder, settings.model_copy(update=values), tags


def _vectors(folder: Path, source: str, words: int, **values: Any) -> tuple[Path, Settings, int]:
    """Run the pipeline up to vectorize; return the folder of vectors, the settings, and the number of tags."""
    run = Run(Store(str(folder / "store")), "bench")
    settings = Settings.of({"source": source, "train_fraction": 0.5, "vocabulary_size": words} | values)
    run.begin(settings, datetime.now(UTC))
    for stage in ("ingest", "fit_vocabulary", "vectorize"):
        run_stage(stage, run)
    made = run.manifests()
    run.files.fetch(made["vectorize"], folder / "vectors")
    return folder / "vectors", settings, made["fit_vocabulary"].summary["tags"]


def _dense(vectors: tuple[Path, Settings, int], side: posts.Side) -> list[np.ndarray]:
    """Read one side's vectors, float32 [n, words], and its one-hot labels, float32 [n, tags]."""
    folder, settings, tags = vectors
    table = pa.Table.from_batches(posts.batches(folder, side))
    labels = np.eye(tags, dtype=np.float32)[table.column("label").to_numpy()]
    return [as_matrix(table, settings.vocabulary_size).toarray(), labels]
