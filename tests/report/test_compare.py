"""Runs beside each other, against what each run's own documents and predictions say."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from pipeline import Runs
from pipeline.cli import app
from pipeline.errors import BadInput
from pipeline.report import figures
from pipeline.report.compare import Comparison, Difference, corrected_for_several
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.report.test_page import Page


@pytest.fixture(scope="module")
def compared(two_runs):
    return Comparison.of([Run(two_runs, "finished"), Run(two_runs, "second")])


def test_the_settings_that_differ_and_no_others(compared):
    assert compared.settings == {"epochs": [3, 4], "max_regression": [0.01, 1.0]}


def test_scores_are_those_of_each_evaluation(compared, two_runs):
    summaries = [Run(two_runs, name).manifest("evaluate").summary for name in ("finished", "second")]
    assert compared.scores == {
        name: [summary[name] for summary in summaries] for name in ("accuracy", "macro_f1", "loss", "calibration_error")
    }
    for tag, recall in compared.recall.items():
        assert recall == [Runs(two_runs.url).by_tag(name).recall[tag] for name in ("finished", "second")]


def test_mcnemar_is_that_of_the_predictions(compared, two_runs):
    first, second = (Runs(two_runs.url).predictions(name) for name in ("finished", "second"))
    assert (first.row == second.row).all()
    right = [frame.tag == frame.predicted for frame in (first, second)]
    gained, lost = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    [difference] = compared.differences
    assert (difference.gained, difference.lost) == (gained, lost)
    assert gained + lost > 0
    assert difference.difference == pytest.approx((gained - lost) / 400)
    assert difference.p_value == pytest.approx(binomtest(gained, gained + lost).pvalue, rel=0.01)


@pytest.mark.parametrize(
    ("p_values", "corrected", "more_than_chance"),
    [
        ([0.03], [0.03], [True]),
        ([0.03, 0.04], [0.06, 0.06], [False, False]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06], [False, True, False]),
        ([0.01, 0.02, 0.02, 0.9], [0.04, 0.06, 0.06, 0.9], [True, False, False, False]),
        ([0.5, 0.9], [1.0, 1.0], [False, False]),
    ],
)
def test_several_p_values_are_corrected_by_holms_method(p_values, corrected, more_than_chance):
    """The figures are those of R's p.adjust(p, "holm")."""
    apart = Difference("apart", why_not="they were tested on different posts")
    differences = [Difference(f"run{number}", p_value=p_value) for number, p_value in enumerate(p_values)]
    *found, last = corrected_for_several([*differences, apart])
    assert [each.run for each in found] == [each.run for each in differences]
    assert [each.corrected for each in found] == pytest.approx(corrected)
    assert [each.more_than_chance for each in found] == more_than_chance
    assert {each.comparisons for each in found} == {len(p_values)}
    assert last == apart


def test_the_correction_is_said_where_there_are_several(compared, two_runs, tmp_path, capsys):
    shutil.copytree(two_runs.url, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    shutil.copytree(f"{store.url}/runs/second", f"{store.url}/runs/third")
    for name in filter(re.compile(r"([^/]+/)?[^/]+\.json").fullmatch, store.sizes("runs/second")):
        store.write(f"runs/third/{name}", store.read(f"runs/second/{name}"))
    store.write("runs/third/run.json", store.read("runs/second/run.json") | {"run": "third"})
    several = Comparison.of([Run(store, name) for name in ("finished", "second", "third")])
    page = tmp_path / "page.html"
    app(
        ["compare", "finished", "second", "third", "--store", store.url, "--output", str(page)],
        standalone_mode=False,
    )
    told, shown = capsys.readouterr().out, Page(page.read_text())
    for each in several.differences:
        sentence = each.sentence("finished")
        assert "corrected for 2 comparisons by Holm's method" in sentence
        assert sentence in told
        assert sentence in shown.words
    assert "Holm" not in compared.differences[0].sentence("finished")


def test_runs_on_other_posts_are_shown_but_not_compared_post_by_post(two_runs, hostile_run, tmp_path):
    shutil.copytree(two_runs.url, tmp_path / "store")
    shutil.copytree(f"{hostile_run.store.url}/runs/hostile", tmp_path / "store/runs/hostile")
    store = Store(str(tmp_path / "store"))
    compared = Comparison.of([Run(store, name) for name in ("finished", "hostile", "second")])
    hostile, second = compared.differences
    assert hostile.sentence("finished") == (
        "hostile is not compared with finished post by post: they were tested on different posts"
    )
    assert second == replace(Comparison.of([Run(store, "finished"), Run(store, "second")]).differences[0])
    assert compared.recall["python<b>"] == [None, compared.runs[1].evaluation["per_tag"]["python<b>"]["recall"], None]
    shown = Page(compared.render())
    assert "python<b>" in shown.words
    assert shown.elements.isdisjoint({"script", "img", "b"})


def test_the_page_says_what_the_terminal_says(compared, two_runs, tmp_path, capsys):
    app(
        ["compare", "finished", "second", "--store", two_runs.url, "--output", str(tmp_path / "page.html")],
        standalone_mode=False,
    )
    told, shown = capsys.readouterr().out, Page((tmp_path / "page.html").read_text())
    [difference] = compared.differences
    assert difference.sentence("finished") in told
    assert difference.sentence("finished") in shown.words
    assert told.splitlines()[-1] == str(tmp_path / "page.html")
    for value in (f"{score:.4f}" for scores in compared.scores.values() for score in scores):
        assert value in told
        assert value in shown.words
    assert {value for name, value in shown.attributes if name == "aria-label"} == {"learning curves"}


def test_json_has_everything(compared, two_runs, capsys):
    app(["compare", "finished", "second", "--store", two_runs.url, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == compared.to_dict()


def test_one_run_cannot_be_compared(two_runs):
    for names in (["finished"], ["finished", "finished"]):
        with pytest.raises(BadInput, match="two runs or more"):
            Comparison.of([Run(two_runs, name) for name in names])


def test_a_run_without_an_evaluation_cannot_be_compared(new_run, two_runs):
    with pytest.raises(BadInput, match="run a has not been evaluated"):
        Comparison.of([Run(two_runs, "finished"), new_run()])


def test_without_validation_posts_there_is_no_empty_plot():
    without = {"a": [{"epoch": 1, "training_loss": 0.5}, {"epoch": 2, "training_loss": 0.4}]}
    validated = {"b": [{"epoch": 1, "training_loss": 0.5, "loss": 0.6, "accuracy": 0.8}]}
    said = "accuracy on the validation posts"
    assert [said in figures.learning_curves(of) for of in (without, validated, without | validated)] == [0, 1, 1]
