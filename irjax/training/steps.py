"""The pure training and validation steps that every method shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from irjax.ops.keys import purpose_key
from irjax.training.state import TrainState, Variables
from irjax.types import Batch, Example

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Method:
    """What a method brings to the loop. Every function is pure and runs inside jit, but for `score`.

    Attributes:
      name: as in `irjax.models.registry`.
      model: the Flax module; called as ``model.apply(variables, inputs, train=...)``.
      prepare: ``(batch, keys [B] or None) -> (inputs, targets)``: augmentation if there are keys, targets, normalising.
      loss: ``(outputs, targets) -> [B]`` float32.
      decode: ``(outputs, targets) -> predictions``, a struct of arrays with leading axis B.
      score: ``images with their predictions -> {metric: value}`` on the host: given is an iterator over the validation
        images, each an `Example` with the predictions of its canvas or windows, numpy with leading axis n.
      select: the metric that chooses the checkpoint; higher is better.
      warm_loss: takes the place of `loss` in the first epochs of training, if there is one. Validation keeps `loss`.
      warm_epochs: how many.
      extra: ``keys [B] -> {name: value}``: further arguments of the model in training, from the examples' keys.
    """

    name: str
    model: nn.Module
    prepare: Callable[[Batch, jax.Array | None], tuple[jax.Array, Any]]
    loss: Callable[[Any, Any], jax.Array]
    decode: Callable[[Any, Any], Any]
    score: Callable[[Iterator[tuple[Example, Any]]], dict[str, float]]
    select: str
    warm_loss: Callable[[Any, Any], jax.Array] | None = None
    warm_epochs: float = 0
    extra: Callable[[jax.Array], dict[str, Any]] = lambda keys: {}


def example_keys(seed_key: jax.Array, step: jax.Array, index: jax.Array) -> jax.Array:
    """One key an example: the run's key folded with the step, then with the example's global draw number [B]."""
    step_key = jax.random.fold_in(seed_key, step)
    return jax.vmap(lambda i: jax.random.fold_in(step_key, i))(index)


def make_train_step(
    method: Method,
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
      method: model, target and loss.
      tx: optimiser; its updates are multiplied by ``state.rate_scale``.
      seed_key: the run's key, from the config's seed.
      averaging: decay of the moving average of weights and statistics per step, or 0 for none.
      axis_name: name of the mapped device axis, or None on one device. Gradients, loss and batch statistics are then
        means over it, so that D devices with B / D examples each do the step of one device with B.
      warm_steps: steps with the method's warm loss.
      learns: whether the parameter of this path (``backbone/stem/kernel``) learns. The gradients of others are not
        computed; the optimiser is given zeros for them.

    Returns:
      The pure step. Metrics are float32 scalars: ``loss``, ``grad_norm``, ``skipped``. A step whose loss or gradient
      is not finite leaves weights, statistics, average and optimiser as they were and is counted.

    Note:
      Dropout's masks come from the key of the first example of a device, so with dropout another number of devices
      draws other masks.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        keys = example_keys(seed_key, state.step, batch.index)
        inputs, targets = method.prepare(batch, keys)
        params = flax.traverse_util.flatten_dict(state.variables["params"], sep="/")
        frozen = {path: value for path, value in params.items() if not learns(path)}
        collections = [name for name in state.variables if name != "params"]

        def loss_of(outputs: Any) -> jax.Array:
            if method.warm_loss is None or not warm_steps:
                return method.loss(outputs, targets)
            # Only one of them is computed and differentiated.
            return jax.lax.cond(state.step < warm_steps, method.warm_loss, method.loss, outputs, targets)

        def objective(learning: Any) -> tuple[jax.Array, Any]:
            outputs, updated = method.model.apply(
                {**state.variables, "params": flax.traverse_util.unflatten_dict({**frozen, **learning}, sep="/")},
                inputs,
                train=True,
                mutable=collections,
                rngs={"dropout": purpose_key(keys[0], "dropout")},
                **method.extra(keys),
            )
            return jnp.mean(loss_of(outputs)), updated

        learning = {path: value for path, value in params.items() if path not in frozen}
        (loss, updated), grads = jax.value_and_grad(objective, has_aux=True)(learning)
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
            # Early on the average follows quickly, or it would remember the random start for 1 / (1 - decay) steps.
            decay = jnp.minimum(averaging, (1.0 + state.step) / (10.0 + state.step))
            # In this form the average of what does not move is exactly that.
            moved = jax.tree.map(lambda a, v: v + decay * (a - v), average, variables)
            average = keep_old(moved, average)
        state = state.replace(
            step=state.step + 1,
            variables=variables,
            average=average,
            opt_state=opt_state,
            skipped=state.skipped + jnp.where(good, 0, 1),
            skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
        )
        return state, {"loss": loss, "grad_norm": grad_norm, "skipped": 1.0 - good.astype(jnp.float32)}

    return step


def make_eval_step(method: Method) -> Callable[[Variables, Batch], tuple[jax.Array, Any]]:
    """Builds the validation step ``(variables, batch) -> (loss [B], predictions)``, without augmentation."""

    def step(variables: Variables, batch: Batch) -> tuple[jax.Array, Any]:
        inputs, targets = method.prepare(batch, None)
        outputs = method.model.apply(variables, inputs, train=False)
        return method.loss(outputs, targets), method.decode(outputs, targets)

    return step
