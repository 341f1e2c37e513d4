import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from irjax.data.augment import AugmentConfig
from irjax.training.state import TrainState
from irjax.training.steps import example_keys, make_eval_step, make_train_step

KEY = jax.random.key(3)
SGD = optax.sgd(0.1, momentum=0.9)


@pytest.fixture(scope="module")
def start(tiny):
    images = jnp.zeros((1, 64, 64, 1))
    variables = jax.jit(lambda key: tiny.objective().model.init(key, images, train=False))(jax.random.key(0))
    return lambda tx=SGD, averaging=True: TrainState.create(jax.tree.map(jnp.array, variables), tx, averaging=averaging)


@pytest.fixture(scope="module")
def step(tiny):
    """The jitted step, which refuses to be traced twice for one kind of batch."""
    return jax.jit(make_train_step(tiny.objective(), SGD, seed_key=KEY, averaging=0.9))


def test_gradient_is_that_of_a_loss_written_by_hand(tiny, start, step, batch):
    state = start()
    objective = tiny.objective()
    inputs, targets = jax.jit(objective.prepare)(batch, example_keys(KEY, jnp.int32(0), batch.index))

    def by_hand(params):
        outputs, updated = objective.model.apply(
            {**state.variables, "params": params}, inputs, train=True, mutable="batch_stats"
        )
        return jnp.mean(2 * jnp.square(outputs - targets)), updated

    (loss, updated), grads = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(state.variables["params"])
    new, metrics = step(start(), batch)
    wanted = jax.tree.map(lambda p, g: p - 0.1 * g, state.variables["params"], grads)
    chex.assert_trees_all_close(new.variables["params"], wanted, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(new.variables["batch_stats"], updated["batch_stats"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["grad_norm"], jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))), rtol=1e-5
    )
    assert int(new.step) == 1 and int(new.skipped) == 0 and metrics["skipped"] == 0


def test_rate_scale_multiplies_the_update(start, step, batch):
    whole, _ = step(start(), batch)
    half, _ = step(start().replace(rate_scale=jnp.float32(0.5)), batch)
    before = start().variables["params"]
    moved = jax.tree.map(lambda new, old: 2 * (new - old), half.variables["params"], before)
    wanted = jax.tree.map(lambda new, old: new - old, whole.variables["params"], before)
    chex.assert_trees_all_close(moved, wanted, rtol=1e-4, atol=1e-6)


def test_average_follows_its_formula(start, step, batch):
    state = start()
    wanted = state.average
    for number in range(3):
        state, _ = step(state, batch)
        decay = min(0.9, (1 + number) / (10 + number))
        wanted = jax.tree.map(lambda a, v, d=decay: d * a + (1 - d) * v, wanted, state.variables)
    chex.assert_trees_all_close(state.average, wanted, rtol=1e-5, atol=1e-7)
    assert state.eval_variables is state.average


def test_without_averaging_there_is_none(tiny, start, batch):
    state, _ = jax.jit(make_train_step(tiny.objective(), SGD, seed_key=KEY))(start(averaging=False), batch)
    assert state.average is None and state.eval_variables is state.variables


def as_float(batch):
    return batch.replace(images=np.asarray(batch.images, np.float32) / 255)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(start, step, batch):
    good = as_float(batch)
    bad = good.replace(images=np.where(np.arange(8)[:, None, None] == 5, np.nan, good.images))
    before, _ = step(start(), good)
    after, metrics = step(before, bad)
    for name in ("variables", "average", "opt_state"):
        chex.assert_trees_all_equal(getattr(after, name), getattr(before, name))
    assert metrics["skipped"] == 1 and not np.isfinite(metrics["loss"])
    assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (2, 1, 1)
    again, _ = step(after, bad)
    assert (int(again.skipped), int(again.skipped_in_a_row)) == (2, 2)
    recovered, metrics = step(again, good)
    assert (int(recovered.skipped), int(recovered.skipped_in_a_row)) == (2, 0) and np.isfinite(metrics["loss"])
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(recovered.variables, again.variables)


def test_an_infinite_gradient_of_a_finite_loss_is_skipped(tiny, start, batch):
    @jax.custom_vjp
    def spiked(x):
        return x

    spiked.defvjp(lambda x: (x, None), lambda _, g: (g * jnp.inf,))
    objective = tiny.objective(loss=lambda out, wanted: spiked(jnp.mean((out - wanted) ** 2, (1, 2))))
    before = start()
    after, metrics = jax.jit(make_train_step(objective, SGD, seed_key=KEY, averaging=0.9))(before, batch)
    assert np.isfinite(metrics["loss"]) and metrics["skipped"] == 1
    chex.assert_trees_all_equal(after.variables, before.variables)


def test_the_warm_loss_gives_way_after_its_steps(tiny, start, batch):
    """At a rate of zero nothing changes but the step, so the loss tells which one was taken."""
    constant = lambda value: lambda out, wanted: jnp.full(len(out), value) + 0 * jnp.sum(out)  # noqa: E731
    objective = tiny.objective(loss=constant(3.0), warm_loss=constant(5.0), warm_epochs=1)
    step = jax.jit(make_train_step(objective, optax.sgd(0.0), seed_key=KEY, warm_steps=2))
    state, losses = start(optax.sgd(0.0), False), []
    for _ in range(4):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses == [5.0, 5.0, 3.0, 3.0]
    assert float(jax.jit(make_eval_step(objective))(state.variables, batch)[0][0]) == 3.0


def test_only_the_loss_of_the_moment_is_computed(tiny, start, batch):
    """A gradient that is not finite in the loss that is not taken would otherwise reach the weights as nan."""
    broken = lambda out, wanted: jnp.mean(jnp.sqrt(out - out), axis=(1, 2))  # its gradient is nan  # noqa: E731
    sound = lambda out, wanted: jnp.mean((out - wanted) ** 2, axis=(1, 2))  # noqa: E731
    for warm, late, finite in ((broken, sound, [0, 0, 1, 1]), (sound, broken, [1, 1, 0, 0])):
        objective = tiny.objective(loss=late, warm_loss=warm, warm_epochs=1)
        step = jax.jit(make_train_step(objective, SGD, seed_key=KEY, warm_steps=2))
        state, taken = start(averaging=False), []
        for _ in range(4):
            state, metrics = step(state, batch)
            taken.append(1 - int(metrics["skipped"]))
        assert taken == finite


def operations(step, state, batch):
    return jax.jit(step).lower(state, batch).compile().cost_analysis()["flops"]


def test_frozen_parameters_cost_no_gradients(tiny, start, batch):
    """With everything but the head frozen, what is left of the backward pass is the head's."""
    state = start(averaging=False)
    make = lambda learns: make_train_step(tiny.objective(), SGD, seed_key=KEY, learns=learns)  # noqa: E731
    whole = operations(make(lambda path: True), state, batch)
    head = operations(make(lambda path: path.startswith("head/")), state, batch)
    images, targets = jax.eval_shape(tiny.objective().prepare, batch, example_keys(KEY, 0, batch.index))
    forward = operations(
        lambda variables, x: tiny.objective().model.apply(variables, x, train=True, mutable="batch_stats"),
        state.variables,
        images,
    )
    backward = whole - head
    assert backward > 0.9 * forward  # of the two convolutions below the head
    before, (after, metrics) = (
        start(averaging=False),
        jax.jit(make(lambda path: path.startswith("head/")))(state, batch),
    )
    for name in before.variables["params"]:
        moved = jax.tree.leaves(
            jax.tree.map(
                lambda a, b: bool(jnp.any(a != b)), before.variables["params"][name], after.variables["params"][name]
            )
        )
        assert all(moved) if name == "head" else not any(moved)
    assert metrics["grad_norm"] > 0


class Plain(nn.Module):
    """No normalisation, and dropout where asked: [B, H, W, C] to [B, H / 4, W / 4]."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Conv(4, (4, 4), 4, name="conv")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Conv(1, (1, 1), name="head")(x)[..., 0]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_networks_without_batch_normalisation_or_with_dropout_train(tiny, batch, dropout):
    objective = tiny.objective(model=Plain(dropout))
    variables = jax.jit(functools.partial(objective.model.init, train=False))(
        jax.random.key(0), jnp.zeros((1, 48, 48, 1))
    )
    assert set(variables) == {"params"}
    state = TrainState.create(variables, SGD, averaging=True)
    step = jax.jit(make_train_step(objective, optax.sgd(0.0, momentum=0.9), seed_key=KEY, averaging=0.9))
    losses = []
    for number in range(3):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
        assert int(state.step) == number + 1 and metrics["skipped"] == 0 and set(state.variables) == {"params"}
    again = step(TrainState.create(variables, SGD, averaging=True), batch)[1]["loss"]
    assert float(again) == losses[0]
    loss, _ = jax.jit(make_eval_step(objective))(state.variables, batch)
    assert np.isfinite(loss).all()


def test_dropout_draws_new_masks_in_each_step(tiny, batch):
    plain = tiny.changed(augment={"crop": 0, "flips": False})
    losses = {}
    for dropout in (0.0, 0.5):
        objective = tiny.objective(config=plain, model=Plain(dropout))
        variables = jax.jit(functools.partial(objective.model.init, train=False))(
            jax.random.key(0), jnp.zeros((1, 64, 64, 1))
        )
        state = TrainState.create(variables, optax.sgd(0.0), averaging=False)
        step = jax.jit(make_train_step(objective, optax.sgd(0.0), seed_key=KEY))
        first, one = step(state, batch)
        losses[dropout] = float(one["loss"]), float(step(first, batch)[1]["loss"])
    assert losses[0.0][0] == losses[0.0][1] and losses[0.5][0] != losses[0.5][1]


def test_one_example_is_a_batch(start, step, batch):
    state, metrics = step(start(), jax.tree.map(lambda column: column[:1], batch))
    assert np.isfinite(metrics["loss"]) and metrics["skipped"] == 0
    chex.assert_tree_all_finite(state.variables)


def test_one_trace_and_one_program(tiny, start, batch):
    counted = chex.assert_max_traces(make_train_step(tiny.objective(), SGD, seed_key=KEY, averaging=0.9), n=1)
    jitted = jax.jit(counted, donate_argnums=0)
    state = start()
    for number in range(3):
        state, _ = jitted(state, batch.replace(index=batch.index + 8 * number))
    assert jitted._cache_size() == 1


def test_keys_depend_on_run_step_and_draw_alone():
    keys = lambda key, step, index: jax.random.key_data(example_keys(key, jnp.int32(step), jnp.array(index)))  # noqa: E731
    first = keys(KEY, 0, [5, 6, 7])
    chex.assert_trees_all_equal(first[1], keys(KEY, 0, [6])[0])
    for other in (keys(KEY, 1, [5, 6, 7]), keys(jax.random.key(4), 0, [5, 6, 7]), keys(KEY, 0, [8, 9, 10])):
        assert not np.any(np.all(np.asarray(first) == np.asarray(other), axis=1))


def test_bfloat16_computes_close_to_float32_and_stores_float32(tiny, start, batch):
    def two_steps(bf16):
        objective = tiny.objective(config=tiny.changed(loop={"bf16": bf16}))
        step = jax.jit(make_train_step(objective, SGD, seed_key=KEY, averaging=0.9))
        state, first = step(start(), batch)
        state, _ = step(state, batch)
        return state, first, jax.make_jaxpr(step)(state, batch)

    wide, wide_metrics, _ = two_steps(False)
    narrow, narrow_metrics, program = two_steps(True)
    for part in (narrow.variables, narrow.average, narrow.opt_state, narrow_metrics):
        assert {leaf.dtype for leaf in jax.tree.leaves(part)} == {jnp.dtype(jnp.float32)}
    assert "bf16" in str(program)
    np.testing.assert_allclose(narrow_metrics["loss"], wide_metrics["loss"], rtol=0.02)
    np.testing.assert_allclose(narrow_metrics["grad_norm"], wide_metrics["grad_norm"], rtol=0.05)
    chex.assert_trees_all_close(narrow.variables["batch_stats"], wide.variables["batch_stats"], rtol=0.02, atol=0.02)
    assert not jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), narrow.variables, wide.variables))


def test_validation_step_neither_augments_nor_changes(tiny, start, batch):
    variables = start().variables
    plain = tiny.changed(augment={"crop": 0})
    assert plain.augment != AugmentConfig()
    step = jax.jit(make_eval_step(tiny.objective(config=plain)))
    loss, predictions = step(variables, batch)
    chex.assert_shape(loss, (8,))
    again, _ = jax.jit(make_eval_step(tiny.objective(config=tiny.changed(augment=vars(AugmentConfig())))))(
        variables, batch
    )
    chex.assert_trees_all_equal(loss, again)
    one, _ = step(variables, jax.tree.map(lambda column: column[3:4], batch))
    np.testing.assert_allclose(one, loss[3:4], rtol=1e-5)
    assert predictions.points.shape == (8, plain.decode.max_detections, 2)
