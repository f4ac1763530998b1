"""Compares two models by the posts that each tags correctly, and says what that many posts can tell."""

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from scipy.stats import binomtest, norm

from pipeline.checks.verdict import Verdict

SIGNIFICANCE = 0.05
"""A difference with a p-value of this or more is reported as possibly due to chance."""

CONFIDENCE = 0.8
"""Of the interval of the difference: each of its limits alone holds with 90 %.

With 95 % instead, a model as good as the live one would need more than twice as many test posts to pass;
docs/explanation/gate.md has the rates of wrong verdicts.
"""

Z = float(norm.ppf((1 + CONFIDENCE) / 2))
"""Standard errors from the middle of the interval to each of its limits."""


@dataclass(frozen=True)
class Coverage:
    """How many of the test posts count in a comparison, and why the others do not.

    Each post that does not count is in one number: `learned` by the champion; of `other_tags`, which one of the two
    models does not know; or a copy of a post that the `candidate_learned`. `learned_is_known` says whether the
    champion's version says which posts it learned.
    """

    test_posts: int
    compared: int
    learned: int = 0
    other_tags: int = 0
    candidate_learned: int = 0
    learned_is_known: bool = True

    def sentence(self) -> str:
        """The numbers in a sentence, without its full stop."""
        if self.compared == self.test_posts:
            counted = f"compared on all {self.test_posts:,} test posts"
        else:
            counted = f"compared on {self.compared:,} of {self.test_posts:,} test posts; {self._left_out()}"
        if self.learned_is_known:
            return counted
        more = "more" if self.learned else "some"
        return f"{counted}; it is not known whether the live model had learned {more} of them"

    def _left_out(self) -> str:
        others = (
            (self.other_tags, "{:,} with a tag that only one of the models knows"),
            (self.candidate_learned, "{:,} of which this model has learned copies"),
        )
        listed = " and ".join(reason.format(count) for count, reason in others if count)
        if not self.learned:
            return f"left out: {listed}"
        return "the live model had learned the others" + (f", except {listed}" if listed else "")


def mcnemar(one: np.ndarray, other: np.ndarray) -> tuple[int, int, float, bool]:
    """Compare which posts two models tag correctly, bool [posts] each, by McNemar's exact test.

    That is the binomial test of one half on the posts that only one of the two tags correctly (McNemar 1947). Returns
    how many only the first does, how many only the other, the two-sided p-value, and whether that is below
    SIGNIFICANCE.
    """
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return gained, lost, float(f"{p_value:.3g}"), bool(p_value < SIGNIFICANCE)


def interval(gained: int, lost: int, posts: int) -> tuple[float, float]:
    """The CONFIDENCE interval of the difference of two accuracies on the same posts.

    `gained` of the posts only the first model tags correctly, `lost` only the other. It is Bonett and Price's adjusted
    Wald interval for paired proportions (2012), which holds for few posts, and for models that never disagree, too.
    """
    center, variance = _difference_and_variance(gained, lost, posts)
    half = Z * sqrt(variance / (posts + 2))
    return max(center - half, -1.0), min(center + half, 1.0)


def _difference_and_variance(gained: int, lost: int, posts: int) -> tuple[float, float]:
    """Bonett and Price's estimates of the difference, and of the variance of what one post adds to it."""
    more, fewer = (gained + 1) / (posts + 2), (lost + 1) / (posts + 2)
    return more - fewer, more + fewer - (more - fewer) ** 2


def judge(difference: float, low: float, high: float, max_regression: float) -> Verdict:
    """The verdict on a difference of accuracies with its interval.

    It cannot be told if the interval holds both "worse by more than max_regression" and "not worse"; otherwise the
    measured difference decides.
    """
    if low < -max_regression and high >= 0:
        return "cannot tell"
    # An interval within the limit decides against rounding, too.
    return "failed" if round(difference, 6) < -max_regression and low < -max_regression else "passed"


def posts_to_settle(gained: int, lost: int, posts: int, max_regression: float) -> int:
    """On how many posts `judge` could tell, if the models go on to differ as they did: to two digits.

    The interval must lie above -max_regression or below 0, whichever is nearer to be reached.
    """
    difference, variance = _difference_and_variance(gained, lost, posts)
    distance = max(difference + max_regression, -difference)
    exact = Z**2 * variance / distance**2
    unit: int = 10 ** max(len(str(int(exact))) - 2, 0)
    return ceil(exact / unit) * unit
