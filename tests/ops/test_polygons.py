"""Which pixels belong to a polygon."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irjax.ops.polygons import box_polygon, fill_polygons, polygon_box

SHAPE = (12, 16)


def pixels(mask):
    return sorted(zip(*np.nonzero(mask.T), strict=True))


@given(st.integers(0, 15), st.integers(0, 11), st.integers(1, 16), st.integers(1, 12), st.booleans())
def test_a_box_of_whole_pixels_is_its_pixels(x, y, width, height, turned):
    x1, y1 = min(x + width, 16), min(y + height, 12)
    corners = box_polygon([x, y, x1, y1])
    wanted = np.zeros(SHAPE, bool)
    wanted[y:y1, x:x1] = True
    np.testing.assert_array_equal(fill_polygons([corners[::-1] if turned else corners], SHAPE), wanted)
    np.testing.assert_array_equal(polygon_box([corners]), [x, y, x1, y1])


@given(st.lists(st.tuples(st.floats(-2, 18), st.floats(-2, 14)), min_size=3, max_size=7))
def test_every_pixel_by_itself(corners):
    """The same rule, pixel by pixel: an odd number of edges to the left of its centre."""
    corners = np.array(corners)
    wanted = np.zeros(SHAPE, bool)
    for row in range(SHAPE[0]):
        for column in range(SHAPE[1]):
            x, y = column + 0.5, row + 0.5
            for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                    wanted[row, column] ^= True
    found = fill_polygons([corners], SHAPE)
    if wanted.any():
        np.testing.assert_array_equal(found, wanted)
    else:
        assert found.sum() == 1


@pytest.mark.parametrize(("left", "pixel"), [(3.1, 3), (3.6, 3), (15.9, 15)])
def test_a_target_is_at_least_a_pixel(left, pixel):
    mask = fill_polygons([box_polygon([left, 4.1, left + 0.09, 4.3])], SHAPE)
    assert pixels(mask) == [(pixel, 4)]


def test_parts_and_holes():
    two = fill_polygons([box_polygon([0, 0, 2, 1]), box_polygon([4, 2, 5, 3])], SHAPE)
    assert pixels(two) == [(0, 0), (1, 0), (4, 2)]
    concave = fill_polygons([np.array([[0, 0], [3, 0], [3, 3], [2, 3], [2, 1], [1, 1], [1, 3], [0, 3]])], SHAPE)
    assert pixels(concave) == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2)]
