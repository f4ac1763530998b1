"""The expected calibration error and the reliability table, by hand."""

import numpy as np
import pytest

from pipeline.checks.calibration import BINS, calibration


def test_the_error_is_the_mean_gap_of_the_bins_weighted_by_their_posts():
    probability = np.array([0.95, 0.95, 0.91, 0.55, 0.6])
    correct = np.array([True, True, False, False, True])
    found = calibration(probability, correct)
    high, low = abs((0.95 + 0.95 + 0.91) / 3 - 2 / 3), abs((0.55 + 0.6) / 2 - 1 / 2)
    assert found["expected_error"] == pytest.approx((3 * high + 2 * low) / 5, abs=1e-6)
    table = found["reliability"]
    assert [each["posts"] for each in table] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert table[5] == {"above": 0.5, "to": 0.6, "posts": 2, "probability": 0.575, "accuracy": 0.5}
    assert (table[0]["probability"], table[0]["accuracy"]) == (None, None)


def test_a_model_that_knows_how_often_it_is_right_has_no_error():
    draw = np.random.default_rng(0)
    probability = draw.random(200_000)
    assert calibration(probability, draw.random(200_000) < probability)["expected_error"] < 0.005
    assert calibration(probability, np.ones(200_000, bool))["expected_error"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("probability", "place"), [(0.0, 0), (0.1, 0), (0.1001, 1), (1.0, BINS - 1)])
def test_the_edges_belong_to_the_bin_below(probability, place):
    table = calibration(np.array([probability]), np.array([True]))["reliability"]
    assert table[place]["posts"] == 1
