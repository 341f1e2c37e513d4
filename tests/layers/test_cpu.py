import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.layers.cpu import materialize


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 2), (3, 5), (0,)])
def test_the_same_array_and_gradient(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_array_equal(jax.jit(materialize)(x), x)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda y: jnp.sum(materialize(y * y))))(x), 2 * x)
    each = jax.vmap(materialize)(jnp.stack([x, x + 1]))
    np.testing.assert_array_equal(each[1], x + 1)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only the CPU's compiler needs it")
def test_nothing_is_computed_again():
    """Ten residual steps of shifted sums: without it the largest loop has all of them."""

    def steps(x, keep):
        for _ in range(10):
            x = x + jnp.pad(x, 1)[2:] + jnp.pad(x, 1)[:-2] * 3
            x = keep(x)
        return x

    def largest(keep):
        text = jax.jit(lambda x: steps(x, keep)).lower(jnp.ones(4096)).compile().as_text()
        return max(part.count("\n") for part in text.split("\n\n") if "fused_computation" in part.split("(")[0])

    assert largest(materialize) * 3 < largest(lambda x: x)
