import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.training.optimizers import OptimizerConfig, Plateau, orthogonalize, orthogonalize_all


def test_warm_up_and_cosine():
    rate = OptimizerConfig(rate=0.1, warmup_epochs=2, schedule="cosine").learning_rate(110, 5)
    np.testing.assert_allclose(rate(0), 1e-4, rtol=1e-4)
    np.testing.assert_allclose(rate(5), (1e-4 + 0.1) / 2, rtol=1e-5)
    np.testing.assert_allclose(rate(10), 0.1, rtol=1e-6)
    np.testing.assert_allclose(rate(60), 0.1 * (1 + 1e-3) / 2, rtol=1e-5)
    np.testing.assert_allclose(rate(110), 1e-4, rtol=1e-5)


def test_constant_rate_without_warm_up():
    rate = OptimizerConfig(rate=0.1, warmup_epochs=0, schedule="constant").learning_rate(10, 5)
    assert [float(rate(step)) for step in (0, 5, 10**6)] == pytest.approx([0.1] * 3)


def test_warm_up_takes_at_most_half_of_a_short_run():
    rate = OptimizerConfig(rate=0.1, warmup_epochs=9).learning_rate(8, 5)
    np.testing.assert_allclose(rate(4), 0.1, rtol=1e-6)


@pytest.mark.parametrize("name, decays", [("adam", False), ("adamw", True)])
def test_only_adamw_decays_weights(name, decays):
    tx = OptimizerConfig(name=name, weight_decay=0.1, warmup_epochs=0).build(10, 10)
    updates, _ = tx.update(
        {"w": np.zeros(2, np.float32)}, tx.init({"w": np.ones(2, np.float32)}), {"w": np.ones(2, np.float32)}
    )
    assert bool(np.all(updates["w"] < 0)) == decays


def test_muon_orthogonalises_mixing_kernels_and_leaves_the_rest_to_adamw():
    rng = np.random.default_rng(0)
    params = {"mix": np.zeros((3, 3, 4, 8)), "depthwise": np.zeros((3, 3, 1, 8)), "bias": np.zeros(8)}
    params = {name: value.astype(np.float32) for name, value in params.items()}
    grads = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in params.items()}
    grads["mix"] *= np.geomspace(1, 100, 8, dtype=np.float32)  # ill-conditioned
    muon = OptimizerConfig(name="muon", rate=0.01, weight_decay=0.0, warmup_epochs=0, schedule="constant").build(10, 10)
    mine, reference = (
        tx.update(grads, tx.init(params), params)[0] for tx in (muon, optax.nadamw(0.01, weight_decay=0.0))
    )
    singular = np.linalg.svd(mine["mix"].reshape(36, 8), compute_uv=False)
    assert singular.max() < 2 * singular.min()
    assert np.linalg.cond(grads["mix"].reshape(36, 8)) > 20
    # Orthogonal columns scaled to 0.2 of the rate: what AdamW's rates are for.
    assert 0.5 < np.sqrt(np.mean(mine["mix"] ** 2)) / (0.2 * 0.01) < 1.5
    for name in ("depthwise", "bias"):
        np.testing.assert_allclose(mine[name], reference[name], rtol=1e-5)


def _optax_matrices(parameters):
    axes = lambda x: optax.contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)  # noqa: E731
    return jax.tree.map(lambda x: axes(x) if x.ndim >= 2 and min(x.shape[-2:]) > 1 else None, parameters)


def test_muon_is_that_of_optax():
    shapes = {"tall": (3, 3, 16, 8), "wide": (1, 1, 8, 24), "square": (16, 16), "depthwise": (3, 3, 1, 8), "bias": (8,)}
    draw = lambda seed: {n: _normal(seed + i, shape) for i, (n, shape) in enumerate(shapes.items())}  # noqa: E731
    ours = OptimizerConfig(name="muon", rate=0.01, weight_decay=0.1, warmup_epochs=0, schedule="constant").build(9, 9)
    theirs = optax.contrib.muon(
        0.01, weight_decay=0.1, adam_weight_decay=0.1, consistent_rms=0.2, muon_weight_dimension_numbers=_optax_matrices
    )
    params = draw(0)
    states = [tx.init(params) for tx in (ours, theirs)]
    for step in range(3):
        grads = draw(100 * step)
        updates, states = zip(
            *[tx.update(grads, state, params) for tx, state in zip((ours, theirs), states, strict=True)], strict=True
        )
        chex.assert_trees_all_close(*updates, atol=1e-7)
        params = optax.apply_updates(params, updates[0])


@pytest.mark.parametrize("count", [2, 5])
def test_devices_share_the_matrices_and_have_the_same_updates(count):
    config = OptimizerConfig(name="muon", rate=0.01, weight_decay=0.1, warmup_epochs=0)
    shapes = {"tall": (3, 3, 16, 8), "wide": (1, 1, 8, 24), "square": (16, 16), "depthwise": (3, 3, 1, 8), "bias": (8,)}
    params, grads = (
        {name: _normal(seed + i, shape) for i, (name, shape) in enumerate(shapes.items())} for seed in (0, 100)
    )
    alone, together = config.build(9, 9), config.build(9, 9, "devices")
    wanted = jax.jit(alone.update)(grads, alone.init(params), params)[0]
    update = jax.pmap(lambda _, state: together.update(grads, state, params)[0], "devices", in_axes=(0, None))
    for name, found in update(np.arange(count), together.init(params)).items():
        for one in found:
            np.testing.assert_allclose(one, wanted[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("devices", "each"), [(1, [4, 6]), (2, [2, 3]), (4, [1, 2])])
def test_kernels_of_one_shape_are_stacked_and_devices_share_them_equally(devices, each):
    kernels = [jnp.ones((16, 16))] * 6 + [jnp.ones((2, 1, 2, 8)), jnp.ones((8, 4))] * 2  # as matrices [4, 8] and [8, 4]
    axis = "devices" if devices > 1 else None
    program = jax.make_jaxpr(lambda values: orthogonalize_all(values, axis), axis_env=[("devices", devices)])(kernels)
    assert sorted(int(number) for number in re.findall(r"\blength=(\d+)", str(program))) == each


def test_without_a_number_of_steps_the_rate_stays():
    rate = OptimizerConfig(rate=0.5, warmup_epochs=2, schedule="cosine").learning_rate(None, 10)
    assert float(rate(0)) < 0.001 and float(rate(20)) == float(rate(10**6)) == 0.5


def _normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (12, 12)])
@pytest.mark.parametrize("smallest", [1e-1, 1e-4, 0.0])
def test_orthogonalize_is_its_polynomial_of_the_singular_values(shape, smallest):
    left, _, right = np.linalg.svd(np.asarray(_normal(0, shape), np.float64), full_matrices=False)
    values = np.geomspace(1, max(smallest, 1e-12), 12)
    values /= np.linalg.norm(values)
    found = np.asarray(orthogonalize(jnp.asarray(left * values @ right, jnp.float32)))
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    # The polynomial raises the least values, and what rounding does to them, 485 times.
    np.testing.assert_allclose(found, left * values @ right, atol=1e-3)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_groups_learn_at_their_own_rate(name):
    rng = np.random.default_rng(0)
    draw = lambda: {"a": {"b": rng.normal(size=(2, 3)), "bc": rng.normal(size=3)}, "d": rng.normal(size=(3, 3))}  # noqa: E731
    params, grads = (jax.tree.map(np.float32, draw()) for _ in range(2))
    config = OptimizerConfig(name=name, rate=0.01, warmup_epochs=0, weight_decay=0.1)
    plain, grouped = (c.build(10, 10) for c in (config, dataclasses.replace(config, groups=("a/b=0", "a=0.25"))))
    wanted, got = (tx.update(grads, tx.init(params), params)[0] for tx in (plain, grouped))
    assert not np.asarray(got["a"]["b"]).any() and np.asarray(wanted["a"]["b"]).all()
    np.testing.assert_allclose(got["a"]["bc"], 0.25 * wanted["a"]["bc"], rtol=1e-5)
    np.testing.assert_allclose(got["d"], wanted["d"], rtol=1e-5)
    unfit = dataclasses.replace(config, groups=("e=0.5",)).build(10, 10)
    with pytest.raises(ValueError, match=r"no parameters are left for \['e'\]; the network has a, d"):
        unfit.update(grads, unfit.init(params), params)


def test_what_is_frozen_has_no_moments_and_is_not_in_the_norm():
    params = {"a": np.ones((3, 3), np.float32), "b": np.ones((5, 7), np.float32)}
    grads = {"a": params["a"], "b": 1e6 * params["b"]}
    config = OptimizerConfig(name="adam", warmup_epochs=0, clip_norm=1.0)
    alone, frozen = config.build(10, 10), dataclasses.replace(config, groups=("b=0",)).build(10, 10)
    state = frozen.init(params)
    assert {np.shape(leaf) for leaf in jax.tree.leaves(state)} == {(), (3, 3)}
    wanted = alone.update({"a": grads["a"]}, alone.init({"a": params["a"]}), {"a": params["a"]})[0]
    got = frozen.update(grads, state, params)[0]
    np.testing.assert_allclose(got["a"], wanted["a"], rtol=1e-6)
    assert not np.asarray(got["b"]).any()


@pytest.mark.parametrize("group", ["a", "a=", "=1", "a=-1", "a=inf", "a=x"])
def test_what_is_no_group(group):
    with pytest.raises(ValueError, match="must be PATH=FACTOR"):
        OptimizerConfig(groups=(group,))


def assert_as_pytorch(optimizer_class, config, gradients, **options):
    """The same weights after every step, from ones."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    theirs = torch.nn.Parameter(torch.ones(gradients.shape[1]))
    optimizer = getattr(torch.optim, optimizer_class)([theirs], lr=config.rate, **options)
    tx = config.build(len(gradients), len(gradients))
    ours = np.ones(gradients.shape[1], np.float32)
    state = tx.init(ours)
    for gradient in gradients:
        theirs.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        updates, state = tx.update(gradient, state, ours)
        ours = optax.apply_updates(ours, updates)
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5])
def test_adagrad_is_that_of_pytorch(scale):
    gradients = (scale * np.random.default_rng(0).normal(size=(6, 5))).astype(np.float32)
    gradients[:2, 0] = 0.0  # as a layer has them that takes no part in the first steps
    config = OptimizerConfig(name="adagrad", rate=0.05, warmup_epochs=0, schedule="constant")
    assert_as_pytorch("Adagrad", config, gradients)


def test_sgd_is_that_of_pytorch():
    gradients = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    config = OptimizerConfig(name="sgd", rate=0.1, weight_decay=0.01, warmup_epochs=0, schedule="constant")
    assert_as_pytorch("SGD", config, gradients, momentum=0.9, weight_decay=0.01)


def test_steps_come_at_60_and_80_percent_of_the_run():
    rate = OptimizerConfig(rate=0.02, warmup_epochs=2, schedule="steps").learning_rate(1000, 20)
    steps = (20, 40, 599, 601, 799, 801, 999)
    np.testing.assert_allclose([rate(s) for s in steps], [0.01001, 0.02, 0.02, 0.002, 0.002, 2e-4, 2e-4], rtol=1e-4)


def test_clip_norm_bounds_what_the_optimiser_sees():
    clipped, plain = (OptimizerConfig(name="adam", clip_norm=c, warmup_epochs=0).build(10, 10) for c in (1.0, 0.0))
    params, grads = {"w": np.zeros(4, np.float32)}, {"w": np.full(4, 50.0, np.float32)}
    _, state = clipped.update(grads, clipped.init(params), params)
    np.testing.assert_allclose(optax.tree.get(state, "mu")["w"], 0.1 * np.full(4, 0.5), rtol=1e-5)
    _, state = plain.update(grads, plain.init(params), params)
    np.testing.assert_allclose(optax.tree.get(state, "mu")["w"], 0.1 * np.full(4, 50.0), rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"name": "rmsprop"}, {"schedule": "step"}, {"rate": 0.0}, {"rate": float("nan")}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="optimizer"):
        OptimizerConfig(**wrong)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.1, 2.0) | st.just(1.0) | st.just(float("nan")), min_size=1, max_size=25),
    st.integers(0, 3),
)
def test_plateau_is_that_of_pytorch(losses, patience):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, eps=0.0)
    ours = Plateau(0.5, patience)
    for loss in losses:
        theirs.step(loss)
        assert ours.update(loss) == pytest.approx(optimizer.param_groups[0]["lr"])
