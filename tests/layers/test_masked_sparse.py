"""The three forms of convolutions under a mask agree where they must, and differ where they may."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.layers.conv import conv
from irjax.layers.masked_sparse import (
    KeptPatches,
    dense_literal,
    gather_sparse,
    gumbel_keep,
    kept_number,
    masked_dense,
    scores_of,
)
from irjax.ops.patches import expand_mask, mask_of, rows_of_sites, top_patches

GRID, PATCH, CHANNELS = (4, 5), 2, 3


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def stack(x, domain):
    """1x1, 3x3, 3x3 with biases, which revive dropped sites unless they are cleared."""
    for seed, size in ((1, 1), (2, 3), (3, 3)):
        x = domain.conv(x, normal(seed, size, size, CHANNELS, CHANNELS))
        x = domain.clear(jax.nn.relu(x + normal(10 + seed, CHANNELS)))
    return x


def two_near(x, domain):
    """The branch of ADSNet with two 3x3 convolutions."""
    for seed in (2, 3):
        x = domain.conv(x, normal(seed, 3, 3, CHANNELS, CHANNELS))
        x = domain.clear(jax.nn.relu(x + normal(10 + seed, CHANNELS)))
    return x


@functools.partial(jax.jit, static_argnums=(1, 2))
def forms(indices, patch=PATCH, layers=stack):
    x = normal(0, len(indices), GRID[0] * patch, GRID[1] * patch, CHANNELS)
    mask = mask_of(indices, GRID)
    return masked_dense(layers, x, mask), gather_sparse(layers, x, indices, patch), dense_literal(layers, x, mask), mask


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([2, 9, 17]))
def test_gathered_patches_give_what_masked_maps_give(seed, number):
    rng = np.random.default_rng(seed)
    indices = jnp.asarray(np.sort([rng.permutation(20)[:number] for _ in range(2)]), jnp.int32)
    dense, sparse, _, mask = forms(indices)
    scale = float(jnp.abs(dense).max())
    np.testing.assert_allclose(sparse, dense, atol=1e-5 * max(scale, 1))
    assert not np.asarray(dense * (1 - expand_mask(mask, PATCH))).any()


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("index", [0, 4, 7, 15, 19])  # corners, borders, inside
def test_one_patch_anywhere(index, patch):
    dense, sparse, _, _ = forms(jnp.array([[index], [19 - index]]), patch)
    np.testing.assert_allclose(sparse, dense, atol=1e-5 * float(jnp.abs(dense).max()))


def test_all_three_are_one_when_everything_is_kept():
    dense, sparse, literal, _ = forms(jnp.tile(jnp.arange(20), (2, 1)))
    np.testing.assert_allclose(sparse, dense, atol=1e-5 * float(dense.max()))
    np.testing.assert_allclose(literal, dense, atol=1e-5 * float(dense.max()))


def test_an_empty_mask_leaves_nothing():
    x = normal(0, 2, 8, 10, CHANNELS)
    assert not np.asarray(jax.jit(masked_dense, static_argnums=0)(stack, x, jnp.zeros((2, *GRID)))).any()


def test_the_literal_form_agrees_inside_and_differs_at_the_border_of_what_is_kept():
    indices = jnp.array([[6, 7, 11, 12], [0, 1, 5, 6]])
    dense, _, literal, mask = forms(indices, PATCH, two_near)
    sites = np.asarray(expand_mask(mask, PATCH))[..., 0]
    padded = np.pad(sites, ((0, 0), (1, 1), (1, 1)), constant_values=1)  # zero outside the map in both
    around = np.min([padded[:, i : i + 8, j : j + 10] for i in range(3) for j in range(3)], axis=0) * sites
    inside, border = around > 0, (sites > 0) & (around == 0)
    np.testing.assert_allclose(literal[inside], dense[inside], atol=1e-5 * float(dense.max()))
    assert inside.sum() == 4 + 9 and np.abs(np.asarray(literal - dense))[border].max(axis=-1).mean() > 0.1


@pytest.mark.parametrize("batch", [1, 3])
def test_sizes_and_one_trace(batch):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, indices):
        return gather_sparse(stack, x, indices, 4)

    for seed in range(3):
        x = normal(seed, batch, 16, 32, CHANNELS)
        indices = top_patches(normal(seed + 5, batch, 4, 8), 7)
        assert run(x, indices).shape == x.shape
        wanted = jax.jit(masked_dense, static_argnums=0)(stack, x, mask_of(indices, (4, 8)))
        np.testing.assert_allclose(run(x, indices), wanted, atol=1e-4)


def test_patches_come_back():
    x = normal(0, 2, 8, 10, CHANNELS)
    indices = jnp.array([[0, 7, 19], [4, 5, 6]])
    domain = KeptPatches(indices, GRID)
    np.testing.assert_array_equal(domain.enter(x)[0, 1], x[0, 2:4, 4:6])
    kept = expand_mask(mask_of(indices, GRID), PATCH)
    np.testing.assert_array_equal(domain.leave(domain.enter(x)), x * kept)
    rows = rows_of_sites(indices, GRID, PATCH)
    np.testing.assert_array_equal(rows < 24, kept[..., 0])
    np.testing.assert_array_equal(rows[0, 2:4, 4:6], [[4, 5], [6, 7]])  # the second patch of the first image


@pytest.mark.parametrize("size", [1, 3, 5])
def test_both_forms_of_a_convolution_of_patches(size):
    x, indices = normal(0, 2, 8, 10, CHANNELS), jnp.array([[0, 1, 7, 12, 19], [4, 5, 6, 9, 10]])
    kernel, kept = normal(1, size, size, CHANNELS, 4), expand_mask(mask_of(indices, GRID), PATCH)
    domain = KeptPatches(indices, GRID)
    want = conv(x * kept, kernel) * kept
    for form in (None, lambda *args, cpu, default: default(*args)):
        with pytest.MonkeyPatch.context() as patch:
            if form:
                patch.setattr(jax.lax, "platform_dependent", form)
            got = domain.leave(domain.conv(domain.enter(x), kernel))
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_gradients_reach_kept_patches_and_the_mask():
    x, indices = normal(0, 2, 8, 10, CHANNELS), jnp.array([[0, 7, 19], [4, 5, 6]])
    mask = mask_of(indices, GRID)
    total = lambda y: jnp.sum(jnp.sin(y))  # noqa: E731
    dense = jax.jit(jax.grad(lambda x: total(masked_dense(stack, x, mask))))(x)
    sparse = jax.jit(jax.grad(lambda x: total(gather_sparse(stack, x, indices, PATCH))))(x)
    np.testing.assert_allclose(sparse, dense, atol=1e-4 * float(jnp.abs(dense).max()))
    assert (
        jnp.abs(jax.jit(jax.grad(lambda m: total(masked_dense(stack, x, m))))(mask)).min() > 0
    )  # at dropped ones, too


def test_ranking():
    scores = jnp.array([[[0.1, 0.9, -1.0], [0.5, -jnp.inf, 0.3]]])
    logits = jnp.stack([scores, jnp.zeros_like(scores)], axis=-1)
    np.testing.assert_array_equal(scores_of(logits), scores)
    excluded = scores_of(logits, jnp.array([[[1, 0, 1], [1, 1, 1]]]))
    assert excluded[0, 0, 1] == -jnp.inf and excluded[0, 0, 0] == scores[0, 0, 0]
    assert kept_number(256, 0.25) == 192 and kept_number(256, 0.5) == 128


def test_decisions_are_binary_with_the_gradient_of_soft_ones():
    logits = 2 * normal(0, 3, 4, 5, 2)
    plain = gumbel_keep(logits, None)
    np.testing.assert_array_equal(plain, logits[..., 0] >= logits[..., 1])
    keys = jax.random.split(jax.random.key(1), 3)
    draw = jax.jit(lambda key: gumbel_keep(logits, jax.random.split(key, 3)))
    noisy = np.stack([draw(key) for key in jax.random.split(keys[0], 400)])
    assert set(np.unique(noisy)) == {0.0, 1.0}
    np.testing.assert_allclose(noisy.mean(0), jax.nn.softmax(logits)[..., 0], atol=0.12)
    got = jax.grad(lambda x: jnp.sum(gumbel_keep(x, None, 0.5)))(logits)
    np.testing.assert_allclose(got, jax.grad(lambda x: jnp.sum(jax.nn.softmax(x / 0.5)[..., 0]))(logits), atol=1e-6)
    alone = gumbel_keep(logits[1:2], keys[1:2])  # an image's noise is its own
    np.testing.assert_array_equal(gumbel_keep(logits, keys)[1:2], alone)


def test_bad_arguments():
    x = jnp.zeros((1, 8, 10, 3))
    with pytest.raises(ValueError, match="patches of 4x4 do not divide a map of 8x10"):
        gather_sparse(stack, x, jnp.zeros((1, 1), jnp.int32), 4)
    with pytest.raises(ValueError, match="a mask of 3x5 patches does not divide"):
        masked_dense(stack, x, jnp.ones((1, 3, 5)))
    with pytest.raises(ValueError, match="leave one of 16, got 0.99"):
        kept_number(16, 0.99)
