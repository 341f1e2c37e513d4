"""Data parallelism over the local devices. The only use of `jax.pmap` in irjax."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np

from irjax.errors import UserError
from irjax.training.state import TrainState
from irjax.training.steps import Step

AXIS = "batch"
Metrics = dict[str, jax.Array]


def use_all_cores() -> None:
    """Creates one CPU device for each processor core; for programs. A run uses as many devices as can share its batch.

    A step on a single CPU device leaves cores idle between its large operations. Other kinds of devices are not
    changed, nor is a number that the user has set. It has no effect after the first use of JAX.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or cast(Any, jax.config).jax_num_cpu_devices > 0:
        return
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)


def largest_share(batch_size: int, most: int) -> int:
    """Returns the largest number of devices, up to `most`, that divides the batch size."""
    return max(count for count in range(1, most + 1) if batch_size % count == 0)


def many_steps(step: Step) -> Step:
    """Runs several steps in one dispatch: ``(state, batches [n, B, ...]) -> (state, metrics [n])``."""
    return lambda state, batches: jax.lax.scan(step, state, batches)


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Copies every array to each device with the placement that `data_parallel` expects, to avoid recompilation."""
    if len(devices) == 1:
        return jax.device_put(tree, devices[0])
    return jax.device_put(tree, _sharding(devices))


def _sharding(devices: Sequence[jax.Device], *axes: str | None) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(devices), (AXIS,)), jax.sharding.PartitionSpec(*axes))


def _share(tree: Any, axis: int, devices: Sequence[jax.Device]) -> Any:
    """Splits the batch axis into (devices, examples of a device) and places the parts on the devices."""
    parts = len(devices)

    def split(array: Any) -> Any:
        if array.shape[axis] % parts:
            raise UserError(f"the batch of {array.shape[axis]} cannot be shared among {parts} devices")
        return array.reshape(*array.shape[:axis], parts, array.shape[axis] // parts, *array.shape[axis + 1 :])

    return jax.device_put(jax.tree.map(split, tree), _sharding(devices, *(None,) * axis, AXIS))


def over_devices(
    function: Callable[[Any, Any], Any], devices: Sequence[jax.Device]
) -> Callable[[Any, Any], Callable[[], Any]]:
    """Compiles a function of independent examples for devices that share the batch equally.

    Args:
      function: ``(constants, batch [B, ...]) -> [B, ...]``, without any interaction between examples.
      devices: their number must divide B.

    Returns:
      ``(constants, batch) -> result``, dispatched asynchronously: ``result()`` waits and returns [B, ...] in numpy. The
      constants are those of `replicate`.
    """
    if len(devices) == 1:
        single = jax.jit(function)

        def start(constants: Any, batch: Any) -> Callable[[], Any]:
            found = single(constants, jax.device_put(batch, devices[0]))
            return lambda: jax.device_get(found)

        return start
    mapped = jax.pmap(function, in_axes=(None, 0), devices=devices)

    def start_all(constants: Any, batch: Any) -> Callable[[], Any]:
        found = mapped(constants, _share(batch, 0, devices))
        return lambda: jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(found))

    return start_all


class ParallelStep:
    """A compiled training step for given devices: ``(state, batch) -> (state, metrics)``; see `data_parallel`."""

    def __init__(self, compiled: Any, share: Callable[[Any], Any]):
        self._compiled, self._share = compiled, share

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """Runs the step; donates the state."""
        return self._compiled(state, self._share(batch))

    def compile(self, state: TrainState, batch: Any) -> None:
        """Compiles for arguments of these shapes and types, so that a call does not have to."""
        self._compiled.lower(state, self._share(batch)).compile()


def data_parallel(
    make_step: Callable[[str | None], Step], devices: Sequence[jax.Device] | None = None, *, several: bool = False
) -> ParallelStep:
    """Compiles a training step for the given devices; the global batch is shared equally among them.

    Args:
      make_step: returns the step for a device axis of this name, or for one device if the name is None. The step itself
        takes means over the axis, so that state and metrics are the same on every device.
      devices: the local devices by default.
      several: compile `many_steps` of the step instead.

    Returns:
      ``(state, batch) -> (state, metrics)``, or with `several` ``(state, batches) -> (state, metrics [n])``; the batch
      axis B is global, over all devices. The state is replicated and donated: its buffers are reused for the new state.
      A single device uses `jax.jit`.

    Raises:
      UserError: when called with a B that is not divisible by the number of devices.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    count = len(devices)
    axis_name = AXIS if count > 1 else None
    step = make_step(axis_name)
    if several:
        step = many_steps(step)
    if count == 1:
        return ParallelStep(jax.jit(step, donate_argnums=0), lambda batch: batch)
    axis = 1 if several else 0  # the batch axis
    mapped = jax.pmap(step, AXIS, in_axes=(None, axis), out_axes=None, devices=devices, donate_argnums=0)
    return ParallelStep(mapped, lambda batch: _share(batch, axis, devices))
