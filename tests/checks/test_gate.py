import re
from typing import get_args

import numpy as np
import pytest

from pipeline.checks.comparison import Coverage
from pipeline.checks.gate import Absent, Champion, Incomparable, Scores, decide
from pipeline.checks.verdict import action_of
from pipeline.errors import BadInput
from pipeline.settings import Settings
from pipeline.settings.run import OBJECTIONS, Objection

POSTS = 1000
FIRST = Absent("this is the first")
LATE = {"force_reason": "new tags"}


def scores(correct, name="the candidate", recall=None, support=None):
    """A model that tags the first `correct` of 1,000 posts correctly."""
    recall = recall or {"a": 0.9, "b": 0.7}
    return Scores(name, np.arange(POSTS) < correct, recall, support=support or dict.fromkeys(recall, 10))


def live(correct, recall=None, candidate_recall=None, counted=None, **facts):
    """The live model, which tags the first `correct` of 1,000 posts correctly, compared on those `counted`."""
    counted = np.ones(POSTS, bool) if counted is None else counted
    coverage = Coverage(POSTS, int(counted.sum()), **facts.pop("left_out", {}))
    recall = recall or {"a": 0.9, "b": 0.7}
    answers = np.arange(POSTS) < correct
    return Champion("version 7", answers, counted, coverage, recall, candidate_recall or recall, **facts)


def decided(candidate, champion, **values):
    return decide(candidate, champion, Settings.of(values))


def verdict(candidate, champion, **values):
    decision = decided(candidate, champion, **values)
    return decision.verdict, decision.reasons, decision.warnings


CHAMPION = live(900)


def test_the_first_candidate_passes_with_a_warning():
    decision = decide(scores(900), FIRST, Settings())
    assert (decision.verdict, decision.action, decision.comparison) == ("passed", "publish", None)
    assert decision.warnings == ["this is the first"]


def test_a_better_or_equal_candidate_passes_without_a_warning():
    assert verdict(scores(950), CHAMPION) == ("passed", [], [])
    assert verdict(scores(900), CHAMPION) == ("passed", [], [])


def test_a_loss_within_the_limit_is_a_warning():
    passed, reasons, (warning,) = verdict(scores(890), CHAMPION)
    assert (passed, reasons) == ("passed", [])
    assert re.fullmatch(
        r"this model is a little worse than the live one: accuracy 0\.8900, that of the live model, version 7, "
        r"0\.9000; difference -0\.0100, 80% interval -0\.\d{4} to -0\.\d{4}; compared on all 1,000 test posts",
        warning,
    )


def test_a_loss_beyond_the_limit_fails():
    decision = decided(scores(889), CHAMPION)
    assert (decision.verdict, decision.action) == ("failed", "keep")
    (reason,) = decision.reasons
    assert reason.startswith("this model is worse than the live one by more than max_regression 0.01: accuracy 0.8890,")


def undecided():
    """Two models that differ on a tenth of the posts, and are equally good: 1,000 posts say little."""
    candidate, champion = scores(900), live(900)
    candidate.correct[:50] = False
    candidate.correct[900:950] = True
    return candidate, champion


def test_a_difference_that_may_be_either_is_kept_and_says_what_would_settle_it():
    decision = decided(*undecided())
    assert (decision.verdict, decision.action, decision.warnings) == ("cannot tell", "keep", [])
    (reason,) = decision.reasons
    assert reason.startswith(
        "it cannot be told whether this model is worse than the live one by more than max_regression 0.01, or not "
        "worse at all: accuracy 0.9000, that of the live model, version 7, 0.9000; difference +0.0000, 80% interval "
        "-0.01"
    )
    assert reason.endswith("; about 1,700 such posts would settle it (when_unsure=keep)")


@pytest.mark.parametrize("choice", ["publish", "ask"])
def test_a_setting_says_what_happens_if_it_cannot_be_told(choice):
    decision = decided(*undecided(), when_unsure=choice)
    assert (decision.verdict, decision.action, decision.reasons) == ("cannot tell", choice, [])
    assert decision.warnings[0].endswith(f"(when_unsure={choice})")


@pytest.mark.parametrize("choice", ["keep", "publish", "ask"])
def test_a_threshold_that_is_missed_fails_whatever_the_comparison_says(choice):
    decision = decided(*undecided(), when_unsure=choice, min_accuracy=0.95)
    assert (decision.verdict, decision.action) == ("failed", "keep")
    assert decision.reasons == ["accuracy 0.9000 on the test posts is below min_accuracy 0.95"]
    assert len(decision.warnings) == 1


def test_what_cannot_be_told_can_be_forced_as_a_regression():
    passed, reasons, (warning,) = verdict(*undecided(), force="regression", **LATE)
    assert (passed, reasons) == ("passed", [])
    assert warning.endswith("; forced: new tags")


def only(count):
    return np.arange(POSTS) < count


@pytest.mark.parametrize(("counted", "told"), [(200, True), (199, False), (0, False)])
def test_too_few_posts_that_are_new_to_the_live_model_cannot_tell(counted, told):
    champion = live(900, counted=only(counted), left_out={"learned": POSTS - counted})
    decision = decided(scores(1000), champion)
    assert decision.verdict == ("passed" if told else "cannot tell")
    if not told:
        assert decision.reasons == [
            f"it cannot be told whether this model is worse than the live one, version 7: compared on {counted} of "
            "1,000 test posts; the live model had learned the others, and min_compared_posts is 200 (when_unsure=keep)"
        ]


@pytest.mark.parametrize("counted", [0, 1])
def test_where_any_loss_is_accepted_few_posts_are_enough(counted):
    champion = live(1000, counted=only(counted), left_out={"learned": POSTS - counted})
    assert verdict(scores(900), champion, max_regression=1)[:2] == ("passed", [])


def test_only_posts_that_count_are_compared():
    """On the first 600 posts both are right; on the others the live model, which had learned them."""
    champion = live(1000, counted=only(600), left_out={"learned": 400})
    decision = decided(scores(600), champion, min_accuracy=0)
    assert decision.verdict == "passed"
    told = decision.comparison
    assert (told["candidate_accuracy"], told["champion"]["accuracy"], told["compared"]) == (1.0, 1.0, 600)
    assert told["coverage"] == "compared on 600 of 1,000 test posts; the live model had learned the others"


def test_a_model_whose_posts_are_not_known_is_compared_with_a_warning():
    champion = live(900, left_out={"learned_is_known": False})
    passed, _, (warning,) = verdict(scores(900), champion)
    assert passed == "passed"
    assert warning.startswith("the live model, version 7, does not say all posts that it learned, because it, or a ")


def test_the_live_model_itself_passes_on_any_number_of_posts():
    champion = live(900, counted=only(3), left_out={"learned": 997}, is_candidate=True)
    assert verdict(scores(900), champion) == ("passed", [], [])


def test_a_new_tag_is_named_with_its_own_recall():
    recall = {"a": 0.9, "b": 0.7, "rust": 0.25}
    candidate = scores(900, recall=recall, support={"a": 10, "b": 10, "rust": 12})
    passed, reasons, warnings = verdict(candidate, live(900, new_tags=["rust", "zig"]))
    assert (passed, reasons) == ("passed", [])
    assert warnings == [
        "tag 'rust' is new, so the live model was not asked about it: recall 0.2500 on 12 test posts",
        "tag 'zig' is new, so the live model was not asked about it: its recall is unknown on 0 test posts",
    ]
    assert verdict(candidate, live(900, new_tags=["rust"]), min_tag_recall=0.3)[0] == "failed"


def test_many_new_tags_are_counted():
    warnings = verdict(scores(900), live(900, new_tags=[f"t{at}" for at in range(7)]))[2]
    assert (len(warnings), warnings[-1]) == (6, "2 more tags are new")


def test_a_lost_tag_fails_unless_it_is_retired():
    champion = live(900, lost_tags=["flash", "silverlight"])
    failed, reasons, _ = verdict(scores(900), champion)
    assert failed == "failed"
    assert reasons == [
        "this model does not know 2 of the tags of the live model, version 7: 'flash', 'silverlight'; if they are to "
        "go, name them in retired_tags"
    ]
    assert verdict(scores(900), champion, retired_tags="flash")[1][0].startswith("this model does not know 1 of the")
    assert verdict(scores(900), champion, retired_tags=" silverlight , flash") == ("passed", [], [])


def objection(name):
    """A champion that makes the gate object by this name only."""
    return {
        "regression": live(1000),
        "tags": live(900, lost_tags=["flash"]),
        "incomparable": Incomparable("version 7", "its files are lost"),
    }[name]


@pytest.mark.parametrize("name", ["regression", "tags", "incomparable"])
@pytest.mark.parametrize("forced", OBJECTIONS)
def test_only_the_objection_that_is_named_is_forced(name, forced):
    passed, _, warnings = verdict(scores(900), objection(name), force=forced, **LATE)
    assert (passed == "passed") == (name == forced)
    assert any(warning.endswith("; forced: new tags") for warning in warnings) == (name == forced)


@pytest.mark.parametrize("forced", OBJECTIONS)
def test_only_a_forced_regression_settles_what_cannot_be_told(forced):
    expected = "passed" if forced == "regression" else "cannot tell"
    assert verdict(*undecided(), force=forced, **LATE)[0] == expected
    few = live(900, counted=only(10), left_out={"learned": 990})
    assert verdict(scores(900), few, force=forced, **LATE)[0] == expected


def test_several_objections_are_forced_together():
    champion = live(1000, lost_tags=["flash"])
    assert verdict(scores(900), champion, force="tags", **LATE)[0] == "failed"
    assert verdict(scores(900), champion, force="tags, regression", **LATE)[0] == "passed"


@pytest.mark.parametrize("forced", OBJECTIONS)
def test_no_threshold_can_be_forced(forced):
    failed, reasons, _ = verdict(scores(750), CHAMPION, force=f"{forced},regression", **LATE)
    assert (failed, reasons) == ("failed", ["accuracy 0.7500 on the test posts is below min_accuracy 0.8"])


@pytest.mark.parametrize(
    "values", [{"force": "tags"}, LATE, {"force": "everything"} | LATE, {"force": "tags;newer"} | LATE]
)
def test_what_is_forced_has_a_name_and_a_reason(values):
    with pytest.raises(BadInput, match="force"):
        Settings.of(values)


def test_the_description_names_every_objection():
    described = Settings.model_fields["force"].description
    assert [name for name in get_args(Objection) if f"{name} (" not in described] == []


def test_a_live_model_that_cannot_be_asked_fails_the_candidate():
    failed, reasons, _ = verdict(scores(900), Incomparable("version 7", "its files are lost"))
    assert (failed, reasons) == (
        "failed",
        ["the live model, version 7, cannot be compared with this one (its files are lost)"],
    )


def test_a_recall_may_fall_by_a_tenth_without_a_warning():
    assert verdict(scores(900), live(900, {"a": 0.8}, {"a": 0.7})) == ("passed", [], [])
    assert verdict(scores(900), live(900, {"a": 0.8}, {"a": 0.69})) == (
        "passed",
        [],
        ["recall of tag 'a' fell from 0.8000 to 0.6900"],
    )


def test_tags_without_a_test_post_are_a_warning():
    candidate = Scores("the candidate", np.ones(POSTS, bool), {"a": 1.0}, ("b", "c\x1b" + "c" * 100))
    (warning,) = verdict(candidate, CHAMPION, min_tag_recall=0.5)[2]
    assert warning.startswith("2 of the tags occur in no test post, so their recall is unknown: 'b', 'c\\x1bccc")
    assert len(warning) < 150


def test_tags_that_are_never_found_are_a_warning_with_their_share():
    candidate = scores(900, recall={"a": 0.9, "b": 0.0, "c": 0.0}, support={"a": 985, "b": 10, "c": 5})
    (warning,) = verdict(candidate, FIRST)[2][:1]
    assert warning == (
        "recall 0: this model finds no test post of 2 of its tags, which are those of 15 test posts (1.50%): 'b', 'c'"
    )


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


@pytest.mark.parametrize(
    ("decision", "action"),
    [
        ({"verdict": "passed"}, "publish"),
        ({"verdict": "failed"}, "keep"),
        ({"verdict": "cannot tell", "action": "ask"}, "ask"),
        ({"verdict": "cannot tell", "action": "publish"}, "publish"),
    ],
)
def test_decisions_of_earlier_releases_have_an_action_too(decision, action):
    assert action_of(decision) == action
