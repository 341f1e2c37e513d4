"""Run-length encoded masks, against what pycocotools 2.0.11 writes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from irjax.errors import UserError
from irjax.ops.polygons import fill_polygons, mask_polygons
from irjax.ops.run_lengths import decode_run_lengths

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


def counts_of(mask):
    """Counts by the definition: columns first, background first."""
    runs = [(value, len(list(group))) for value, group in itertools.groupby(mask.T.reshape(-1).tolist())]
    return [0] * runs[0][0] + [length for _, length in runs]


def test_what_pycocotools_packs():
    mask = np.zeros((12, 16), bool)
    mask[3:6, 4:8] = mask[9, 0] = mask[11, 15] = True
    mask[4, 5] = False
    np.testing.assert_array_equal(decode_run_lengths("91Y12PONH08200l2N", (12, 16)), mask)
    np.testing.assert_array_equal(decode_run_lengths(counts_of(mask), (12, 16)), mask)
    far = np.zeros((3000, 3000), bool)  # counts of several characters, and negative differences
    far[1500:1503, 2000:2004] = far[2999, 2999] = True
    np.testing.assert_array_equal(decode_run_lengths("ljTg53em200000S`Tk2N", (3000, 3000)), far)


@given(MASKS)
def test_counts_and_rectangles_are_the_mask(mask):
    np.testing.assert_array_equal(decode_run_lengths(counts_of(mask), mask.shape), mask)
    parts = mask_polygons(mask)
    assert len(parts) <= mask.sum()
    if parts:
        np.testing.assert_array_equal(fill_polygons(parts, mask.shape), mask)


def test_a_box_of_pixels_is_one_rectangle():
    mask = np.zeros((9, 9), bool)
    mask[2:9, 3:9] = True
    np.testing.assert_array_equal(mask_polygons(mask), [[[3, 2], [9, 2], [9, 9], [3, 9]]])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 4], "run lengths of 7 pixels, and 4x3 is 12"),
        ([-1, 13], "whole numbers of at least 0"),
        ([1.5, 10.5], "whole numbers"),
        (["3", 9], "whole numbers"),
        ([10**30], "of 1000000000000000000000000000000 pixels"),
        ("91 ", "the character ' '"),
        ("9Y", "end within a number"),
        ("", "run lengths of 0 pixels"),
    ],
)
def test_counts_that_are_none(counts, message):
    with pytest.raises(UserError, match=message):
        decode_run_lengths(counts, (3, 4))
