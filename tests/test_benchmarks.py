"""Every part of `make bench` on few synthetic posts: its rows have figures, and both sides did the same work."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import __main__ as bench
from benchmarks import flat, text, whole, wide
from benchmarks.process import spent
from benchmarks.table import Row, head, lines
from pipeline.data.vectors import vectorize_all
from pipeline.data.vocabulary import count_words


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The posts' file and their texts."""
    folder = tmp_path_factory.mktemp("bench")
    _, source, posts = text.load(folder, real=folder / "none", synthetic=800)
    return source, posts


def assert_sound(rows: list[Row], peers: int) -> None:
    """Every row has a figure of ours, so many one of a peer, and what is called accuracy is a share."""
    assert all(row.ours > 0 for row in rows)
    assert len(rows) == len({(row.what, row.unit, row.peer) for row in rows})
    assert all((row.theirs is not None) == bool(row.peer) for row in rows)
    assert [row.theirs > 0 for row in rows if row.theirs is not None] == [True] * peers
    assert all(max(row.ours, row.theirs) <= 1 for row in rows if row.unit == "accuracy")


def test_a_bound_is_of_the_ratio_or_of_our_figure():
    table = [
        (Row("a", "posts/s", 30, "b", 10, 3), True),
        (Row("a", "posts/s", 29, "b", 10, 3), False),
        (Row("a", "s", 2.9, "b", 1, 3, least=True), True),
        (Row("a", "s", 3.1, "b", 1, 3, least=True), False),
        (Row("a", "s", 3.1, reach=3, least=True), False),
        (Row("a", "posts/s", 3.1, reach=3), True),
        (Row("a", "posts/s", 3.1), None),
    ]
    assert [row.reached for row, _ in table] == [reached for _, reached in table]


def test_all_parts_make_one_table_and_one_file(monkeypatch, tmp_path, capsys):
    parts = [[Row("a", "s", 1, "b", 2, 1, least=True)], [Row("c", "CPU s", 3)]]
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(bench, "load", lambda folder: ("some", "file", ["a post"]))
    monkeypatch.setattr(bench, "_benchmarks", lambda source, posts: iter(parts))
    bench.main()
    printed = capsys.readouterr().out
    assert printed.splitlines()[2:] == [head(), lines(parts[0]), lines(parts[1])]
    assert [row["ratio"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]] == [0.5, None]


def test_the_parse_of_the_dag_file():
    assert_sound(whole.parse_rows(rounds=1), peers=0)


@pytest.mark.thorough
def test_a_run_beside_the_scripts(loaded, monkeypatch):
    monkeypatch.setenv("TAGGER_MIN_ACCURACY", "0")  # so few posts teach little
    measured = whole.whole(loaded[0], rounds=1)
    assert_sound(whole.whole_rows(measured), peers=6)
    assert measured.notebook_cpu == measured.notebook[0].cpu


def test_words_and_vectors_are_compared_with_keras_and_scikit_learn(loaded):
    assert_sound(text.text_rows(loaded[1], rounds=1), peers=8)


def a_word_less(batches, *, size, threads):
    return count_words(batches, size=size - 1, threads=threads)


def counts(batches, vocabulary, *, mode, **how):
    return vectorize_all(batches, vocabulary, mode="count", **how)


@pytest.mark.parametrize(("name", "other"), [("count_words", a_word_less), ("vectorize_all", counts)])
def test_others_than_those_of_keras_are_not_timed(loaded, monkeypatch, name, other):
    monkeypatch.setattr(text, name, other)
    with pytest.raises(AssertionError):
        text.text_rows(loaded[1], rounds=1)


@pytest.mark.thorough
def test_training_beside_the_articles_way_and_keras_fit(loaded):
    from benchmarks.training import training_rows

    assert_sound(training_rows(loaded[0], rounds=1), peers=14)


def test_pairs_are_compared_with_scikit_learn_and_words_with_polars(loaded):
    assert_sound(wide.pair_rows(loaded[1], rounds=1), peers=3)


@pytest.mark.thorough
def test_a_tuned_model_is_compared_with_linear_svc(loaded, monkeypatch):
    few = {"MIN_ACCURACY": "0", "TRIALS": "1", "MAX_EPOCHS": "2", "SEARCH_SPACE": '{"vocabulary_size": [300]}'}
    for name, value in few.items():
        monkeypatch.setenv(f"TAGGER_{name}", value)
    assert_sound(wide.tuned_rows(loaded[0], seeds=(0,)), peers=4)


def test_memory_and_time_of_stages(tmp_path):
    flat.main([300, 600], tmp_path, ["ingest"])
    measured = json.loads((tmp_path / "flat.json").read_text())
    assert [(each.pop("stage"), each.pop("rows")) for each in measured] == [("ingest", 300), ("ingest", 600)]
    assert all(each.keys() == {"peak_mib", "cpu_seconds", "seconds"} and min(each.values()) > 0 for each in measured)
    drawn = imread(tmp_path / "flat.png")[:, :, :3]
    assert [half.std() > 0.1 for half in np.array_split(drawn, 2, axis=1)] == [True, True], "two charts, not blank"


def test_tensorflows_profiler_names_operations_and_iterators(loaded, tmp_path):
    run = ["run", "--store", str(tmp_path / "store"), "--run", "a", "--source", loaded[0], "--until", "train"]
    traced = spent([sys.executable, "-m", "benchmarks.traced", str(tmp_path / "profile"), *run])
    assert {"ResourceApplyAdam", "Iterator::Root"} <= set(traced.printed.split())


HOLD = "import time; held = bytearray(100 << 20); time.sleep(1)"


@pytest.mark.parametrize(
    ("code", "mib"),
    [
        (HOLD, 100),
        (f"import subprocess, sys; held = bytearray(100 << 20); subprocess.run([sys.executable, '-c', {HOLD!r}])", 200),
        ("import os, time; held = bytearray(100 << 20)\nif os.fork(): os.wait()\nelse: time.sleep(1)", 100),
    ],
    ids=["alone", "two at once", "a fork"],
)
def test_a_peak_is_of_all_processes_together(code, mib):
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs a system that tells a process's memory")
    assert mib < spent([sys.executable, "-c", code]).peak_mib < mib + 50
