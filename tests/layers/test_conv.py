"""The hand-written convolutions and their gradients against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from irjax.layers import cpu
from irjax.layers.conv import Conv, DepthwiseConv, conv, depthwise_conv


def plain(x, kernel, stride=1, groups=1):
    pads = [(kernel.shape[0] // 2, kernel.shape[1] // 2)] * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_same_with_gradients(ours, wanted, x, kernel):
    """Value, and the product of a random vector with the derivative, for both arguments."""

    @jax.jit
    def both(x, kernel):
        out, pull = jax.vjp(ours, x, kernel)
        reference, pull_reference = jax.vjp(wanted, x, kernel)
        cotangent = normal(*out.shape, seed=7)
        return (out, *pull(cotangent)), (reference, *pull_reference(cotangent))

    for got, expected in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(2, 8, 12, 6), (1, 7, 5, 4), (3, 1, 9, 2), (1, 13, 16, 1)])
def test_depthwise(size, shape):
    x, kernel = normal(*shape), normal(size, size, 1, shape[-1], seed=1)
    assert_same_with_gradients(depthwise_conv, lambda a, b: plain(a, b, groups=shape[-1]), x, kernel)


@pytest.mark.parametrize("shape", [(2, 8, 12, 6), (1, 7, 6, 4), (1, 1, 9, 2)])
def test_depthwise_with_a_stride(shape):
    x, kernel = normal(*shape), normal(3, 3, 1, shape[-1], seed=1)
    assert_same_with_gradients(
        lambda a, b: depthwise_conv(a, b, 2), lambda a, b: plain(a, b, 2, groups=shape[-1]), x, kernel
    )


@pytest.mark.parametrize("shape", [(2, 8, 12, 3), (1, 2, 2, 4), (2, 6, 10, 1), (1, 7, 10, 3), (1, 5, 5, 2)])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (3, 1), (1, 1), (1, 2), (5, 1)])
def test_dense(shape, size, stride):
    x, kernel = normal(*shape), normal(size, size, shape[-1], 5, seed=1)
    assert_same_with_gradients(lambda a, b: conv(a, b, stride), lambda a, b: plain(a, b, stride), x, kernel)


@pytest.mark.parametrize("in_cache", [1, 300])  # one row of copies, and several
@pytest.mark.parametrize(("features", "stride"), [(5, 1), (3, 1), (2, 1), (5, 2)])
def test_kernel_gradient_row_by_row(features, stride, in_cache, monkeypatch):
    monkeypatch.setattr(cpu, "_IN_CACHE", in_cache)
    x, kernel = normal(2, 12, 6, 3), normal(3, 3, 3, features, seed=1)
    assert_same_with_gradients(lambda a, b: conv(a, b, stride), lambda a, b: plain(a, b, stride), x, kernel)


@pytest.mark.parametrize("shape", [(2, 48, 52), (1, 47, 51), (3, 1, 2500), (2, 9, 12)])
@pytest.mark.parametrize(("size", "channels", "features"), [(7, 2, 1), (3, 4, 1), (3, 1, 3), (5, 2, 2), (3, 1, 1)])
def test_few_planes(shape, size, channels, features):
    x, kernel = normal(*shape, channels), normal(size, size, channels, features, seed=1)
    assert_same_with_gradients(conv, plain, x, kernel)


def test_under_vmap():
    x, kernel = normal(3, 1, 8, 8, 4), normal(3, 3, 1, 4, seed=1)
    grad = jax.grad(lambda a, b: jnp.sum(depthwise_conv(a, b) ** 2), argnums=(0, 1))
    for got, wanted in zip(
        jax.jit(jax.vmap(grad, in_axes=(0, None)))(x, kernel),
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *[jax.jit(grad)(part, kernel) for part in x]),
        strict=True,
    ):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "shape"), [(Conv(6, 3, use_bias=True), (3, 3, 4, 6)), (DepthwiseConv(3), (3, 3, 1, 4))]
)
def test_modules_keep_float32_parameters(module, shape):
    narrow = module.clone(dtype=jnp.bfloat16)
    out, variables = narrow.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
    assert out.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].shape == shape
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_initial_weights_are_pytorchs():
    """Uniform within one over the square root of the fan-in; a depthwise kernel sees one channel."""
    for module, fan_in in ((Conv(64, 3), 9 * 16), (DepthwiseConv(3), 9)):
        kernel = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 16)))["params"]["kernel"]
        limit = fan_in**-0.5
        assert 0.9 * limit < float(jnp.abs(kernel).max()) <= limit
