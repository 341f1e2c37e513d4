"""The pure training and validation steps shared by all methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from irjax.methods.method import Objective
from irjax.ops.keys import purpose_key
from irjax.training.state import TrainState, Variables
from irjax.types import Batch

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def example_keys(seed_key: jax.Array, step: jax.Array, index: jax.Array) -> jax.Array:
    """Returns one key for each example: the run's key folded with the step and the example's global draw number [B]."""
    step_key = jax.random.fold_in(seed_key, step)
    return jax.vmap(lambda i: jax.random.fold_in(step_key, i))(index)


def make_train_step(
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    seed_key: jax.Array,
    averaging: float = 0.0,
    axis_name: str | None = None,
    warm_steps: int = 0,
    learns: Callable[[str], bool] = lambda path: True,
) -> Step:
    """Builds the training step ``(state, batch) -> (state, metrics)``.

    Args:
      objective: network, inputs and targets, loss.
      tx: optimiser; its updates are multiplied by ``state.rate_scale``.
      seed_key: the run's key, from the config's seed.
      averaging: decay of the moving average of weights and statistics per step, or 0 for none.
      axis_name: name of the mapped device axis, or None on one device. Gradients, loss and batch statistics are then
        means over it, so that D devices with B / D examples each compute the same step as one device with B.
      warm_steps: steps with the method's warm loss.
      learns: whether the parameter of this path (``backbone/stem/kernel``) is trained. The gradients of other
        parameters are not computed; the optimiser receives zeros for them.

    Returns:
      The pure step. Metrics are float32 scalars: ``loss``, ``grad_norm``, ``skipped``. A step whose loss or gradient
      is not finite leaves weights, statistics, average and optimiser unchanged and is counted.

    Note:
      Dropout masks come from the key of a device's first example, so with dropout a different number of devices draws
      different masks.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        keys = example_keys(seed_key, state.step, batch.index)
        inputs, targets = objective.prepare(batch, keys)
        params = flax.traverse_util.flatten_dict(state.variables["params"], sep="/")
        frozen = {path: value for path, value in params.items() if not learns(path)}
        collections = [name for name in state.variables if name != "params"]

        def loss_of(outputs: Any) -> jax.Array:
            if objective.warm_loss is None or not warm_steps:
                return objective.loss(outputs, targets)
            # Only one of the two is computed and differentiated.
            return jax.lax.cond(state.step < warm_steps, objective.warm_loss, objective.loss, outputs, targets)

        def mean_loss(learning: Any) -> tuple[jax.Array, Any]:
            outputs, updated = objective.model.apply(
                {**state.variables, "params": flax.traverse_util.unflatten_dict({**frozen, **learning}, sep="/")},
                inputs,
                train=True,
                mutable=collections,
                rngs={"dropout": purpose_key(keys[0], "dropout")},
                **objective.extra(keys),
            )
            return jnp.mean(loss_of(outputs)), updated

        learning = {path: value for path, value in params.items() if path not in frozen}
        (loss, updated), grads = jax.value_and_grad(mean_loss, has_aux=True)(learning)
        if axis_name is not None:
            loss, grads = jax.lax.pmean((loss, grads), axis_name)
        grad_norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in grads.values()))
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

        grads = {**jax.tree.map(jnp.zeros_like, frozen), **grads}
        grads = flax.traverse_util.unflatten_dict({path: grads[path] for path in params}, sep="/")
        updates, opt_state = tx.update(grads, state.opt_state, state.variables["params"])
        updates = jax.tree.map(lambda u: u * state.rate_scale, updates)
        variables = {**updated, "params": optax.apply_updates(state.variables["params"], updates)}
        keep_old = lambda new, old: jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)  # noqa: E731
        variables, opt_state = keep_old(variables, state.variables), keep_old(opt_state, state.opt_state)

        average = state.average
        if averaging:
            # Early on the average follows quickly; otherwise it would keep the random initial weights for about
            # 1 / (1 - decay) steps.
            decay = jnp.minimum(averaging, (1.0 + state.step) / (10.0 + state.step))
            # In this form the average of a constant is exactly that constant.
            moved = jax.tree.map(lambda a, v: v + decay * (a - v), average, variables)
            average = keep_old(moved, average)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            variables=variables,
            average=average,
            opt_state=opt_state,
            skipped=state.skipped + jnp.where(good, 0, 1),
            skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
        )
        return state, {"loss": loss, "grad_norm": grad_norm, "skipped": 1.0 - good.astype(jnp.float32)}

    return step


def make_eval_step(objective: Objective) -> Callable[[Variables, Batch], tuple[jax.Array, Any]]:
    """Builds the validation step ``(variables, batch) -> (loss [B], predictions)``, without augmentation."""

    def step(variables: Variables, batch: Batch) -> tuple[jax.Array, Any]:
        inputs, targets = objective.prepare(batch, None)
        outputs = objective.model.apply(variables, inputs, train=False)
        return objective.loss(outputs, targets), objective.decode(outputs, targets)

    return step
