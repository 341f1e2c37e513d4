import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.metrics.matching import METHODS, match, optimal_gains, pairwise_distances, within


def points(most):
    coordinate = st.integers(0, 24).map(lambda value: value / 2)
    return st.lists(st.tuples(coordinate, coordinate), max_size=most).map(
        lambda rows: np.array(rows, np.float64).reshape(-1, 2)
    )


def brute_force(inside):
    """The largest matching, by trying every assignment of the shorter side."""
    if inside.shape[0] > inside.shape[1]:
        inside = inside.T
    rows = range(inside.shape[0])
    return max(sum(inside[r, c] for r, c in zip(rows, p, strict=True)) for p in itertools.permutations(
        range(inside.shape[1]), len(rows)))  # fmt: skip


def test_greedy_rules_miss_pairs_that_the_optimum_finds():
    # (x, y); the optimum pairs both, the greedy rules one.
    truths, predictions = [(10, 10), (14, 10)], [(12, 9), (8, 11)]
    assert len(match(truths, predictions, limit=3)) == 2
    assert len(match(truths, predictions, limit=3, method="first")) == 1
    truths, predictions = [(10, 0), (16, 0)], [(13, 0), (6, 0)]
    assert len(match(truths, predictions, limit=5, inclusive=True)) == 2
    assert len(match(truths, predictions, limit=5, inclusive=True, method="nearest_in_order")) == 1


def test_limit_is_exclusive_unless_said():
    assert len(match([(0, 0)], [(3, 4)], limit=5)) == 0
    assert len(match([(0, 0)], [(3, 4)], limit=5, inclusive=True)) == 1


def test_of_equally_many_pairs_the_nearest_are_taken():
    matching = match([(0, 0)], [(4, 0), (1, 0)], limit=5)
    assert matching.predictions.tolist() == [1] and matching.distances.tolist() == [1.0]
    assert match([(0, 0)], [(4, 0), (1, 0)], limit=5, method="first").predictions.tolist() == [0]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_match(method):
    assert len(match(np.zeros((0, 2)), [(1, 1)], limit=3, method=method)) == 0
    assert len(match([(1, 1)], np.zeros((0, 2)), limit=3, method=method)) == 0
    assert len(match([(1, 1)], [(9, 9)], limit=3, method=method)) == 0


def test_unknown_method_lists_the_known():
    with pytest.raises(ValueError, match="'best'.*optimal, first, nearest_in_order"):
        match([(0, 0)], [(0, 0)], limit=3, method="best")


@settings(deadline=None, max_examples=150)
@given(points(5), points(5), st.sampled_from((1.5, 3.0, 5.0)), st.booleans())
def test_optimal_is_the_maximum_and_never_below_greedy(truths, predictions, limit, inclusive):
    options = {"limit": limit, "inclusive": inclusive}
    optimal = match(truths, predictions, **options)
    inside = within(pairwise_distances(truths, predictions), limit, inclusive)
    assert len(optimal) == brute_force(inside)
    for method in METHODS:
        matching = match(truths, predictions, method=method, **options)
        assert len(matching) <= len(optimal)
        assert inside[matching.truths, matching.predictions].all()
        assert len(set(matching.truths)) == len(set(matching.predictions)) == len(matching)
        if len(matching) == len(optimal):
            assert optimal.distances.sum() <= matching.distances.sum() + 1e-9


@settings(deadline=None, max_examples=150)
@given(points(8), points(10), st.sampled_from((1.5, 4.0, 8.0)))
def test_gains_sum_to_the_optimum_of_every_prefix(truths, predictions, limit):
    inside = within(pairwise_distances(truths, predictions), limit, False)
    running = np.concatenate([[0], np.cumsum(optimal_gains(inside))])
    for kept in range(len(predictions) + 1):
        assert running[kept] == len(match(truths, predictions[:kept], limit=limit))
