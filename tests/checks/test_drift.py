"""Drift figures of small tables, compared with values worked out by hand, and the limits on them."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from pipeline.checks.drift import Change, Corpus, changed_most, judge, measure
from pipeline.errors import BadInput
from pipeline.run.drift_check import SAME
from pipeline.settings import Settings

LIVE = Corpus({"java": 50, "python": 50}, 100, {"the": 60, "a": 20}, 100)


def test_the_same_posts_have_not_drifted():
    assert asdict(measure(LIVE, LIVE)) == SAME


def test_drift_does_not_depend_on_the_number_of_posts():
    more = Corpus({"java": 500, "python": 500}, 100, {"the": 600, "a": 200, "an": 50}, 1000)
    assert measure(more, LIVE) == measure(LIVE, LIVE)


def test_the_divergence_of_disjoint_distributions_is_one():
    other = Corpus({"perl": 5, "ruby": 7}, 100, {"le": 9}, 9)
    complete = Corpus(LIVE.posts_by_tag, 100, {"the": 60, "a": 40}, 100)
    assert (measure(other, complete).tag_drift, measure(other, complete).word_drift) == (1, 1)


def test_the_divergence_by_its_formula():
    """Shares of 1/2, 1/2 and of 3/4, 1/4: (KL(p, m) + KL(q, m)) / 2 with m = (5/8, 3/8), in bits."""
    tags = Corpus({"java": 30, "python": 10}, 100, LIVE.words, 100)
    p, q, m = (0.5, 0.5), (0.75, 0.25), (0.625, 0.375)
    wanted = sum(a * math.log2(a / c) + b * math.log2(b / c) for a, b, c in zip(p, q, m, strict=True)) / 2
    assert measure(tags, LIVE).tag_drift == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_the_divergence_of_nearly_equal_distributions_is_a_number(seed):
    """For half of such pairs SciPy returns NaN, because of rounding."""
    draw = np.random.default_rng(seed)
    one = draw.integers(10**12, 10**13, 9).tolist()
    tags, changed = ({str(at): count + (at == 0) * more for at, count in enumerate(one)} for more in (0, 1))
    assert measure(Corpus(changed, 100, {}, 0), Corpus(tags, 100, {}, 0)).tag_drift == 0


def test_words_outside_the_vocabulary_are_one_more_word():
    figures = measure(Corpus(LIVE.posts_by_tag, 100, {"the": 60, "le": 30}, 100), LIVE)
    assert figures.unknown_words == pytest.approx(0.2)
    swapped = measure(Corpus(LIVE.posts_by_tag, 100, {"the": 60, "a": 20, "le": 20}, 100), LIVE)
    assert swapped.word_drift == 0


@pytest.mark.parametrize(("characters", "factor"), [(200, 2), (50, 2), (100, 1)])
def test_longer_and_shorter_posts_are_the_same_change(characters, factor):
    assert measure(Corpus(LIVE.posts_by_tag, characters, LIVE.words, 100), LIVE).length_change == factor


def test_words_cut_from_a_runs_counts_are_not_unknown():
    """The live model's vocabulary may be longer than the list of words that a run keeps."""
    shorter = Corpus(LIVE.posts_by_tag, 100, {"the": 60}, 100)
    assert asdict(measure(shorter, LIVE)) == SAME


def test_posts_without_a_word_can_be_compared():
    assert measure(Corpus(LIVE.posts_by_tag, 1, {}, 0), LIVE).unknown_words == pytest.approx(0.8)


@pytest.mark.parametrize("name", [name[5:] for name in Settings.model_fields if name.startswith("fail_")])
def test_each_figure_has_a_limit_for_warnings_and_one_for_errors(name):
    settings = Settings.of({f"warn_{name}": 1, f"fail_{name}": 1})
    assert judge({name: 1.0}, settings, "fix it") == []
    (warning,) = judge({name: 1.01}, settings.model_copy(update={f"fail_{name}": 1.01}), "fix it")
    assert warning.endswith(f", more than warn_{name}=1")
    with pytest.raises(BadInput, match=rf"more than fail_{name}=1: fix it"):
        judge({name: 1.01}, settings, "fix it")


def test_a_forced_run_goes_on_with_a_warning():
    settings = Settings()
    (warning,) = judge({"tag_drift": 0.9}, settings, "fix it", "new tags since May")
    assert warning.endswith("more than fail_tag_drift=0.2; forced: new tags since May")


def test_what_adds_most_to_the_divergence_comes_first_and_what_did_not_change_never():
    now = Corpus({"java": 60, "python": 20, "perl": 20}, 100, {"the": 60, "a": 5}, 100)
    changed = changed_most(now, LIVE)
    assert changed["words"] == [Change("a", then=0.2, now=0.05)]
    assert [change.name for change in changed["tags"]] == ["perl", "python", "java"]
    assert changed["tags"][0] == Change("perl", then=0.0, now=0.2)
    assert changed_most(LIVE, LIVE) == {"tags": [], "words": []}


def test_the_changes_add_up_to_the_divergence():
    """By the formula of the divergence, of every name on its own."""
    now = Corpus({"java": 60, "python": 20, "perl": 20}, 100, LIVE.words, 100)
    total = 0.0
    for change in changed_most(now, LIVE)["tags"]:
        middle = (change.then + change.now) / 2
        total += sum(share * math.log2(share / middle) for share in (change.then, change.now) if share) / 2
    assert measure(now, LIVE).tag_drift == pytest.approx(total, abs=1e-5)


def test_only_the_first_few_are_named():
    tags = {f"tag{number}": 100 + number for number in range(30)}
    assert len(changed_most(Corpus(tags, 100, {}, 0), LIVE, count=4)["tags"]) == 4
