"""Data parallelism over the local devices, behind one function: the only `jax.pmap` of irjax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import UserError
from irjax.training.state import TrainState
from irjax.training.steps import Step
from irjax.types import Batch

AXIS = "batch"
Metrics = dict[str, jax.Array]


def step_on_cache(step: Step) -> Callable[[TrainState, Batch, jax.Array, jax.Array], tuple[TrainState, Metrics]]:
    """Many steps in one dispatch, on a data set that lies on the device.

    Returns:
      ``(state, data, rows [n, B], draws [n, B]) -> (state, metrics [n])``: step i takes the examples `rows[i]` of
      `data`, which are the global draws `draws[i]` of the run.
    """

    def steps(state: TrainState, data: Batch, rows: jax.Array, draws: jax.Array) -> tuple[TrainState, Metrics]:
        def one(state: TrainState, draw: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Metrics]:
            batch = jax.tree.map(lambda column: jnp.take(column, draw[0], axis=0), data)
            return step(state, batch.replace(index=draw[1]))

        return jax.lax.scan(one, state, (rows, draws))

    return steps


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A copy of every array on each device, placed as `data_parallel` wants it, so that no call compiles again."""
    if len(devices) == 1:
        return jax.device_put(tree, devices[0])
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def _split(array: Any, axis: int, parts: int) -> Any:
    if array.shape[axis] % parts:
        raise UserError(f"the batch of {array.shape[axis]} cannot be shared among {parts} devices")
    shape = (*array.shape[:axis], parts, array.shape[axis] // parts, *array.shape[axis + 1 :])
    return array.reshape(shape)


def data_parallel(
    make_step: Callable[[str | None], Step], devices: Sequence[jax.Device] | None = None, *, cached: bool = False
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Compiles a training step for the given devices; the global batch is shared equally among them.

    Args:
      make_step: gives the step for a device axis of this name, or for one device if the name is None. The step itself
        takes means over the axis, so that state and metrics are the same on every device.
      devices: the local devices by default.
      cached: compile `step_on_cache` of the step instead.

    Returns:
      ``(state, batch) -> (state, metrics)``, or with `cached` ``(state, data, rows, draws) -> (state, metrics)``; the
      batch axis B is that of all devices together. The state is replicated. One device is served by `jax.jit`.

    Raises:
      UserError: when called with a B that the number of devices does not divide.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    count = len(devices)
    axis_name = AXIS if count > 1 else None
    step = make_step(axis_name)
    if cached:
        step = step_on_cache(step)
    if count == 1:
        return jax.jit(step, donate_argnums=0)

    if cached:
        mapped = jax.pmap(step, AXIS, in_axes=(None, None, 1, 1), out_axes=None, devices=devices)
    else:
        mapped = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, devices=devices)

    def run(state: TrainState, *args: Any) -> tuple[TrainState, Metrics]:
        if cached:
            data, rows, draws = args
            args = (data, _split(rows, 1, count), _split(draws, 1, count))
        else:
            args = (jax.tree.map(lambda column: _split(column, 0, count), args[0]),)
        return mapped(state, *args)

    return run
