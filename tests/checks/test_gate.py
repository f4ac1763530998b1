import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.checks.gate import Absent, Incomparable, Scores, decide
from pipeline.settings import Settings

POSTS = 1000
FIRST = Absent("this is the first")


def scores(right, name="the candidate", recall=None):
    """A model that tags the first `right` of 1,000 posts rightly."""
    return Scores(name, np.arange(POSTS) < right, recall or {"a": 0.9, "b": 0.7})


def verdict(candidate, champion, **values):
    decision = decide(candidate, champion, Settings.of(values))
    return decision.verdict, decision.reasons, decision.warnings


CHAMPION = scores(900, "version 7")


def test_the_first_has_no_champion_and_says_so():
    decision = decide(scores(900), FIRST, Settings())
    assert (decision.verdict, decision.comparison) == ("passed", None)
    assert decision.warnings == ["this is the first"]


def test_a_recall_that_fell_by_just_so_much_is_no_reservation():
    champion = scores(900, "version 7", {"a": 0.8})
    assert verdict(scores(900, recall={"a": 0.7}), champion) == ("passed", [], [])
    assert len(verdict(scores(900, recall={"a": 0.69}), champion)[2]) == 1


def test_tags_without_a_test_post_are_told():
    candidate = Scores("the candidate", np.ones(POSTS, bool), {"a": 1.0}, ("b", "c\x1b" + "c" * 100))
    (warning,) = verdict(candidate, CHAMPION, min_tag_recall=0.5)[2]
    assert warning.startswith("no test post bears 2 of the tags, so their recall is not known: 'b', 'c\\x1bccc")
    assert len(warning) < 150


def test_a_better_one_passes_without_a_word():
    assert verdict(scores(950), CHAMPION) == ("passed", [], [])
    assert verdict(scores(900), CHAMPION) == ("passed", [], [])


def test_a_worse_one_within_limits_passes_with_a_warning():
    passed, reasons, warnings = verdict(scores(890), CHAMPION)
    assert (passed, reasons) == ("passed", [])
    assert warnings == [
        "accuracy 0.8900 is 0.0100 below the 0.9000 of the live model, version 7, on the same posts "
        "(p = 0.00195, more than chance)"
    ]


def test_a_worse_one_beyond_limits_fails():
    failed, reasons, _ = verdict(scores(889), CHAMPION)
    assert failed == "failed"
    assert reasons[0].endswith("more than chance), more than max_regression 0.01")


def test_a_difference_that_may_be_chance_is_called_so():
    champion, candidate = scores(900, "version 7"), scores(900)
    candidate.right[:4] = False
    candidate.right[900:903] = True
    comparison = decide(candidate, champion, Settings()).comparison
    assert (comparison["gained"], comparison["lost"], comparison["more_than_chance"]) == (3, 4, False)
    assert comparison["p_value"] == 1.0


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 5), (0, 6), (20, 40), (7, 7)])
def test_mcnemars_exact_test(gained, lost):
    """Two-sided: twice the smaller tail of the binomial distribution with one half, one at the most."""
    champion, candidate = scores(500, "version 7"), scores(500)
    candidate.right[:lost] = False
    candidate.right[500 : 500 + gained] = True
    p_value = decide(candidate, champion, Settings(min_accuracy=0)).comparison["p_value"]
    few, all_of_them = min(gained, lost), gained + lost
    tail = binomtest(few, all_of_them, alternative="less").pvalue if all_of_them else 1
    assert p_value == pytest.approx(min(1, 2 * tail), rel=1e-2)


def test_an_incomparable_champion_stops_the_gate_unless_forced():
    champion = Incomparable("version 7", "it knows other tags: it lacks rust")
    failed, reasons, _ = verdict(scores(900), champion)
    assert (failed, reasons) == (
        "failed",
        ["the live model, version 7, cannot be compared (it knows other tags: it lacks rust)"],
    )
    passed, reasons, warnings = verdict(scores(900), champion, force_reason="rust is new")
    assert (passed, reasons) == ("passed", [])
    assert warnings[0].endswith("; forced: rust is new")


def test_force_overrules_the_champion_but_no_threshold():
    assert verdict(scores(850), CHAMPION, force_reason="new tags")[0] == "passed"
    failed, reasons, _ = verdict(scores(750), CHAMPION, force_reason="new tags")
    assert (failed, reasons) == ("failed", ["accuracy 0.7500 on the test posts is below min_accuracy 0.8"])


@pytest.mark.parametrize(("right", "threshold", "passes"), [(800, 0.8, True), (799, 0.8, False), (0, 0.0, True)])
def test_the_threshold_itself_passes(right, threshold, passes):
    assert (verdict(scores(right), FIRST, min_accuracy=threshold)[0] == "passed") == passes


def test_no_threshold_is_not_a_pass():
    failed, reasons, _ = verdict(scores(1000), FIRST, min_accuracy=None)
    assert failed == "failed"
    assert "held against no threshold, which is not a pass: set min_accuracy" in reasons[0]


def test_the_worst_tag_has_a_threshold_of_its_own():
    assert verdict(scores(900), FIRST, min_tag_recall=0.7)[0] == "passed"
    failed, reasons, _ = verdict(scores(900), FIRST, min_tag_recall=0.71)
    assert failed == "failed"
    assert reasons == ["recall 0.7000 of tag 'b' is below min_tag_recall 0.71"]


def test_a_tag_that_fell_is_a_reservation():
    before = scores(900, "version 7", {"a": 0.95, "b": 0.9})
    after = scores(900, recall={"a": 0.96, "b": 0.79})
    assert verdict(after, before) == ("passed", [], ["recall of tag 'b' fell from 0.9000 to 0.7900"])
