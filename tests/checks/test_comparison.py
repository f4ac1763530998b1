import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.checks.comparison import CONFIDENCE, Coverage, interval, judge, mcnemar, posts_to_settle

LIMIT = 0.01


def answers(gained, lost, posts=1000):
    """Two models of which the first tags `gained` posts correctly that the other does not, and loses `lost`."""
    one, other = np.zeros(posts, bool), np.zeros(posts, bool)
    one[:gained] = True
    other[gained : gained + lost] = True
    return one, other


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 5), (0, 6), (20, 40), (7, 7)])
def test_the_p_value_is_that_of_mcnemars_exact_test(gained, lost):
    """Two-sided: twice the smaller tail of the binomial distribution with p = 1/2, at most 1."""
    p_value = mcnemar(*answers(gained, lost))[2]
    few, all_of_them = min(gained, lost), gained + lost
    tail = binomtest(few, all_of_them, alternative="less").pvalue if all_of_them else 1
    assert p_value == pytest.approx(min(1, 2 * tail), rel=1e-2)


def test_a_difference_that_is_not_significant_may_be_chance():
    assert mcnemar(*answers(3, 4)) == (3, 4, 1.0, False)


@pytest.mark.parametrize("posts", [300, 800, 8000])
@pytest.mark.parametrize("difference", [-0.02, 0.0, 0.02])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(posts, difference):
    random = np.random.default_rng(0)
    shares = [(0.08 + difference) / 2, (0.08 - difference) / 2, 0.92]
    held = 0
    for gained, lost, _ in random.multinomial(posts, shares, 2000):
        low, high = interval(gained, lost, posts)
        held += low <= difference <= high
    assert held / 2000 == pytest.approx(CONFIDENCE, abs=0.06)


def test_the_interval_of_no_disagreement_has_a_width_and_narrows_with_the_posts():
    widths = [high - low for low, high in (interval(0, 0, posts) for posts in (1, 100, 10_000))]
    assert widths == sorted(widths, reverse=True)
    assert min(widths) > 0


@pytest.mark.parametrize(
    ("difference", "low", "high", "verdict"),
    [
        (0.0, -0.005, 0.005, "passed"),
        (0.0, -0.01, 0.01, "passed"),
        (0.0, -0.0101, 0.01, "cannot tell"),
        (0.02, -0.02, 0.06, "cannot tell"),
        (-0.02, -0.04, 0.0, "cannot tell"),
        (-0.02, -0.04, -0.001, "failed"),
        (-0.0101, -0.02, -0.0001, "failed"),
        (-0.01, -0.02, -0.0001, "passed"),  # surely worse, and as measured within the limit
        (-0.5, -0.6, -0.4, "failed"),
    ],
)
def test_the_verdict_is_open_where_the_interval_holds_both(difference, low, high, verdict):
    assert judge(difference, low, high, LIMIT) == verdict


def test_where_any_loss_is_accepted_every_difference_passes():
    assert judge(-1.0, *interval(0, 5, 5), max_regression=1) == "passed"


@pytest.mark.parametrize(("gained", "lost"), [(32, 32), (40, 32), (32, 40), (30, 44), (5, 60)])
def test_with_so_many_posts_the_verdict_is_settled(gained, lost):
    enough = posts_to_settle(gained, lost, 800, LIMIT)
    verdicts = []
    for factor in (0.8, 1.2):
        scale = factor * enough / 800
        more, fewer = round((gained + 1) * scale), round((lost + 1) * scale)
        low, high = interval(more, fewer, round(800 * scale))
        verdicts.append(judge((more - fewer) / (800 * scale), low, high, LIMIT))
    assert verdicts[0] == "cannot tell"
    assert verdicts[1] != "cannot tell"


@pytest.mark.parametrize(
    ("coverage", "sentence"),
    [
        (Coverage(8005, 8005), "compared on all 8,005 test posts"),
        (
            Coverage(8005, 3998, learned=4007),
            "compared on 3,998 of 8,005 test posts; the live model had learned the others",
        ),
        (
            Coverage(100, 80, other_tags=20),
            "compared on 80 of 100 test posts; left out: 20 with a tag that only one of the models knows",
        ),
        (
            Coverage(100, 40, learned=50, other_tags=8, candidate_learned=2),
            "compared on 40 of 100 test posts; the live model had learned the others, except 8 with a tag that only "
            "one of the models knows and 2 of which this model has learned copies",
        ),
        (
            Coverage(100, 100, learned_is_known=False),
            "compared on all 100 test posts; it is not known whether the live model had learned some of them",
        ),
        (
            Coverage(100, 60, learned=40, learned_is_known=False),
            "compared on 60 of 100 test posts; the live model had learned the others; it is not known whether the live "
            "model had learned more of them",
        ),
    ],
)
def test_the_sentence_accounts_for_every_test_post(coverage, sentence):
    assert coverage.sentence() == sentence
