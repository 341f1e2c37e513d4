import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.data.cache import cut, load_cache
from irjax.data.sources import open_source
from irjax.targets import prps


def gaussian_patch(sigma=2.0):
    square = np.arange(-round(3 * sigma), round(3 * sigma) + 1) ** 2
    return np.exp(-(square[:, None] + square[None]) / (2 * sigma**2))


def reference(image, points, *, stride=4, sigma=2.0, aggregate="max", centre="cell"):
    """Equations 2 to 6 step by step, in plain loops."""
    side, reach = 2 * round(3 * sigma) + 1, round(3 * sigma)
    height, width = image.shape
    heat = np.zeros((height // stride, width // stride))
    for x, y in points:
        row, column = int(np.floor(y)), int(np.floor(x))
        top, left = max(row - 5, 0), max(column - 5, 0)
        window = image[top : row + 6, left : column + 6]
        offset = np.unravel_index(np.argmax(window), window.shape)
        peak_x, peak_y = left + offset[1], top + offset[0]
        row, column = peak_y - reach, peak_x - reach
        row, column = min(max(row, 0), height - side), min(max(column, 0), width - side)
        patch = image[row : row + side, column : column + side]
        target = gaussian_patch(sigma)
        if patch.max() > patch.min():
            product = target * (patch - patch.min()) / (patch.max() - patch.min())
            if product.max() > product.min():
                target = (product - product.min()) / (product.max() - product.min())
        x, y = (x, y) if centre == "cell" else (peak_x, peak_y)
        v, u = int(np.floor(y / stride + 0.5)), int(np.floor(x / stride + 0.5))
        for i in range(side):
            for j in range(side):
                r, c = v - reach + i, u - reach + j
                if 0 <= r < heat.shape[0] and 0 <= c < heat.shape[1]:
                    if aggregate == "max":
                        heat[r, c] = max(heat[r, c], target[i, j])
                    else:
                        heat[r, c] = (heat[r, c] + target[i, j]) / 2 if heat[r, c] > 0 else target[i, j]
    return heat


@pytest.mark.parametrize("form", ["prps", "gaussian"])
def test_equals_the_recorded_targets(shared, form):
    recorded = np.load(shared / "golden" / "prps_512.npz")
    for i in range(10):
        points = recorded[f"{i}_letterboxed_points_xy"][None].astype(np.float32)
        image = recorded[f"{i}_letterboxed"][None]
        heat = prps(image, points, np.ones(points.shape[:2], bool), form=form, aggregate="average")
        np.testing.assert_allclose(heat[0], recorded[f"{i}_{form}"], atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["max", "average"]),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.sampled_from(["cell", "peak"]),
)
def test_equals_the_loops(seed, aggregate, sigma, centre):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 8, (48, 64)).astype(np.float32)  # few levels, so that ties occur
    points = rng.uniform(0, (63, 47), (4, 2)).astype(np.float32)
    options = {"sigma": sigma, "aggregate": aggregate, "centre": centre}
    heat = prps(image[None], points[None], np.ones((1, 4), bool), **options)
    np.testing.assert_allclose(heat[0], reference(image, points, **options), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(12, 51), st.integers(12, 51), st.integers(-5, 5), st.integers(-5, 5), st.sampled_from([2, 4, 8]))
def test_peak_puts_the_maximum_where_the_image_is_brightest(x, y, dx, dy, stride):
    """Eq. 3: at the lattice cell of the brightest pixel near the point, whatever the form."""
    image = np.full((64, 64), 0.2, np.float32)
    image[y, x] = 1.0
    point = np.array([[[x + dx, y + dy]]], np.float32) + np.float32(0.25)
    for form in ("prps", "gaussian", "impulse"):
        options = {"stride": stride, "sigma": 1.0, "form": form}
        for centre, (at_x, at_y) in (("peak", (x, y)), ("cell", point[0, 0])):
            heat = np.asarray(prps(image[None], point, np.ones((1, 1), bool), centre=centre, **options))[0]
            cell = np.array([np.floor(at_y / stride + 0.5), np.floor(at_x / stride + 0.5)])
            if np.all(cell < 64 // stride):
                np.testing.assert_array_equal(np.argwhere(heat == heat.max())[0], cell)
                assert heat.max() == 1


def test_targets_of_nudt_sirst_whose_peak_is_in_another_cell(shared):
    draws = np.arange(133)
    data = cut(load_cache(open_source(shared / "data" / "NUDT-SIRST", "val"), 512, 8), draws, draws)
    assert data.valid.sum() == 192
    other = 0
    for column in range(4):  # no image has more targets
        cell, peak = (
            prps(data.images, data.points[:, [column]], data.valid[:, [column]], form="impulse", centre=centre)
            for centre in ("cell", "peak")
        )
        other += int(jnp.sum(jnp.any(cell != peak, axis=(1, 2))))
    assert not data.valid[:, 4:].any() and other == 87


def test_masked_points_leave_no_trace():
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 64, 64)), jnp.float32)
    points = jnp.array([[[20.0, 30.0], [50.0, 10.0]]])
    only = prps(image, points[:, :1], jnp.array([[True]]))
    np.testing.assert_array_equal(prps(image, points, jnp.array([[True, False]])), only)
    np.testing.assert_array_equal(prps(image, points, jnp.zeros((1, 2), bool)), jnp.zeros((1, 16, 16)))


def test_flat_patch_falls_back_to_the_gaussian():
    points, mask = jnp.array([[[32.0, 32.0]]]), jnp.array([[True]])
    heat = prps(jnp.full((1, 64, 64), 0.3), points, mask)
    np.testing.assert_allclose(heat, prps(jnp.zeros((1, 64, 64)), points, mask, form="gaussian"))
    np.testing.assert_allclose(heat[0, 2:15, 2:15], gaussian_patch(), atol=1e-6)


def test_impulse_is_one_cell_and_stride_moves_it():
    points, mask = jnp.array([[[30.0, 13.0]]]), jnp.array([[True]])
    for stride in (2, 4, 8):
        heat = np.asarray(prps(jnp.zeros((1, 64, 64)), points, mask, stride=stride, form="impulse"))[0]
        assert heat.sum() == 1
        assert tuple(np.argwhere(heat)[0]) == (int(13 / stride + 0.5), int(30 / stride + 0.5))


def test_max_keeps_close_peaks_that_average_lowers():
    image = jnp.zeros((1, 64, 64)).at[0, 32, 30].set(1.0).at[0, 32, 38].set(1.0)
    points, mask = jnp.array([[[30.0, 32.0], [38.0, 32.0]]]), jnp.ones((1, 2), bool)
    assert float(prps(image, points, mask, form="gaussian").max()) == 1.0
    low = prps(image, points, mask, form="gaussian", aggregate="average")[0, 8]
    assert float(low[8]) < 0.9


def test_shapes_and_one_trace():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(images, points, mask):
        return prps(images, points, mask)

    for seed in range(2):
        images = jnp.asarray(np.random.default_rng(seed).uniform(size=(2, 64, 96)), jnp.float32)
        chex.assert_shape(run(images, jnp.full((2, 3, 2), 20.0), jnp.ones((2, 3), bool)), (2, 16, 24))
    big = jax.eval_shape(prps, jnp.zeros((8, 640, 640)), jnp.zeros((8, 32, 2)), jnp.zeros((8, 32), bool))
    chex.assert_shape(big, (8, 160, 160))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "disc"}, "form must be"),
        ({"aggregate": "sum"}, "aggregate"),
        ({"centre": "middle"}, "centre must be"),
        ({"stride": 5}, "multiples of 5"),
        ({"sigma": 12.0}, "at least 73"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        prps(jnp.zeros((1, 64, 64)), jnp.zeros((1, 2, 2)), jnp.zeros((1, 2), bool), **change)
    with pytest.raises(ValueError, match="wanted images"):
        prps(jnp.zeros((64, 64)), jnp.zeros((1, 2, 2)), jnp.zeros((1, 2), bool))
