import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from irjax.ops import regions


def test_diagonal_pixels_are_one_region_in_raster_order():
    mask = np.zeros((8, 10), bool)
    mask[5, 1] = mask[6, 2] = True  # touches by a corner only
    mask[1, 7:10] = True
    found = regions.find_regions(mask)
    assert len(found) == 2
    np.testing.assert_array_equal(found.centroids, [[8, 1], [1.5, 5.5]])
    np.testing.assert_array_equal(found.areas, [3, 2])
    np.testing.assert_array_equal(found.boxes, [[7, 1, 10, 2], [1, 5, 3, 7]])
    points = regions.points_from_mask(mask)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, found.centroids)


def test_empty_mask_has_no_regions():
    found = regions.find_regions(np.zeros((4, 4), bool))
    assert found.centroids.shape == (0, 2) and found.boxes.shape == (0, 4) and found.areas.shape == (0,)
    assert regions.points_from_mask(np.zeros((4, 4), bool)).shape == (0, 2)


def test_a_mask_with_channels_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 4, 1\)"):
        regions.find_regions(np.zeros((4, 4, 1), bool))


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(
    hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.sampled_from([4, 8]), st.booleans()
)
def test_regions_partition_the_mask(mask, connectivity, transposed):
    mask = mask.T if transposed else mask  # the order in memory does not matter
    found = regions.find_regions(mask, connectivity)
    wanted, count = ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
    np.testing.assert_array_equal(found.labels, wanted)
    assert len(found) == count and found.labels.dtype == np.int32
    assert found.areas.dtype == found.boxes.dtype == np.int64 and found.centroids.dtype == np.float64
    assert found.areas.sum() == mask.sum()
    np.testing.assert_array_equal(found.labels > 0, mask)
    for number in range(len(found)):
        y, x = np.nonzero(found.labels == number + 1)
        np.testing.assert_allclose(found.centroids[number], [x.mean(), y.mean()])
        np.testing.assert_array_equal(found.boxes[number], [x.min(), y.min(), x.max() + 1, y.max() + 1])
    first = [np.flatnonzero(found.labels.ravel() == number + 1)[0] for number in range(len(found))]
    assert first == sorted(first)
