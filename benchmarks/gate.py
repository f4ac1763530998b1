"""Simulate how often the gate decides wrongly, by the number of test posts: `python -m benchmarks.gate`.

Each row draws DRAWS pairs of models: the live one, and one that is as good, or worse or better by so much; on a share
of the posts only one of the two is right, as of models that were trained on other halves of the same posts. The gate's
own functions decide. Only the comparison is simulated; thresholds are met.
"""

from collections import Counter

import numpy as np

from pipeline.checks.comparison import interval, judge
from pipeline.settings import Settings

DRAWS = 20_000
POSTS = (200, 800, 2000, 4000, 8000, 40_000)
DIFFERENCES = (0.0, -0.01, -0.02, 0.02)
DISAGREEMENT = 0.08
LIMIT = float(Settings().max_regression)


def verdicts(posts: int, difference: float, draws: int = DRAWS) -> dict[str, float]:
    """The share of each verdict; `difference` is the true one, candidate minus live model."""
    shares = [(DISAGREEMENT + difference) / 2, (DISAGREEMENT - difference) / 2, 1 - DISAGREEMENT]
    counts = Counter[str]()
    for gained, lost, _ in np.random.default_rng(0).multinomial(posts, shares, draws).tolist():
        low, high = interval(gained, lost, posts)
        counts[judge((gained - lost) / posts, low, high, LIMIT)] += 1
    return {verdict: counts[verdict] / draws for verdict in ("passed", "cannot tell", "failed")}


def by_measured_difference(posts: int, difference: float, draws: int = DRAWS) -> float:
    """How often a gate without an interval would pass the candidate: the measured loss is within the limit."""
    shares = [(DISAGREEMENT + difference) / 2, (DISAGREEMENT - difference) / 2, 1 - DISAGREEMENT]
    gained, lost, _ = np.random.default_rng(0).multinomial(posts, shares, draws).T
    return float(((lost - gained) / posts <= LIMIT + 1e-9).mean())


def main() -> None:
    """Print a table for each difference."""
    for difference in DIFFERENCES:
        kind = (
            "as good as" if not difference else f"{abs(difference):.0%} {'worse' if difference < 0 else 'better'} than"
        )
        print(f"\nA model that is {kind} the live one:\n")
        print("| test posts | passed | cannot tell | failed | goes live: keep | publish | without an interval |")
        print("|---|---|---|---|---|---|---|")
        for posts in POSTS:
            share = verdicts(posts, difference)
            columns = [
                *share.values(),
                share["passed"],
                share["passed"] + share["cannot tell"],
                by_measured_difference(posts, difference),
            ]
            print(f"| {posts:,} | {' | '.join(f'{column:.1%}' for column in columns)} |")


if __name__ == "__main__":
    main()
