import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.layers import tokens
from irjax.layers.tokens import Attention, Mlp, sine_positions


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_attention_is_that_of_flax():
    queries, keys, values = normal(0, 2, 3, 5, 6), normal(1, 2, 3, 7, 10), normal(2, 2, 3, 7, 4)
    ours = Attention(6, 8, 2)
    params = jax.tree.map(lambda x: x + 0.1, jax.jit(ours.init)(jax.random.key(3), queries, keys, values)["params"])
    theirs = nn.MultiHeadDotProductAttention(2, qkv_features=8, out_features=6)
    shape = lambda name: {  # noqa: E731
        "kernel": params[name]["kernel"].reshape(-1, 2, 4),
        "bias": params[name].get("bias", jnp.zeros(8)).reshape(2, 4),
    }
    same = {name: shape(name) for name in ("query", "key", "value")}
    same["out"] = {"kernel": params["out"]["kernel"].reshape(2, 4, 6), "bias": params["out"]["bias"]}
    wanted = jax.jit(theirs.apply)({"params": same}, queries, keys, values)
    np.testing.assert_allclose(jax.jit(ours.apply)({"params": params}, queries, keys, values), wanted, atol=1e-5)


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("use_bias", [True, False])
def test_absorbed_kernels_are_the_same_function(number, use_bias):
    queries, keys, values = normal(0, 2, 3, number, 6), normal(1, 2, 3, 40, 5), normal(2, 2, 3, 40, 4)
    places = normal(3, number, 4), normal(4, 40, 4)
    plain, absorbing = (Attention(6, 8, 2, use_bias, absorb) for absorb in (False, True))
    assert absorbing._absorbs(8, queries, keys, values) and not absorbing._absorbs(8, keys, queries, queries)
    params = jax.tree.map(lambda x: x + 0.1, jax.jit(plain.init)(jax.random.key(3), queries, keys, values)["params"])
    shapes = jax.eval_shape(absorbing.init, jax.random.key(3), queries, keys, values)["params"]
    chex.assert_trees_all_equal_shapes(params, shapes)

    @functools.partial(jax.jit, static_argnums=0)
    def run(model, params, queries, keys, values):
        return model.apply({"params": params}, queries, keys, values, positions=places)

    given = params, queries, keys, values
    np.testing.assert_allclose(run(plain, *given), run(absorbing, *given), atol=1e-5)
    gradients = [
        jax.jit(jax.grad(lambda *g, m=m: jnp.sum(run(m, *g) ** 2), argnums=(0, 1, 2, 3)))(*given)
        for m in (plain, absorbing)
    ]
    chex.assert_trees_all_close(*gradients, atol=1e-4)


def test_attention_one_by_one_is_the_same_function(monkeypatch):
    model, given = Attention(6, 8, 2), (normal(0, 2, 3, 5, 6), normal(1, 2, 3, 7, 10))
    variables = jax.jit(model.init)(jax.random.key(0), *given)
    places = normal(2, 5, 4), normal(3, 7, 4)

    def run(variables, queries, keys):
        return jnp.sum(model.apply(variables, queries, keys, positions=places) ** 2)

    value_and_gradients = lambda *given: jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2)))(*given)  # noqa: E731
    whole = value_and_gradients(variables, *given)
    monkeypatch.setattr(tokens, "_IN_CACHE", 0)
    jax.clear_caches()  # it is not among the arguments
    assert "while" in jax.jit(run).lower(variables, *given).as_text()  # it is the other form
    chex.assert_trees_all_close(value_and_gradients(variables, *given), whole, rtol=1e-4, atol=1e-5)


def test_one_query_and_positions():
    model = Attention(4, 8, 2, use_bias=False)
    queries, keys = normal(0, 1, 1, 4), normal(1, 1, 6, 4)
    variables = jax.jit(model.init)(jax.random.key(0), queries, keys)
    apply = jax.jit(model.apply)
    same = jnp.broadcast_to(keys[:, :1], keys.shape)  # equal keys share the attention, wherever they lie
    places = sine_positions(1, 1, 4), sine_positions(2, 3, 4)
    np.testing.assert_allclose(
        apply(variables, queries, same, positions=places), apply(variables, queries, same), atol=1e-6
    )
    one, other = (apply(variables, queries, keys, positions=p) for p in (places, (places[0], 9 * places[1])))
    assert float(jnp.abs(one - other).max()) > 1e-4


def test_the_last_layer_of_an_mlp_is_linear():
    model = Mlp((5, 3))
    x = normal(0, 2, 4)
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    inner = jnp.maximum(x @ params["layer1"]["kernel"] + params["layer1"]["bias"], 0)
    wanted = inner @ params["layer2"]["kernel"] + params["layer2"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, x), wanted, atol=1e-6)
    assert float(wanted.min()) < 0


def test_positions_of_two_strides_agree_and_are_nearest_to_themselves():
    fine, coarse = sine_positions(8, 16, 32), sine_positions(2, 4, 32, step=4)
    between = fine.reshape(8, 16, 32)[1:3, 1:3].mean(axis=(0, 1))  # the first coarse site lies at (1.5, 1.5)
    nearest = np.argsort(((fine - coarse[0]) ** 2).sum(-1))[:4]
    assert sorted(nearest) == [17, 18, 33, 34] and np.abs(between - coarse[0]).max() < 0.15
    products = fine @ fine.T
    assert (products.argmax(axis=1) == np.arange(128)).all()
    np.testing.assert_allclose(fine[16, 0], np.sin(1), rtol=1e-6)
    np.testing.assert_allclose(fine[1, 16], np.sin(1), rtol=1e-6)
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        sine_positions(2, 2, 6)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        Attention(8, heads=3).init(jax.random.key(0), jnp.zeros((1, 2, 8)), jnp.zeros((1, 2, 8)))
