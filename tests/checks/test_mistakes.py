"""The mistakes that are picked, and slices by length, from small tables."""

import numpy as np
import pytest

from pipeline.checks.mistakes import Confusion, confusions, slices, surest

#             right  1 for 0            2 for 1    0 for 2
TRUE = np.array([0, 0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 1, 1, 1, 1, 2, 2, 0])
PROBABILITY = np.array([0.99, 0.5, 0.9, 0.6, 0.7, 0.8, 0.4, 0.95])


def test_the_commonest_confusions_come_first_with_the_posts_it_was_surest_of():
    assert confusions(TRUE, PREDICTED, PROBABILITY) == [
        Confusion(0, 1, 4, [2, 3, 4]),
        Confusion(1, 2, 2, [5, 6]),
        Confusion(2, 0, 1, [7]),
    ]


def test_the_surest_mistakes_come_first_and_right_answers_are_none():
    assert surest(TRUE == PREDICTED, PROBABILITY) == [7, 2, 5, 4, 3, 1, 6]


def test_a_model_without_mistakes_has_none():
    assert confusions(TRUE, TRUE, PROBABILITY) == []
    assert surest(np.ones(len(TRUE), bool), PROBABILITY) == []


def test_of_many_only_some_are_picked():
    labels = np.repeat(np.arange(20), 2)
    found = confusions(labels, (labels + 1) % 20, np.linspace(0, 1, 40))
    assert len(found) == 5
    assert surest(np.zeros(40, bool), np.linspace(0, 1, 40)) == list(range(39, 29, -1))


def test_slices_are_equally_large_and_lose_no_post():
    lengths = np.array([5, 1, 8, 2, 7, 3, 6, 4])
    found = list(slices(lengths, lengths <= 5))
    assert [each.posts for each in found] == [3, 2, 2, 1]
    assert found[0].above == 0
    assert found[-1].to == 8
    assert sum(each.posts * each.accuracy for each in found) == pytest.approx(5)
    assert [one.to for one in found[:-1]] == [other.above for other in found[1:]]


def test_posts_of_one_length_are_one_slice():
    (slice_,) = slices(np.full(6, 9), np.array([True] * 3 + [False] * 3))
    assert (slice_.above, slice_.to, slice_.posts, slice_.accuracy) == (8, 9, 6, 0.5)
