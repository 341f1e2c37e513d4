import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.metrics.blobs import equal_level_blobs, find_blobs


def levels(seed):
    return np.random.default_rng(seed).choice(np.array([0, 0, 0, 64, 150, 255], np.uint8), (7, 9))


def raster_order(blobs):
    first = [blobs.index[blobs.owner == k].min() for k in range(len(blobs))]
    return first == sorted(first)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([4, 8]))
def test_regions_of_equal_level(seed, connectivity):
    image = levels(seed)
    blobs = equal_level_blobs(image, connectivity)
    assert sorted(blobs.index) == np.flatnonzero(image).tolist() and raster_order(blobs)
    assert len(blobs) == sum(len(find_blobs(image == level, connectivity)) for level in (64, 150, 255))
    for k in range(len(blobs)):
        pixels = blobs.index[blobs.owner == k]
        assert len(np.unique(image.reshape(-1)[pixels])) == 1 and blobs.areas[k] == len(pixels)
        y, x = np.divmod(pixels, 9)
        assert blobs.points[k] == pytest.approx([x.mean(), y.mean()])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_some_of_the_regions(seed, other):
    image = levels(seed) > 0
    blobs, scores = find_blobs(image, 8), levels(other).astype(float)
    kept = np.random.default_rng(other).random(len(blobs)) < 0.5
    some = blobs.only(kept)
    np.testing.assert_array_equal(some.points, blobs.points[kept])
    np.testing.assert_array_equal(some.peaks(scores), blobs.peaks(scores)[kept])
    for k, whole in enumerate(np.flatnonzero(kept)):
        np.testing.assert_array_equal(some.index[some.owner == k], blobs.index[blobs.owner == whole])
        assert some.peaks(scores)[k] == scores.reshape(-1)[some.index[some.owner == k]].max()


def test_nothing():
    empty = equal_level_blobs(np.zeros((3, 3), np.uint8), 8)
    assert len(empty) == 0 and empty.points.shape == (0, 2) and empty.peaks(np.zeros((3, 3))).size == 0
