from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.metrics import ScoreHistogram
from irjax.metrics.accumulators import FIELDS, IOU_ONE, Counts, columns, fixed_point_iou

histograms = st.lists(st.integers(0, 2**40), min_size=6, max_size=6).map(lambda c: ScoreHistogram(c[:3], c[3:]))
counts = st.builds(Counts, **{name: st.integers(0, 2**62) for name in FIELDS}, scores=st.one_of(st.none(), histograms))


@settings(deadline=None)
@given(st.lists(counts, max_size=6), st.randoms(use_true_random=False), st.integers(0, 6))
def test_merging_in_any_order_and_grouping_is_exact(rows, random, cut):
    total = Counts.total(rows)
    assert Counts.total(rows[:cut]) + Counts.total(rows[cut:]) == total
    random.shuffle(rows)
    assert Counts.total(rows) == total == sum(rows, Counts())


def test_sums_do_not_overflow_or_round():
    # 2^24 + 1 is where float32 stops counting, 2^63 where int64 wraps.
    assert (Counts(pixels=2**24) + Counts(pixels=1)).pixels == 2**24 + 1
    assert (Counts(pixels=2**63 - 1) + Counts(pixels=np.int64(1))).pixels == 2**63


def test_floats_are_refused():
    with pytest.raises(TypeError):
        Counts(pixels=1.0)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_iou_in_fixed_point(intersection, more):
    union = intersection + more
    exact = Fraction(intersection, union) if union else 0
    assert abs(Fraction(fixed_point_iou(intersection, union), IOU_ONE) - exact) <= Fraction(1, 2 * IOU_ONE)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_iou_with_something_added_to_the_union(intersection, more):
    union = intersection + more
    exact = Fraction(intersection, 1) / (union + Fraction(1e-6)) if union else 0
    assert abs(Fraction(fixed_point_iou(intersection, union, 1e-6), IOU_ONE) - exact) <= Fraction(1, 2 * IOU_ONE)


def test_columns_of_histograms():
    rows = [Counts(scores=ScoreHistogram([1, 2], [3, 4])), Counts()]
    table = columns(rows)
    assert table["positive"].tolist() == [[1, 2], [0, 0]] and table["negative"].tolist() == [[3, 4], [0, 0]]
    with pytest.raises(ValueError, match=r"\[1, 2\] bins"):
        columns([rows[0], Counts(scores=ScoreHistogram([1], [1]))])


def test_columns():
    table = columns([Counts(images=1, iou_sum=IOU_ONE // 2), Counts(images=2)])
    assert table["images"].tolist() == [1, 2] and table["iou_sum"].tolist() == [0.5, 0]
    assert set(table) == set(FIELDS)
