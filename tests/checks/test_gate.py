import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.checks.gate import Absent, Incomparable, Scores, decide
from pipeline.settings import Settings

POSTS = 1000
FIRST = Absent("this is the first")


def scores(correct, name="the candidate", recall=None):
    """A model that tags the first `correct` of 1,000 posts correctly."""
    return Scores(name, np.arange(POSTS) < correct, recall or {"a": 0.9, "b": 0.7})


def verdict(candidate, champion, **values):
    decision = decide(candidate, champion, Settings.of(values))
    return decision.verdict, decision.reasons, decision.warnings


CHAMPION = scores(900, "version 7")


def test_the_first_candidate_passes_with_a_warning():
    decision = decide(scores(900), FIRST, Settings())
    assert (decision.verdict, decision.comparison) == ("passed", None)
    assert decision.warnings == ["this is the first"]


def test_a_recall_may_fall_by_a_tenth_without_a_warning():
    champion = scores(900, "version 7", {"a": 0.8})
    assert verdict(scores(900, recall={"a": 0.7}), champion) == ("passed", [], [])
    assert len(verdict(scores(900, recall={"a": 0.69}), champion)[2]) == 1


def test_tags_without_a_test_post_are_a_warning():
    candidate = Scores("the candidate", np.ones(POSTS, bool), {"a": 1.0}, ("b", "c\x1b" + "c" * 100))
    (warning,) = verdict(candidate, CHAMPION, min_tag_recall=0.5)[2]
    assert warning.startswith("2 of the tags occur in no test post, so their recall is unknown: 'b', 'c\\x1bccc")
    assert len(warning) < 150


def test_a_better_or_equal_candidate_passes_without_a_warning():
    assert verdict(scores(950), CHAMPION) == ("passed", [], [])
    assert verdict(scores(900), CHAMPION) == ("passed", [], [])


def test_a_regression_within_the_limit_is_a_warning():
    passed, reasons, warnings = verdict(scores(890), CHAMPION)
    assert (passed, reasons) == ("passed", [])
    assert warnings == [
        "accuracy 0.8900 is 0.0100 below the 0.9000 of the live model, version 7, on the same posts "
        "(p = 0.00195, more than chance)"
    ]


def test_a_regression_beyond_the_limit_fails():
    failed, reasons, _ = verdict(scores(889), CHAMPION)
    assert failed == "failed"
    assert reasons[0].endswith("more than chance), more than max_regression 0.01")


def test_a_difference_that_is_not_significant_may_be_chance():
    champion, candidate = scores(900, "version 7"), scores(900)
    candidate.correct[:4] = False
    candidate.correct[900:903] = True
    comparison = decide(candidate, champion, Settings()).comparison
    assert (comparison["gained"], comparison["lost"], comparison["more_than_chance"]) == (3, 4, False)
    assert comparison["p_value"] == 1.0


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 5), (0, 6), (20, 40), (7, 7)])
def test_the_p_value_is_that_of_mcnemars_exact_test(gained, lost):
    """Two-sided: twice the smaller tail of the binomial distribution with p = 1/2, at most 1."""
    champion, candidate = scores(500, "version 7"), scores(500)
    candidate.correct[:lost] = False
    candidate.correct[500 : 500 + gained] = True
    p_value = decide(candidate, champion, Settings(min_accuracy=0)).comparison["p_value"]
    few, all_of_them = min(gained, lost), gained + lost
    tail = binomtest(few, all_of_them, alternative="less").pvalue if all_of_them else 1
    assert p_value == pytest.approx(min(1, 2 * tail), rel=1e-2)


def test_an_incomparable_champion_fails_the_candidate_unless_forced():
    champion = Incomparable("version 7", "it knows other tags: it lacks rust")
    failed, reasons, _ = verdict(scores(900), champion)
    assert (failed, reasons) == (
        "failed",
        ["the live model, version 7, cannot be compared with this one (it knows other tags: it lacks rust)"],
    )
    passed, reasons, warnings = verdict(scores(900), champion, force_reason="rust is new")
    assert (passed, reasons) == ("passed", [])
    assert warnings[0].endswith("; forced: rust is new")


def test_force_reason_overrides_the_champion_but_no_threshold():
    assert verdict(scores(850), CHAMPION, force_reason="new tags")[0] == "passed"
    failed, reasons, _ = verdict(scores(750), CHAMPION, force_reason="new tags")
    assert (failed, reasons) == ("failed", ["accuracy 0.7500 on the test posts is below min_accuracy 0.8"])


@pytest.mark.parametrize(("correct", "threshold", "passes"), [(800, 0.8, True), (799, 0.8, False), (0, 0.0, True)])
def test_an_accuracy_equal_to_the_threshold_passes(correct, threshold, passes):
    assert (verdict(scores(correct), FIRST, min_accuracy=threshold)[0] == "passed") == passes


def test_without_min_accuracy_no_candidate_passes():
    failed, reasons, _ = verdict(scores(1000), FIRST, min_accuracy=None)
    assert failed == "failed"
    assert reasons == ["min_accuracy is not set, so no model can pass: set it (the accuracy of this one is 1.0000)"]


def test_min_tag_recall_applies_to_the_worst_tag():
    assert verdict(scores(900), FIRST, min_tag_recall=0.7)[0] == "passed"
    failed, reasons, _ = verdict(scores(900), FIRST, min_tag_recall=0.71)
    assert failed == "failed"
    assert reasons == ["recall 0.7000 of tag 'b' is below min_tag_recall 0.71"]


def test_a_tag_whose_recall_fell_is_a_warning():
    before = scores(900, "version 7", {"a": 0.95, "b": 0.9})
    after = scores(900, recall={"a": 0.96, "b": 0.79})
    assert verdict(after, before) == ("passed", [], ["recall of tag 'b' fell from 0.9000 to 0.7900"])
