"""2x2 maxima and their gradient against PyTorch's rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from irjax.layers.pool import max_pool2


def test_values_are_those_of_flax():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 10, 3)), jnp.float32)
    np.testing.assert_array_equal(jax.jit(max_pool2)(x), nn.max_pool(x, (2, 2), (2, 2)))


def test_gradient_goes_to_the_first_of_equal_places():
    x = jnp.round(jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 4)), jnp.float32))
    y, pull = jax.vjp(max_pool2, x)
    grad = np.asarray(jax.random.normal(jax.random.key(1), y.shape))
    got = np.asarray(jax.jit(pull)(jnp.asarray(grad))[0])
    image, ties = np.asarray(x), 0
    for b, i, j, c in np.ndindex(y.shape):
        block = image[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].ravel()
        ties += (block == block.max()).sum() > 1
        wanted = np.zeros(4, np.float32)
        wanted[np.argmax(block)] = grad[b, i, j, c]
        np.testing.assert_array_equal(got[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].ravel(), wanted)
    assert ties > 50


def test_odd_sides_are_refused():
    with pytest.raises(ValueError, match="needs even sides, got 6x7"):
        max_pool2(jnp.zeros((1, 6, 7, 2)))
