"""The figures are those of small tables; a limit is a limit."""

import math
from dataclasses import asdict

import pytest

from pipeline.checks.drift import Corpus, judge, measure
from pipeline.errors import BadInput
from pipeline.execution.champion import SAME
from pipeline.settings import Settings

LIVE = Corpus({"java": 50, "python": 50}, 100, {"the": 60, "a": 20}, 100)


def test_the_same_posts_have_not_drifted():
    assert asdict(measure(LIVE, LIVE)) == SAME


def test_how_many_posts_there_are_is_no_drift():
    more = Corpus({"java": 500, "python": 500}, 100, {"the": 600, "a": 200, "an": 50}, 1000)
    assert measure(more, LIVE) == measure(LIVE, LIVE)


def test_nothing_in_common_is_one():
    other = Corpus({"perl": 5, "ruby": 7}, 100, {"le": 9}, 9)
    nothing_unknown = Corpus(LIVE.posts_by_tag, 100, {"the": 60, "a": 40}, 100)
    assert (measure(other, nothing_unknown).tag_drift, measure(other, nothing_unknown).word_drift) == (1, 1)


def test_the_divergence_is_the_mean_of_two_to_the_middle():
    """Half and half against three quarters and one: (KL(p, m) + KL(q, m)) / 2 with m = (5/8, 3/8), in bits."""
    tags = Corpus({"java": 30, "python": 10}, 100, LIVE.words, 100)
    p, q, m = (0.5, 0.5), (0.75, 0.25), (0.625, 0.375)
    wanted = sum(a * math.log2(a / c) + b * math.log2(b / c) for a, b, c in zip(p, q, m, strict=True)) / 2
    assert measure(tags, LIVE).tag_drift == pytest.approx(wanted, abs=1e-6)


def test_words_outside_the_vocabulary_are_one_more_word():
    figures = measure(Corpus(LIVE.posts_by_tag, 100, {"the": 60, "le": 30}, 100), LIVE)
    assert figures.unknown_words == pytest.approx(0.2)
    swapped = measure(Corpus(LIVE.posts_by_tag, 100, {"the": 60, "a": 20, "le": 20}, 100), LIVE)
    assert swapped.word_drift == 0


@pytest.mark.parametrize(("characters", "factor"), [(200, 2), (50, 2), (100, 1)])
def test_longer_and_shorter_posts_are_alike_a_change(characters, factor):
    assert measure(Corpus(LIVE.posts_by_tag, characters, LIVE.words, 100), LIVE).length_change == factor


def test_of_a_shorter_list_of_words_the_missing_ones_are_not_unknown():
    """As where the live model's vocabulary is longer than what is kept of a run's counts."""
    shorter = Corpus(LIVE.posts_by_tag, 100, {"the": 60}, 100)
    assert asdict(measure(shorter, LIVE)) == SAME


def test_posts_without_a_word_can_be_compared():
    assert measure(Corpus(LIVE.posts_by_tag, 1, {}, 0), LIVE).unknown_words == pytest.approx(0.8)


@pytest.mark.parametrize("name", [name[5:] for name in Settings.model_fields if name.startswith("fail_")])
def test_each_figure_has_both_its_limits(name):
    settings = Settings.of({f"warn_{name}": 1, f"fail_{name}": 1})
    assert judge({name: 1.0}, settings, "mend it") == []
    (warning,) = judge({name: 1.01}, settings.model_copy(update={f"fail_{name}": 1.01}), "mend it")
    assert warning.endswith(f", more than warn_{name}=1")
    with pytest.raises(BadInput, match=rf"more than fail_{name}=1: mend it"):
        judge({name: 1.01}, settings, "mend it")


def test_a_forced_run_goes_on_with_the_objection_as_a_reservation():
    settings = Settings()
    (warning,) = judge({"tag_drift": 0.9}, settings, "mend it", "new tags since May")
    assert warning.endswith("more than fail_tag_drift=0.2; forced: new tags since May")
