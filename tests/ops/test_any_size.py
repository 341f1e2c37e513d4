"""Positions that are computed in the program equal those computed on the host, for any sizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from irjax.ops import any_size, letterbox, windows

SIDES = st.integers(16, 5000)


@settings(max_examples=12, deadline=None)
@given(SIDES, SIDES, st.sampled_from([64, 256, 512]), st.booleans())
@example(4999, 16, 512, True)  # products of 64 bits
def test_letterbox(height, width, size, enlarge):
    longest = jnp.int32(max(height, width))
    scale, offset = letterbox.letterbox_affine(height, width, size, enlarge)
    to_canvas = letterbox.letterbox_weights(height, width, size, enlarge)
    for axis, (length, wanted) in enumerate(zip((height, width), to_canvas, strict=True)):
        found = any_size._to_canvas_weights(length, longest, size, enlarge)
        np.testing.assert_allclose(found, wanted, atol=3e-7)
        back = letterbox._axis_weights(size, length, 1 / scale[1 - axis], -offset[1 - axis] / scale[1 - axis])
        np.testing.assert_allclose(any_size._from_canvas_weights(length, longest, size, enlarge), back, atol=3e-7)
    found = any_size.letterbox_affine(height, width, size, enlarge)
    np.testing.assert_allclose(found[0], scale, rtol=1e-6)
    np.testing.assert_allclose(found[1], offset, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("enlarge", [True, False])
@pytest.mark.parametrize("size", [(20, 45), (64, 64), (200, 90)])
def test_images_to_the_canvas_and_back(size, enlarge):
    images = jnp.asarray(np.random.default_rng(0).random((2, *size)), jnp.float32)
    canvas = any_size.letterbox(images, 64, enlarge)
    np.testing.assert_allclose(canvas, letterbox.letterbox(images, 64, enlarge), atol=1e-6)
    back = any_size.unletterbox(canvas, *size, enlarge)
    np.testing.assert_allclose(back, letterbox.unletterbox(canvas, *size, enlarge), atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.integers(9, 120), st.integers(9, 120), st.sampled_from([1, 4]))
def test_windows(height, width, step):
    images = np.random.default_rng(height).random((2, height, width)).astype(np.float32)

    def cells(squares):
        side = squares.shape[-1] // step
        means = squares.reshape(*squares.shape[:-2], side, step, side, step).mean((-3, -1))
        return means * (1 + jnp.arange(side) / side)  # depends on the place in the window

    maps = np.stack([cells(one) for one in windows.cut_windows(images, 32, 8, step)])
    wanted = windows.join_windows(maps, -(-height // step), -(-width // step), 8 // step)
    found = any_size.map_windows(cells, jnp.asarray(images), 32, 8, step)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20000), st.integers(2, 600), st.data())
def test_windows_start_where_they_do_on_the_host(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    if length > 400 * (size - overlap):
        length = length % (400 * (size - overlap)) + 1
    wanted = windows.window_starts(length, size, overlap)
    count, _ = any_size._grid(jnp.int32(length), size, overlap)
    found = any_size._start(jnp.arange(1024), count, jnp.int32(length), size)[: len(wanted)]  # one shape for all
    assert int(count) == len(wanted) and tuple(np.asarray(found)) == wanted
