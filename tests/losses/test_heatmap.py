import jax.numpy as jnp
import numpy as np
import pytest

from irjax.losses import heatmap_mse


def test_twice_the_mean_squared_error_of_each_example():
    rng = np.random.default_rng(0)
    heatmap, target = rng.normal(size=(2, 3, 5, 7)).astype(np.float32)
    wanted = [2 * np.mean((a.astype(np.float64) - b) ** 2) for a, b in zip(heatmap, target, strict=True)]
    np.testing.assert_allclose(heatmap_mse(heatmap, target), wanted, rtol=1e-6)


def test_low_precision_input_is_reduced_in_float32():
    heatmap = jnp.full((1, 64, 64), 0.1, jnp.bfloat16)
    loss = heatmap_mse(heatmap, jnp.zeros((1, 64, 64), jnp.bfloat16))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, [2 * float(heatmap[0, 0, 0]) ** 2], rtol=1e-5)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\) and \(1, 4, 5\)"):
        heatmap_mse(jnp.zeros((1, 4, 4)), jnp.zeros((1, 4, 5)))
