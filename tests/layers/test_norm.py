"""Batch normalisation: PyTorch's running averages, float32 statistics, synchronisation over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.layers.norm import BatchNorm


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).normal(1.0, 2.0, (4, 6, 5, 3)), jnp.float32)


def test_training(images):
    module = BatchNorm()
    variables = module.init(jax.random.key(0), images, train=False)
    out, updated = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable="batch_stats"))(variables, images)
    flat = np.asarray(images, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(out, (images - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5), atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


def test_evaluation_uses_the_running_averages(images):
    params = {"scale": jnp.array([1.0, 2.0, 3.0]), "bias": jnp.array([0.0, 1.0, 2.0])}
    stats = {"mean": jnp.array([1.0, 0.0, -1.0]), "var": jnp.array([4.0, 1.0, 0.25])}
    out = BatchNorm().apply({"params": params, "batch_stats": stats}, images, train=False)
    wanted = (images - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(out, wanted, atol=1e-5)


def test_statistics_stay_float32(images):
    module = BatchNorm()
    narrow = images.astype(jnp.bfloat16)
    variables = module.init(jax.random.key(0), narrow, train=False)
    out, updated = module.apply(variables, narrow, train=True, mutable="batch_stats")
    assert out.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, updated)))


def test_synchronised_equals_one_batch(images):
    """Two shards under a named axis give the outputs, gradients and averages of the whole batch."""
    variables = BatchNorm().init(jax.random.key(0), images, train=False)

    def run(module, x):
        return module.apply(variables, x, train=True, mutable="batch_stats")

    whole, wanted = jax.jit(lambda x: run(BatchNorm(), x))(images)
    shards = images.reshape(2, 2, *images.shape[1:])
    parts, updated = jax.jit(jax.vmap(lambda x: run(BatchNorm(axis_name="batch"), x), axis_name="batch"))(shards)
    np.testing.assert_allclose(parts.reshape(whole.shape), whole, atol=1e-5)
    for leaf, expected in zip(jax.tree.leaves(updated), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(leaf[0], expected, rtol=1e-5)
        np.testing.assert_array_equal(leaf[0], leaf[1])


def test_one_value_a_channel_does_not_divide_by_zero():
    module = BatchNorm()
    single = jnp.ones((1, 1, 1, 3))
    variables = module.init(jax.random.key(0), single, train=False)
    out, updated = module.apply(variables, single, train=True, mutable="batch_stats")
    assert jnp.isfinite(out).all() and all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(updated))
