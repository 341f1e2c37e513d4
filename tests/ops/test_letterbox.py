"""Letterbox geometry and resampling: against the published affine, a slow bilinear reference, and recorded canvases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.ops.letterbox import (
    from_canvas,
    letterbox,
    letterbox_affine,
    letterbox_extent,
    letterbox_host,
    letterbox_weights,
    to_canvas,
    unletterbox,
    unletterbox_host,
)

SIDES = st.integers(16, 700)


def reference(image, size):
    """Bilinear, pixel by pixel, zeros outside: the value at the canvas pixel's place in the image."""
    height, width = image.shape
    scale, offset = letterbox_affine(height, width, size)
    padded = np.pad(image.astype(np.float64), 1)
    canvas = np.zeros((size, size))
    for v in range(size):
        for u in range(size):
            x, y = (np.array([u, v]) - offset) / scale
            if not (-1 < x < width and -1 < y < height):
                continue
            col, row = int(np.floor(x)), int(np.floor(y))
            a, b = x - col, y - row
            corner = padded[row + 1 : row + 3, col + 1 : col + 3]
            canvas[v, u] = [1 - b, b] @ corner @ [1 - a, a]
    return canvas


@given(SIDES, SIDES, st.sampled_from([64, 512, 640]))
@settings(max_examples=50, deadline=None)
def test_corners(height, width, size):
    """Corner centres go where the published program sends them."""
    ratio = min(size / height, size / width)
    pad_x, pad_y = (size - width * ratio) / 2, (size - height * ratio) / 2
    scale, offset = letterbox_affine(height, width, size)
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1]])
    wanted = [[pad_x, pad_y], [size - pad_x - 1, pad_y], [pad_x, size - pad_y - 1]]
    np.testing.assert_allclose(corners * scale + offset, wanted, atol=1e-9)
    assert min(pad_x, pad_y) == pytest.approx(0, abs=1e-9)


@given(SIDES, SIDES, st.sampled_from([64, 512, 640]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_extent_is_where_the_image_is_seen(height, width, size, enlarge):
    left, top, right, bottom = letterbox_extent(height, width, size, enlarge)
    for weights, first, last in zip(
        letterbox_weights(height, width, size, enlarge), (top, left), (bottom, right), strict=True
    ):
        seen = weights.sum(axis=1)
        assert (
            seen[first : last + 1].min(initial=1) > 0
            and max(seen[:first].max(initial=0), seen[last + 1 :].max(initial=0)) < 1e-5
        )
    assert letterbox_extent(64, 64, 64).tolist() == [0, 0, 63, 63]
    assert letterbox_extent(20, 30, 64, enlarge=False).tolist() == [17, 22, 46, 41]


@given(SIDES, SIDES, st.sampled_from([64, 512]), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=4))
@settings(max_examples=50, deadline=None)
def test_points_come_back(height, width, size, relative):
    points = np.array(relative, np.float32).reshape(-1, 2) * np.float32([width - 1, height - 1])
    there = to_canvas(points, height, width, size)
    assert there.dtype == np.float32 and ((there >= -1e-3) & (there <= size - 1 + 1e-3)).all()
    np.testing.assert_allclose(from_canvas(there, height, width, size), points, atol=2e-3)
    assert isinstance(to_canvas(jnp.asarray(points), height, width, size), jax.Array)


@pytest.mark.parametrize("shape", [(20, 31), (33, 16), (16, 16), (24, 24), (70, 50)])
def test_resampling_equals_the_slow_reference(shape):
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    wanted = reference(image, 24)
    np.testing.assert_allclose(letterbox_host(image, 24), wanted, atol=1e-5)
    np.testing.assert_allclose(jax.jit(letterbox, static_argnums=1)(image, 24), wanted, atol=1e-5)


def test_zero_outside_and_ones_inside():
    canvas = letterbox_host(np.full((20, 40), 200, np.uint8), 64)  # rows 16 to 47
    assert not canvas[:15].any() and not canvas[49:].any()
    assert (canvas[16:48] == 200).all()


def test_own_size_is_left_alone():
    image = np.random.default_rng(0).uniform(size=(2, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(letterbox(jnp.asarray(image), 32), image)
    np.testing.assert_array_equal(letterbox_host(image[0], 32), image[0])


def test_types_on_the_host():
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16):
        image = rng.integers(0, np.iinfo(dtype).max, (20, 31), dtype, endpoint=True)
        canvas = letterbox_host(image, 64)
        assert canvas.dtype == dtype
        # Half a level, and float32's own rounding at 16 bits.
        np.testing.assert_allclose(canvas, reference(image, 64), atol=0.51)
    mask = np.zeros((20, 20), bool)
    mask[5:9, 3:7] = True
    enlarged = letterbox_host(mask, 40)
    assert enlarged.dtype == bool and abs(int(enlarged.sum()) - 4 * 16) <= 16


def test_batches_and_gradients():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 20, 31)), jnp.float32)
    together = letterbox(images, 24)
    assert together.shape == (3, 24, 24)
    np.testing.assert_allclose(together[1], letterbox(images[1], 24), atol=1e-6)
    grad = jax.grad(lambda x: letterbox(x, 24).sum())(images[0])
    rows, cols = letterbox_weights(20, 31, 24)
    np.testing.assert_allclose(grad, np.outer(rows.sum(0), cols.sum(0)), rtol=1e-5)


@pytest.mark.parametrize("sides", [(1, 20, 64), (20, 1, 64), (20, 20, 1)])
def test_lines_are_refused(sides):
    with pytest.raises(ValueError, match="at least 2 pixels"):
        letterbox_affine(*sides)


def test_golden_canvases_and_points(shared):
    golden = np.load(shared / "golden/prps_512.npz", allow_pickle=False)
    for i in range(10):
        image = golden[f"{i}_image_gray"]
        difference = np.abs(letterbox_host(image, 512).astype(int) - golden[f"{i}_letterboxed"])
        # The recording interpolated in fixed point; one gray level, in some pixels of 100,000.
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-4
        inside = jax.jit(letterbox, static_argnums=1)(image.astype(np.float32), 512)
        np.testing.assert_allclose(inside, golden[f"{i}_letterboxed"], atol=0.55)
        points = to_canvas(golden[f"{i}_points_xy"].astype(np.float32), *image.shape, 512)
        np.testing.assert_allclose(points, golden[f"{i}_letterboxed_points_xy"], atol=1e-3)


@pytest.mark.parametrize("height, width, size", [(40, 100, 64), (64, 32, 128), (48, 48, 48), (17, 33, 64)])
def test_the_way_back_is_the_same_on_both_sides_and_keeps_linear_images(height, width, size):
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    image = 0.3 + 0.004 * columns + 0.002 * rows
    canvas = letterbox_host(image, size)
    host = unletterbox_host(canvas, height, width)
    inside = jax.jit(unletterbox, static_argnums=(1, 2))(canvas[None], height, width)[0]
    np.testing.assert_allclose(host, inside, atol=1e-5)
    # The border is mixed with the zeros outside.
    reach = int(np.ceil(max(height, width) / size))
    inner = np.s_[reach:-reach, reach:-reach]
    np.testing.assert_allclose(host[inner], image[inner], atol=1e-3)


@given(SIDES, SIDES, st.sampled_from([64, 512]))
@settings(max_examples=50, deadline=None)
def test_without_enlarging_an_image_that_fits_is_copied(height, width, size):
    image = np.random.default_rng(0).integers(1, 255, (height, width), np.uint8)
    canvas = letterbox_host(image, size, enlarge=False)
    if max(height, width) > size:
        np.testing.assert_array_equal(canvas, letterbox_host(image, size))
        return
    scale, offset = letterbox_affine(height, width, size, enlarge=False)
    x, y = offset.astype(int)
    assert (scale == 1).all() and (offset == (x, y)).all()
    np.testing.assert_array_equal(canvas[y : y + height, x : x + width], image)
    assert np.count_nonzero(canvas) == image.size
    np.testing.assert_array_equal(unletterbox_host(canvas, height, width, enlarge=False), image)
    points = np.float32([[0, 0], [width - 1, height - 1]])
    np.testing.assert_array_equal(to_canvas(points, height, width, size, False), points + offset)
    np.testing.assert_array_equal(from_canvas(points + offset, height, width, size, False), points)


def test_inside_jit_as_on_the_host_without_enlarging():
    image = np.random.default_rng(0).uniform(size=(20, 31)).astype(np.float32)
    inside = jax.jit(letterbox, static_argnums=(1, 2))(image, 40, False)
    np.testing.assert_allclose(inside, letterbox_host(image, 40, enlarge=False), atol=1e-6)
    np.testing.assert_allclose(unletterbox(inside, 20, 31, False), image, atol=1e-6)
