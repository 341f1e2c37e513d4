"""Sliding windows and their joined maps."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irjax.ops.letterbox import letterbox_host
from irjax.ops.windows import cut_windows, join_windows, window_origins, window_starts


@given(st.integers(1, 400), st.integers(4, 64), st.integers(0, 60))
def test_starts_cover_the_axis_with_the_least_number_of_windows(length, size, overlap):
    overlap = min(overlap, size - 1)
    starts = window_starts(length, size, overlap)
    if length <= size:
        assert starts == (0,)
        return
    assert starts[0] == 0 and starts[-1] == length - size
    steps = np.diff(starts)
    assert steps.min() > 0 and steps.max() <= size - overlap
    assert (len(starts) - 1) * (size - overlap) + size >= length > (len(starts) - 2) * (size - overlap) + size


@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize("shape", [(64, 64), (100, 70), (20, 130), (31, 64), (65, 64)])
def test_joining_undoes_cutting(shape, xp):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    windows = cut_windows(xp.asarray(image), 64, 16)
    assert isinstance(windows, np.ndarray) == (xp is np)
    chex.assert_shape(windows, (len(window_origins(*shape, 64, 16)), 64, 64))
    joined = join_windows(windows, *shape, 16)
    assert isinstance(joined, np.ndarray) == (xp is np)
    np.testing.assert_allclose(joined, image, atol=1e-6)


def test_batches_are_cut_together():
    images = np.random.default_rng(0).random((3, 40, 90)).astype(np.float32)
    windows = cut_windows(images, 32, 8)
    np.testing.assert_array_equal(windows[:, 1], cut_windows(images[1], 32, 8))
    np.testing.assert_allclose(join_windows(windows, 40, 90, 8), images, atol=1e-6)


def test_a_small_image_lies_where_the_letterbox_puts_it():
    image = np.random.default_rng(0).integers(0, 255, (21, 30), np.uint8)
    boxed = letterbox_host(image, 32, enlarge=False)
    (window,) = cut_windows(image, 32, 8)
    np.testing.assert_array_equal(window[boxed > 0], boxed[boxed > 0])
    top, left = 5, 1  # of 21 x 30 in 32 x 32
    np.testing.assert_array_equal(window[top : top + 21, left : left + 30], image)
    np.testing.assert_array_equal(window[:top], window[2 * top - 1 : top - 1 : -1])  # mirrored, the border twice
    np.testing.assert_array_equal(window[:, left + 30], window[:, left + 29])


def test_an_image_much_smaller_than_a_window_is_mirrored_again_and_again():
    (window,) = cut_windows(np.arange(6).reshape(2, 3), 16, 4)
    assert np.unique(window).size == 6 and (window > 0).mean() > 0.8


def test_origins_say_where_windows_lie():
    image = np.arange(20 * 90).reshape(20, 90)
    windows = cut_windows(image, 32, 8)
    for window, (x, y) in zip(windows, window_origins(20, 90, 32, 8), strict=True):
        np.testing.assert_array_equal(window[-y : 20 - y], image[:, x : x + 32])


def test_overlaps_are_averaged_with_weights_that_fall_to_the_border():
    maps = np.stack([np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32)])
    joined = join_windows(maps, 8, 12, 4)
    np.testing.assert_allclose(joined[0], [0, 0, 0, 0, 1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 1, 1, 1], atol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"must be in 0\.\.31, got 32"):
        window_starts(100, 32, 32)
    with pytest.raises(ValueError, match="40x90 has 2x4 windows of 32 pixels, got 5"):
        join_windows(np.zeros((5, 32, 32), np.float32), 40, 90, 8)


@given(st.integers(5, 90), st.integers(5, 90))
def test_windows_of_a_heatmap_are_heatmaps_of_windows(height, width):
    """With the stride as step, whatever the image's size: here a heatmap is the mean of each cell."""
    image = np.random.default_rng(0).random((height, width)).astype(np.float32)
    means = lambda x: x.reshape(*x.shape[:-2], x.shape[-2] // 4, 4, x.shape[-1] // 4, 4).mean(axis=(-3, -1))  # noqa: E731
    windows = cut_windows(image, 32, 8, 4)
    assert (window_origins(height, width, 32, 8, 4) % 4 == 0).all()
    joined = join_windows(means(windows), -(-height // 4), -(-width // 4), 2)
    whole = np.pad(image, ((0, -height % 4), (0, -width % 4)), mode="symmetric")
    np.testing.assert_allclose(joined, means(whole), atol=1e-5)
