"""Maps of another size, and of another frame."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from irjax.ops.resize import crop_padding, resize_bilinear, same_aspect


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20))
def test_resizing_keeps_range_and_constants(height, width, rows, columns):
    values = np.random.default_rng(height * 10 + width).random((height, width), np.float32)
    found = resize_bilinear(values, rows, columns)
    assert found.shape == (rows, columns) and found.dtype == np.float32
    assert values.min() <= found.min() and found.max() <= values.max()
    np.testing.assert_array_equal(resize_bilinear(values, height, width), values)


def test_resizing_is_bilinear():
    # Doubling puts samples at a quarter and three quarters between the old ones; the ends are repeated.
    found = resize_bilinear(np.array([[0.0, 1.0]]), 1, 4)
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]])
    ramp = np.add.outer(np.arange(8.0), 2 * np.arange(8.0))
    found = resize_bilinear(ramp, 4, 4)
    np.testing.assert_allclose(found, np.add.outer(np.arange(0.5, 8, 2), 2 * np.arange(0.5, 8, 2)))
    assert resize_bilinear(np.eye(4, dtype=bool), 8, 8).dtype == np.float32


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 40), st.integers(0, 40))
def test_padding_is_cut_off(height, width, below, right):
    image = np.arange(height * width).reshape(height, width)
    corner = np.pad(image, ((0, below), (0, right)))
    np.testing.assert_array_equal(crop_padding(corner, image.shape, "corner"), image)
    centre = np.pad(image, ((below, below), (right, right)))
    np.testing.assert_array_equal(crop_padding(centre, image.shape, "centre"), image)


@given(st.integers(16, 2000), st.integers(16, 2000), st.integers(16, 512))
def test_a_shrunk_image_in_its_padding_keeps_its_aspect(height, width, side):
    found = crop_padding(np.zeros((side, side)), (height, width), "centre").shape
    assert max(found) <= side and (found == (height, width) or max(found) == side)
    assert same_aspect(found, (height, width))


def test_aspects():
    assert (
        same_aspect((256, 256), (512, 512)) and same_aspect((20, 28), (40, 56)) and same_aspect((100, 133), (480, 640))
    )
    assert not same_aspect((256, 256), (480, 640)) and not same_aspect((256, 256), (256, 260))
