import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.layers.attention import SPATIAL_KINDS, ChannelAttention, SpatialAttention, max_along
from irjax.layers.gaussian_pinwheel import (
    KINDS,
    GaussianPinwheelConv,
    PinwheelConv,
    gaussian_window,
    pinwheel_mask,
    window,
)

ANGLES = st.floats(-10, 10)


@settings(max_examples=60, deadline=None)
@given(ANGLES)
def test_mask_is_exactly_binary_and_repeats_after_a_quarter_turn(theta):
    mask = np.asarray(pinwheel_mask(theta))
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert 13 <= mask.sum() <= 25
    # A quarter turn of the angle is a quarter turn of the picture, which has four equal arms.
    np.testing.assert_array_equal(mask, np.rot90(mask))


def test_mask_has_a_gradient_that_turns_it():
    grad = jax.jacfwd(pinwheel_mask)(0.3)
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0.1


@pytest.mark.parametrize("quick", [True, False])
def test_the_gradient_of_the_mask_is_finite_however_it_is_compiled(quick):
    slope = jax.grad(lambda theta: jnp.sum(pinwheel_mask(theta) * jnp.arange(49.0).reshape(7, 7)))
    angles = jnp.linspace(0, 3, 64)
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True} if quick else {}
    found = jax.jit(jax.vmap(slope), compiler_options=options)(angles)
    np.testing.assert_allclose(found, jnp.stack([slope(angle) for angle in angles]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 4.0, 7.0])
def test_gradient_descent_finds_a_bar(offset):
    """Objective: the response, at its centre, of the windowed pinwheel (sigma 3) to a bar of Gaussian profile."""
    u, v = np.meshgrid(np.arange(-3.0, 4), np.arange(-3.0, 4))
    true = np.deg2rad(np.arange(12) * 15 + offset)

    def objective(theta, angle):
        bar = jnp.exp(-((jnp.cos(angle) * v - jnp.sin(angle) * u) ** 2) / (2 * 0.7**2))
        return -jnp.sum(gaussian_window(jnp.log(3.0)) * pinwheel_mask(theta) * (bar - bar.mean())) / 10

    def descend(theta, angle):
        def step(theta, _):
            return theta - 0.1 * jax.grad(objective)(theta, angle), theta

        theta, path = jax.lax.scan(step, theta, None, length=300)
        return path[-50:].mean(), objective(theta, angle)

    starts = np.arange(4) * np.pi / 8
    found, value = jax.jit(jax.vmap(jax.vmap(descend, (0, None)), (None, 0)))(starts, true)
    best = np.asarray(found)[np.arange(12), np.argmin(value, axis=1)]
    period = np.pi / 2
    error = np.rad2deg(np.abs((best - true + period / 2) % period - period / 2))
    assert error.max() < 3


def test_window_widths():
    np.testing.assert_allclose(gaussian_window(jnp.log(2.0))[3, 5], np.exp(-0.5), rtol=1e-6)
    # Outside the allowed widths nothing moves any more, not even the gradient.
    np.testing.assert_array_equal(gaussian_window(jnp.log(20.0)), gaussian_window(jnp.log(10.0)))
    np.testing.assert_array_equal(jax.jacfwd(gaussian_window)(jnp.log(0.1)), np.zeros((7, 7)))


@pytest.mark.parametrize("kind", KINDS)
def test_windows_sum_to_one(kind):
    np.testing.assert_allclose(window(kind, jnp.log(1.5), 0.4).sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("orient", ["learned", "bank"])
@pytest.mark.parametrize("free_weight", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_starts_as_its_window_and_everything_learns(kind, free_weight, orient):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 10, 2)), jnp.float32)
    layer = GaussianPinwheelConv(kind, free_weight=free_weight, orient=orient)
    variables = layer.init(jax.random.key(1), x)
    names = {"log_sigma"} | ({"theta"} if kind.endswith("rotated") else set()) | ({"kernel"} if free_weight else set())
    assert set(variables["params"]) == names
    y = layer.apply(variables, x)
    chex.assert_shape(y, (2, 12, 10, 1))
    if orient == "learned":
        kernel = np.broadcast_to(np.asarray(window(kind, jnp.log(1.5), 0.0))[:, :, None, None], (7, 7, 2, 1))
        wanted = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        np.testing.assert_allclose(y, wanted, atol=1e-5)
    grads = jax.grad(lambda v: jnp.sum(layer.apply(v, x) ** 2))(variables)["params"]
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_bank_takes_the_strongest_of_four_turns():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 9, 2)), jnp.float32)
    bank = GaussianPinwheelConv("gaussian_pinwheel", orient="bank")
    variables = bank.init(jax.random.key(0), x)
    single = GaussianPinwheelConv("gaussian_pinwheel_rotated")
    turned = [
        single.apply({"params": {**variables["params"], "theta": jnp.float32(j * np.pi / 8)}}, x) for j in range(4)
    ]
    stacked = np.concatenate(turned, -1)
    wanted = np.take_along_axis(stacked, np.abs(stacked).argmax(-1)[..., None], -1)
    np.testing.assert_allclose(bank.apply(variables, x), wanted, atol=1e-6)


@pytest.mark.parametrize("size", [3, 4])
def test_published_pinwheel_convolution(shared, size):
    with np.load(shared / "golden" / "mshnet_losses_pconv.npz") as recorded:
        state = {key: recorded[f"pconv{size}/state/{key}"] for key in _PCONV_KEYS}
        x, wanted = recorded[f"pconv{size}/input_nhwc"], recorded[f"pconv{size}/output_nhwc"]
    layer = PinwheelConv(16, size)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, train=False))
    variables = _pconv_variables(state)
    chex.assert_trees_all_equal_shapes(variables, shapes)
    np.testing.assert_allclose(layer.apply(variables, x, train=False), wanted, atol=1e-5)


_PCONV = {"across": "cw", "down": "ch", "join": "cat"}
_PCONV_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_PCONV_KEYS = [
    key
    for part in _PCONV.values()
    for key in (f"{part}.conv.weight", *(f"{part}.bn.{leaf}" for leaf in _PCONV_LEAVES.values()))
]


def _pconv_variables(state):
    params, stats = {}, {}
    for ours, theirs in _PCONV.items():
        leaves = {name: state[f"{theirs}.bn.{leaf}"] for name, leaf in _PCONV_LEAVES.items()}
        kernel = state[f"{theirs}.conv.weight"].transpose(2, 3, 1, 0)
        params[ours] = {"kernel": kernel, "norm": {name: leaves[name] for name in ("scale", "bias")}}
        stats[ours] = {"norm": {name: leaves[name] for name in ("mean", "var")}}
    return {"params": params, "batch_stats": stats}


def test_pinwheel_convolution_in_training_uses_each_strip_twice():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8, 3)), jnp.float32)
    layer = PinwheelConv(8, 3)
    variables = layer.init(jax.random.key(1), x, train=False)
    y, updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    chex.assert_shape(y, (2, 6, 8, 8))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), variables["batch_stats"], updated["batch_stats"])
    assert all(value > 0 for value in jax.tree.leaves(moved))


@pytest.mark.parametrize("kind", SPATIAL_KINDS)
def test_spatial_attention_gates_positions(kind):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 5)), jnp.float32)
    gates, variables = SpatialAttention(kind).init_with_output(jax.random.key(1), x)
    chex.assert_shape(gates, (2, 8, 6, 1))
    assert ((gates > 0) & (gates < 1)).all()
    assert set(variables["params"]) == {"conv"}


def test_channel_attention_gates_channels_from_mean_and_maximum():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 32)), jnp.float32)
    gates, variables = ChannelAttention().init_with_output(jax.random.key(1), x)
    squeeze, excite = (np.asarray(variables["params"][name]["kernel"])[0, 0] for name in ("squeeze", "excite"))
    assert squeeze.shape == (32, 2)
    summed = sum(np.maximum(np.asarray(pooled) @ squeeze, 0) @ excite for pooled in (x.mean((1, 2)), x.max((1, 2))))
    np.testing.assert_allclose(gates[:, 0, 0], 1 / (1 + np.exp(-summed)), rtol=1e-5)


@pytest.mark.parametrize("axis", [1, -1])
def test_maximum_and_its_gradient(axis):
    x = jnp.round(3 * jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 4)), jnp.float32))  # with ties
    y, pull = jax.vjp(lambda x: max_along(x, axis), x)
    np.testing.assert_array_equal(y, jnp.max(x, axis, keepdims=True))
    grad = jax.random.normal(jax.random.key(1), y.shape)
    equal = np.asarray(x) == np.asarray(y)
    assert equal.sum() > y.size  # some are shared
    wanted = np.where(equal, np.asarray(grad) / equal.sum(axis, keepdims=True), 0)
    np.testing.assert_allclose(pull(grad)[0], wanted, rtol=1e-6)


def test_bad_input():
    x = jnp.zeros((1, 8, 8, 2))
    with pytest.raises(ValueError, match="unknown window 'round'"):
        window("round", 0.0, 0.0)
    with pytest.raises(ValueError, match="odd side, got 6"):
        gaussian_window(0.0, 6)
    with pytest.raises(ValueError, match="lines >= 1"):
        pinwheel_mask(0.0, lines=0)
    with pytest.raises(ValueError, match="'learned' or 'bank', got 'free'"):
        GaussianPinwheelConv(orient="free").init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="multiple of 4 features, got 6"):
        PinwheelConv(6).init(jax.random.key(0), x, train=False)
    with pytest.raises(ValueError, match="unknown spatial attention 'none'"):
        SpatialAttention("none").init(jax.random.key(0), x)
