import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.ops.patches import (
    expand_mask,
    gather_patches,
    grid_of,
    join_patch_windows,
    join_patches,
    largest_in,
    mask_of,
    put_patches,
    rows_of_sites,
    split_patches,
    split_windows,
    take_patches,
    take_rows,
    top_patches,
)

GRID, PATCH = (4, 5), 2


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@settings(max_examples=30, deadline=None)
@given(*[st.integers(1, 4)] * 5)
def test_splitting_is_by_rows_and_joining_its_inverse(batch, rows, cols, side, channels):
    x = np.random.default_rng(0).normal(size=(batch, rows * side, cols * side, channels)).astype(np.float32)
    patches = np.asarray(split_patches(jnp.asarray(x), side))
    assert patches.shape == (batch, rows * cols, side, side, channels)
    for i in range(rows * cols):
        r, c = divmod(i, cols)
        np.testing.assert_array_equal(patches[:, i], x[:, r * side : (r + 1) * side, c * side : (c + 1) * side])
    np.testing.assert_array_equal(join_patches(jnp.asarray(patches), (rows, cols)), x)
    windows = split_windows(jnp.asarray(x), (rows, cols))
    np.testing.assert_array_equal(windows, patches.reshape(batch, rows * cols, side * side, channels))
    np.testing.assert_array_equal(join_patch_windows(windows, (rows, cols)), x)


def test_some_patches_are_taken_and_put_back():
    patches, indices = normal(0, 2, 6, 3, 4), jnp.array([[5, 0], [2, 3]])
    taken = take_patches(patches, indices)
    np.testing.assert_array_equal(taken[0], patches[0, [5, 0]])
    np.testing.assert_array_equal(put_patches(patches, indices, taken), patches)
    changed = np.asarray(put_patches(patches, indices, taken + 1) != patches).all(axis=(2, 3))
    np.testing.assert_array_equal(changed, np.asarray(mask_of(indices, (2, 3))).reshape(2, 6) > 0)


def test_patches_come_back_and_have_their_surroundings():
    x = normal(0, 2, 8, 10, 3)
    indices = jnp.array([[0, 7, 19], [4, 5, 6]])
    patches = gather_patches(x, indices, PATCH)
    np.testing.assert_array_equal(patches, take_patches(split_patches(x, PATCH), indices))
    np.testing.assert_array_equal(
        take_rows(patches, rows_of_sites(indices, GRID, PATCH)), x * expand_mask(mask_of(indices, GRID), PATCH)
    )
    wide = gather_patches(x, indices, PATCH, 1)
    np.testing.assert_array_equal(wide[0, 1], x[0, 1:5, 3:7])
    assert not np.asarray(wide[0, 0, 0]).any() and not np.asarray(wide[0, 2, :, -1]).any()


def test_the_highest_scores_without_a_gradient():
    scores = jnp.array([[[0.1, 0.9, -1.0], [0.5, -jnp.inf, 0.3]]])
    np.testing.assert_array_equal(top_patches(scores, 3), [[1, 3, 5]])
    weight = jax.grad(lambda s: jnp.sum(take_patches(s.reshape(1, 6) * 2, top_patches(s * s, 2))))(jnp.ones((1, 2, 3)))
    np.testing.assert_array_equal(weight.reshape(-1), [2, 2, 0, 0, 0, 0])  # of what is taken, not of the ranks


def test_the_largest_of_each_square():
    mask = np.zeros((2, 8, 12), bool)
    mask[0, 3, 8] = mask[0, 4, 11] = True
    np.testing.assert_array_equal(np.argwhere(largest_in(jnp.asarray(mask), 4)), [[0, 0, 2], [0, 1, 2]])


def test_one_trace_for_any_indices():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, indices):
        windows = split_windows(x, GRID)
        return join_patch_windows(put_patches(windows, indices, 2 * take_patches(windows, indices)), GRID)

    for seed in range(3):
        x, indices = normal(seed, 2, 8, 10, 3), top_patches(normal(seed + 5, 2, *GRID), 7)
        np.testing.assert_array_equal(run(x, indices), x * (1 + expand_mask(mask_of(indices, GRID), PATCH)))


def test_bad_arguments():
    with pytest.raises(ValueError, match="patches of 4x4 do not divide a map of 8x10"):
        grid_of(8, 10, 4)
    with pytest.raises(ValueError, match="does not divide a map of 8x10 into squares"):
        split_windows(jnp.zeros((1, 8, 10, 1)), (2, 2))
    with pytest.raises(ValueError, match=r"needs \[B, 4, p, p, C\], got \(1, 3, 2, 2, 1\)"):
        join_patches(jnp.zeros((1, 3, 2, 2, 1)), (2, 2))
    with pytest.raises(ValueError, match="square number of sites, got 3"):
        join_patch_windows(jnp.zeros((1, 4, 3, 1)), (2, 2))
    for number in (0, 21):
        with pytest.raises(ValueError, match=rf"must be in 1\.\.20, got {number}"):
            top_patches(jnp.zeros((1, *GRID)), number)
