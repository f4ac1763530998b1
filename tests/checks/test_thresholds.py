"""Which tags a post gets, and thresholds against a search through all of them."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pipeline.checks import thresholds


def test_a_post_gets_the_tags_that_reach_their_threshold_or_else_the_most_probable():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.4, 0.25, 0.1], [0.2, 0.1, 0.3], [0.5, 0.2, 0.1]], np.float32)
    limits = np.array([0.5, 0.3, 0.5], np.float32)
    chosen = thresholds.chosen(probabilities, limits)
    assert chosen.tolist() == [
        [True, True, False],
        [True, False, False],
        [False, False, True],
        [True, False, False],
    ]
    assert thresholds.first(probabilities, chosen).tolist() == [0, 0, 2, 0]


def test_the_first_tag_is_the_most_probable_of_those_given():
    probabilities = np.array([[0.6, 0.3]], np.float32)
    chosen = thresholds.chosen(probabilities, np.array([0.7, 0.2], np.float32))
    assert thresholds.first(probabilities, chosen).tolist() == [1]


@pytest.mark.parametrize("seed", range(5))
def test_each_threshold_has_the_highest_f1(seed):
    random = np.random.default_rng(seed)
    truth = random.random((300, 4)) < [0.5, 0.2, 0.1, 0.05]
    probabilities = np.clip(truth * 0.3 + random.random((300, 4)) * 0.7, 0, 1).round(2).astype(np.float32)
    for tag, limit in enumerate(thresholds.pick(probabilities, truth)):
        found = f1_score(truth[:, tag], probabilities[:, tag] >= limit)
        every = [f1_score(truth[:, tag], probabilities[:, tag] >= each) for each in np.unique(probabilities)]
        assert found == pytest.approx(max(every))


def test_a_rare_tag_gets_the_threshold_of_all_tags_together():
    random = np.random.default_rng(0)
    truth = np.zeros((200, 3), bool)
    truth[:100, 0] = truth[50:80, 1] = truth[: thresholds.FEW - 1, 2] = True
    probabilities = (truth * 0.2 + random.random((200, 3)) * 0.8).astype(np.float32)
    picked = thresholds.pick(probabilities, truth)
    micro = [f1_score(truth.ravel(), probabilities.ravel() >= each) for each in np.unique(probabilities)]
    assert f1_score(truth.ravel(), probabilities.ravel() >= picked[2]) == pytest.approx(max(micro))
    assert len({*picked.tolist()}) == 3


def test_without_posts_or_tags_it_is_a_half():
    assert thresholds.pick(np.empty((0, 2), np.float32), np.empty((0, 2), bool)).tolist() == [0.5, 0.5]
    assert thresholds.pick(np.full((3, 2), 0.1, np.float32), np.zeros((3, 2), bool)).tolist() == [0.5, 0.5]
