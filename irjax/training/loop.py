"""The training loop shared by all methods: step, log, validate, select, checkpoint, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.data.splits import DataConfig, in_memory, open_splits, parts_of
from irjax.errors import UserError
from irjax.io.files import json_values, read_json, write_json
from irjax.methods.method import Objective
from irjax.ops.keys import purpose_key
from irjax.training.checkpoints import CheckpointError, Checkpoints, saved_steps, set_aside
from irjax.training.configs import LoopConfig, differences
from irjax.training.data import CachedFeed, HostFeed
from irjax.training.log import Log
from irjax.training.optimizers import OptimizerConfig
from irjax.training.parallel import largest_share, replicate
from irjax.training.progress import Progress
from irjax.training.runner import Runner
from irjax.training.signals import Termination
from irjax.training.state import TrainState, Variables
from irjax.training.steps import make_train_step
from irjax.training.trace import Trace
from irjax.training.validation import Validation
from irjax.training.writers import open_writers
from irjax.types import Source


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The result of a run.

    Attributes:
      run: the run directory.
      best_step: step of the selected checkpoint.
      best: its validation metrics; empty without validation.
      variables: its weights, numpy.
      seconds: wall time of this call.
      data_wait: fraction of the training time spent waiting for data.
    """

    run: pathlib.Path
    best_step: int
    best: dict[str, float]
    variables: Variables
    seconds: float
    data_wait: float


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a run's results depend on."""
    found = {"python": platform.python_version(), "platform": jax.default_backend()}
    for name in ("irjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _open_run(run: pathlib.Path, config: Any, about: dict[str, Any], on_start: Callable[[], None]) -> None:
    """Creates the run directory with config, versions and splits; refuses to resume a run with different settings.

    A run with more minutes than it had before is reset to the step where its learning rate began to fall.
    """
    path = run / "config.json"
    new = json_values({"config": dataclasses.asdict(config), "data": about})
    old = read_json(path) if path.exists() else None
    other, more = [], False
    if old is not None:
        minutes = old.get("config", {}).get("loop", {}).get("minutes") or 0
        more = 0 < minutes < config.loop.minutes
        if more:
            old["config"]["loop"]["minutes"] = config.loop.minutes
        other = differences(old.get("config"), config)
        other += [f"the images of {split}" for split in about if (old.get("data") or {}).get(split) != about[split]]
    if other and saved_steps(run):
        raise UserError(
            f"{path} was written with other settings ({'; '.join(other[:4])}{'; ...' if len(other) > 4 else ''}): "
            "give the same flags to resume it, or another run directory"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
        if more:
            with contextlib.closing(Checkpoints(run)) as checkpoints:
                steady = checkpoints.newest_steady()
            if steady is not None:
                set_aside(run, minutes, steady)
        if old is None or other or more:
            write_json(path, {**new, "versions": versions()})
        on_start()
    except OSError as error:
        raise CheckpointError(f"cannot write the run directory {run}: {error}") from error


def _devices(loop: LoopConfig) -> list[jax.Device]:
    """Returns the devices to use, which must be able to share the batch equally."""
    devices = jax.local_devices()
    if loop.devices > len(devices):
        raise UserError(f"loop.devices is {loop.devices}, but there are {len(devices)}")
    if not loop.devices:
        return devices[: largest_share(loop.batch_size, len(devices))]
    devices = devices[: loop.devices]
    if loop.batch_size % len(devices):
        raise UserError(
            f"loop.batch_size {loop.batch_size} cannot be shared among {len(devices)} devices; "
            "give a multiple, or fewer loop.devices"
        )
    return devices


def _variables(
    model: nn.Module, shape: tuple[int, int, int], key: jax.Array, given: Mapping[str, Any] | None
) -> Variables:
    """Returns random weights for images of this shape, or a copy of the given ones (the step donates its buffers)."""
    example = jnp.zeros((1, *shape), jnp.float32)
    init = jax.jit(lambda key: model.init(key, example, train=False))
    if given is None:
        return init(key)
    describe = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)  # noqa: E731
    if describe(given) != describe(jax.eval_shape(init, key)):
        raise UserError(f"the initial weights do not fit this {type(model).__name__}: other names, shapes or types")
    return jax.tree.map(jnp.array, given)


def _validation(
    objective: Objective,
    val: Source,
    data: DataConfig,
    loop: LoopConfig,
    with_masks: bool,
    devices: list[jax.Device],
    before_batch: Callable[[], None],
) -> Validation:
    """Builds the validation on these images, which are held in memory or read on demand."""
    return Validation(
        objective,
        val if data.cache == "host" else in_memory(val, with_masks),
        data,
        batch_size=loop.eval_batch_size,
        with_masks=with_masks,
        devices=devices,
        parts=parts_of(val, data),
        before_batch=before_batch,
    )


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """Numbers of optimiser steps: of the whole run (None: limited by time), of an epoch, between validations."""

    steps: int | None
    per_epoch: int
    validation: int

    @classmethod
    def of(cls, loop: LoopConfig, images: int) -> _Schedule:
        per_epoch = -(-images // loop.batch_size)
        steps = None if loop.minutes else loop.steps or max(1, round(loop.epochs * per_epoch))
        validation = max(1, round(loop.eval_epochs * per_epoch))
        if steps is None:
            # A multiple of the dispatch length: another length would be compiled again, within the time budget.
            dispatch = loop.steps_per_dispatch
            return cls(steps, per_epoch, -(-validation // dispatch) * dispatch)
        return cls(steps, per_epoch, min(steps, validation))

    def next(self, step: int) -> int:
        """Returns the first step after this one at which to validate."""
        after = (step // self.validation + 1) * self.validation
        return after if self.steps is None else min(self.steps, after)


def fit(
    objective_for: Callable[[str | None], Objective],
    *,
    config: Any,
    data: DataConfig,
    optimizer: OptimizerConfig,
    loop: LoopConfig,
    run: pathlib.Path,
    initial: Mapping[str, Any] | None = None,
    with_masks: bool = False,
    input_channels: int = 1,
    on_start: Callable[[], None] = lambda: None,
) -> TrainedRun:
    """Trains a method, or resumes it from the newest checkpoint of the run directory.

    Args:
      objective_for: returns the objective for a device axis of this name, or for one device if the name is None.
      config: the experiment's whole frozen config, saved with the run; a run is only resumed under the same config.
      data: the images.
      optimizer: optimiser and learning rate.
      loop: length of the run, batch sizes and intervals.
      run: the run directory; created if absent.
      initial: weights to start from instead of random ones.
      with_masks: whether the method needs target masks.
      input_channels: channels of the network's input.
      on_start: called once the run directory exists, to write the method's own files.

    Returns:
      The selected checkpoint and its validation metrics.

    Raises:
      UserError: if the data or config are not usable; then nothing but the config is written.
      TrainingError: if too many consecutive steps were not finite.
      CheckpointError: if a checkpoint cannot be written; earlier ones are intact.
    """
    begin = time.perf_counter()
    run = pathlib.Path(run)
    one = objective_for(None)
    if data.slide and not with_masks:
        raise UserError("data.slide is for methods that predict masks")
    train, val, about = open_splits(data, validate=loop.validate)
    devices = _devices(loop)
    _open_run(run, config, about, on_start)

    feed_of = HostFeed if data.cache == "host" else functools.partial(CachedFeed, device=devices[0])
    feed = feed_of(train, data, loop.batch_size, loop.seed, with_masks)
    schedule = _Schedule.of(loop, len(train))
    init_key, seed_key = (purpose_key(jax.random.key(loop.seed), purpose) for purpose in ("init", "steps"))
    optimiser = functools.partial(optimizer.build, schedule.steps, schedule.per_epoch)
    initial = _variables(one.model, (data.size, data.size, input_channels), init_key, initial)
    progress, state = Progress.resume(
        run, TrainState.create(initial, optimiser(), averaging=bool(loop.averaging)), loop, optimizer
    )
    state, step = replicate(state, devices), int(state.step)

    step_options: dict[str, Any] = {
        "seed_key": seed_key,
        "averaging": loop.averaging,
        "warm_steps": round(one.warm_epochs * schedule.per_epoch),
        "learns": optimizer.learns,
    }
    make_step = lambda axis: make_train_step(objective_for(axis), optimiser(axis), axis_name=axis, **step_options)  # noqa: E731
    writers = open_writers(run, step, loop, json_values(dataclasses.asdict(config)))
    log = Log(run, step, schedule.steps, progress.clock, minutes=loop.minutes, writers=writers)
    if len(devices) < len(jax.local_devices()) and not loop.devices:
        log.say(f"{len(devices)} of {len(jax.local_devices())} devices share the batch of {loop.batch_size} equally")
    with Termination() as termination, Trace(run / "profile", loop.profile) as trace:
        try:
            rate = optimizer.learning_rate(schedule.steps, schedule.per_epoch)
            runner = Runner(make_step, loop, devices, rate, progress, log, termination, trace)
            evaluate = None
            if val is not None:
                evaluate = _validation(one, val, data, loop, with_masks, devices, termination.check)
            while True:
                ended = progress.budget.used or step == schedule.steps
                if evaluate and (ended or (step and step % schedule.validation == 0)) and not progress.validated(step):
                    metrics = evaluate(state.eval_variables)
                    progress.note(step, metrics, one.select)
                    log.validation(step, metrics)
                if ended:
                    break
                state, step = runner.advance(state, feed, step, schedule.next(step))
                progress.save(state)
            return TrainedRun(
                run, *progress.best(), time.perf_counter() - begin, feed.waited / max(runner.seconds, 1e-9)
            )
        finally:
            log.close()
            progress.checkpoints.close()
