"""The training loop that every method shares: step, log, validate, choose, checkpoint, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import UserError
from irjax.ops.keys import purpose_key
from irjax.reports.files import plain, read_json, write_json
from irjax.training.allocator import return_freed_memory
from irjax.training.checkpoints import CheckpointError, Checkpoints, saved_steps
from irjax.training.configs import differences
from irjax.training.data import CachedFeed, DataConfig, HostFeed, in_memory, open_splits
from irjax.training.log import Log
from irjax.training.optimizers import OptimizerConfig, Plateau
from irjax.training.parallel import data_parallel, replicate
from irjax.training.state import TrainState, Variables
from irjax.training.steps import Method, Step, make_train_step
from irjax.training.validation import Validation
from irjax.types import Source


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long and how often.

    Attributes:
      seed: of everything random in the run.
      epochs: passes over the training images; with `steps` above zero, ignored.
      steps: optimiser steps, or 0 to count in epochs.
      batch_size: examples a step, of all devices together.
      eval_batch_size: images a validation step.
      eval_epochs: epochs from one validation, and checkpoint, to the next.
      steps_per_dispatch: steps in one call of the device, with data.cache=device.
      averaging: decay of the moving average of the weights per step, or 0 for none. The average is what is validated.
      bf16: compute in bfloat16; parameters, losses and batch statistics stay float32.
      max_skipped: non-finite steps in a row after which the run stops.
      devices: local devices to use, or 0 for all.
      tensorboard: write TensorBoard files.
    """

    seed: int = 0
    epochs: float = 10
    steps: int = 0
    batch_size: int = 8
    eval_batch_size: int = 8
    eval_epochs: float = 1
    steps_per_dispatch: int = 10
    averaging: float = 0.0
    bf16: bool = False
    max_skipped: int = 20
    devices: int = 0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_batch_size", "steps_per_dispatch", "max_skipped"):
            if getattr(self, name) < 1:
                raise UserError(f"loop.{name} must be at least 1, got {getattr(self, name)}")
        if self.eval_epochs <= 0 or (self.steps < 1 and self.epochs <= 0):
            raise UserError("loop.epochs or loop.steps, and loop.eval_epochs, must be positive")
        for name in ("seed", "steps", "devices"):
            if getattr(self, name) < 0:
                raise UserError(f"loop.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.averaging < 1:
            raise UserError(f"loop.averaging must be in [0, 1), got {self.averaging}")


class TrainingError(UserError):
    """Training cannot go on; the run directory holds what was reached."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
      run: the run directory.
      best_step: step of the chosen checkpoint.
      best: its validation metrics.
      variables: its weights, numpy.
      seconds: wall time of this call.
      data_wait: share of the training time spent waiting for data.
    """

    run: pathlib.Path
    best_step: int
    best: dict[str, float]
    variables: Variables
    seconds: float
    data_wait: float


def versions() -> dict[str, str]:
    """The versions that a run's results depend on."""
    found = {"python": platform.python_version(), "platform": jax.default_backend()}
    for name in ("irjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _open_run(run: pathlib.Path, config: Any, about: dict[str, Any], on_start: Callable[[], None]) -> None:
    """Makes the run directory with config, versions and splits; refuses to resume a run of others."""
    path = run / "config.json"
    new = plain({"config": dataclasses.asdict(config), "data": about})
    old = read_json(path) if path.exists() else None
    other = []
    if old is not None:
        other = differences(old.get("config"), config)
        other += [f"the images of {split}" for split in about if (old.get("data") or {}).get(split) != about[split]]
    if other and saved_steps(run):
        raise UserError(
            f"{path} was written with other settings ({'; '.join(other[:4])}{'; ...' if len(other) > 4 else ''}): "
            "give the same flags to resume it, or another run directory"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
        if old is None or other:
            write_json(path, {**new, "versions": versions()})
        on_start()
    except OSError as error:
        raise CheckpointError(f"cannot write the run directory {run}: {error}") from error


def _devices(loop: LoopConfig) -> list[jax.Device]:
    """The devices to use, which must be able to share the batch."""
    devices = jax.local_devices()
    if loop.devices > len(devices):
        raise UserError(f"loop.devices is {loop.devices}, but there are {len(devices)}")
    devices = devices[: loop.devices or None]
    if loop.batch_size % len(devices):
        raise UserError(
            f"loop.batch_size {loop.batch_size} cannot be shared among {len(devices)} devices; "
            "give a multiple, or fewer loop.devices"
        )
    return devices


def _variables(model: nn.Module, shape: tuple[int, int, int], key: jax.Array, given: Variables | None) -> Variables:
    """Random weights for images of this shape, or a copy of the given ones (the step donates its buffers)."""
    example = jnp.zeros((1, *shape), jnp.float32)
    init = jax.jit(lambda key: model.init(key, example, train=False))
    if given is None:
        return init(key)
    describe = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)  # noqa: E731
    if describe(given) != describe(jax.eval_shape(init, key)):
        raise UserError(f"the initial weights do not fit this {type(model).__name__}: other names, shapes or types")
    return jax.tree.map(jnp.array, given)


def _feeds(
    train: Source, val: Source, data: DataConfig, loop: LoopConfig, device: jax.Device, with_masks: bool
) -> tuple[CachedFeed | HostFeed, Source]:
    """What draws the training batches, and the images to validate on; in memory or read when they are needed."""
    if data.cache == "host":
        return HostFeed(train, data, loop.batch_size, loop.seed, with_masks), val
    feed = CachedFeed(train, data, loop.batch_size, loop.seed, with_masks, device)
    return feed, in_memory(val, with_masks)


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """Optimiser steps: of the whole run, of an epoch, and from one validation to the next."""

    steps: int
    per_epoch: int
    validation: int

    @classmethod
    def of(cls, loop: LoopConfig, examples: int) -> _Schedule:
        per_epoch = -(-examples // loop.batch_size)
        steps = loop.steps or max(1, round(loop.epochs * per_epoch))
        return cls(steps, per_epoch, max(1, min(steps, round(loop.eval_epochs * per_epoch))))

    def rounds(self, step: int) -> Iterator[tuple[int, int]]:
        """From and until which step to go before each validation that is left."""
        while step < self.steps:
            until = min(self.steps, (step // self.validation + 1) * self.validation)
            yield step, until
            step = until


class _Record:
    """The checkpoints of a run, and the history of its validations beside them."""

    def __init__(self, run: pathlib.Path, select: str, plateau: Plateau):
        self._path, self._select, self._plateau = run / "validation.json", select, plateau
        self._checkpoints = Checkpoints(run)

    def resume(self, state: TrainState) -> TrainState:
        """The newest checkpoint's state, or the given one if there is none."""
        restored = self._checkpoints.restore(state)
        if restored is None:
            return state
        state, record = restored
        self._plateau = Plateau(**record["plateau"])
        return state

    def rate_scale(self, loss: float) -> float:
        """The factor on the learning rate after a validation of this loss."""
        return self._plateau.update(loss)

    def save(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Writes the checkpoint, and its validation."""
        step = int(state.step)
        history = read_json(self._path) if self._path.exists() else {}
        try:
            write_json(self._path, {**{k: v for k, v in history.items() if int(k) < step}, str(step): metrics})
        except OSError as error:
            raise CheckpointError(f"could not write {self._path}: {error}; the checkpoints are intact") from error
        chosen = metrics[self._select]
        record = {"plateau": dataclasses.asdict(self._plateau)}
        # An undefined metric, such as F1 without any detection, is never the best.
        self._checkpoints.save(state, record, select=chosen if np.isfinite(chosen) else -1.0, loss=metrics["loss"])

    def best(self) -> tuple[int, dict[str, float], Variables]:
        """Step, validation metrics and weights of the chosen checkpoint."""
        step, variables = self._checkpoints.variables("best")
        return step, read_json(self._path)[str(step)], variables

    def close(self) -> None:
        self._checkpoints.close()


def fit(
    method_for: Callable[[str | None], Method],
    *,
    config: Any,
    data: DataConfig,
    optimizer: OptimizerConfig,
    loop: LoopConfig,
    run: pathlib.Path,
    initial: Variables | None = None,
    with_masks: bool = False,
    input_channels: int = 1,
    on_start: Callable[[], None] = lambda: None,
) -> Result:
    """Trains a method, or resumes it where the run directory's newest checkpoint stands.

    Args:
      method_for: gives the method for a device axis of this name, or for one device if the name is None.
      config: the experiment's whole frozen config, saved with the run; a run is only resumed under the same one.
      data: which images.
      optimizer: and learning rate.
      loop: how long and how often.
      run: the run directory; made if absent.
      initial: weights to start from instead of random ones.
      with_masks: whether the method needs target masks.
      input_channels: channels of the network's input.
      on_start: called once the run directory is there, to write the method's own files.

    Returns:
      The chosen checkpoint and its validation metrics.

    Raises:
      UserError: if the data or config do not fit; nothing is written then but the config.
      TrainingError: when too many steps in a row were not finite.
      CheckpointError: when a checkpoint cannot be written; earlier ones are intact.
    """
    begin = time.perf_counter()
    run = pathlib.Path(run)
    one = method_for(None)
    if data.slide and not with_masks:
        raise UserError(f"data.slide is for methods that predict masks, and {one.name} does not")
    train, val, about = open_splits(data)
    devices = _devices(loop)
    _open_run(run, config, about, on_start)

    feed, val = _feeds(train, val, data, loop, devices[0], with_masks)
    schedule = _Schedule.of(loop, feed.examples)
    init_key, seed_key = (purpose_key(jax.random.key(loop.seed), purpose) for purpose in ("init", "steps"))
    tx = optimizer.build(schedule.steps, schedule.per_epoch)
    initial = _variables(one.model, (data.size, data.size, input_channels), init_key, initial)
    record = _Record(run, one.select, Plateau(optimizer.plateau_factor, optimizer.plateau_patience))
    state = record.resume(TrainState.create(initial, tx, averaging=bool(loop.averaging)))
    state, start = replicate(state, devices), int(state.step)

    rate = optimizer.learning_rate(schedule.steps, schedule.per_epoch)
    step_options = {
        "seed_key": seed_key,
        "averaging": loop.averaging,
        "warm_steps": round(one.warm_epochs * schedule.per_epoch),
        "learns": optimizer.learns,
    }
    runner = _Runner(
        lambda axis: make_train_step(method_for(axis), tx, axis_name=axis, **step_options), loop, devices, rate
    )
    evaluate = Validation(one, val, data, batch_size=loop.eval_batch_size, with_masks=with_masks, device=devices[0])
    log = Log(run, start, schedule.steps, tensorboard=loop.tensorboard)
    try:
        for step, until in schedule.rounds(start):
            state = runner.advance(state, feed, step, until, log)
            metrics = evaluate(state.eval_variables)
            state = state.replace(rate_scale=replicate(jnp.float32(record.rate_scale(metrics["loss"])), devices))
            log.validation(until, metrics)
            record.save(state, metrics)
        wait = feed.waited / max(runner.seconds, 1e-9)
        return Result(run, *record.best(), time.perf_counter() - begin, wait)
    finally:
        log.close()
        record.close()


class _Runner:
    """Advances the state by many steps, and logs without waiting for the device at every step."""

    def __init__(
        self,
        make_step: Callable[[str | None], Step],
        loop: LoopConfig,
        devices: list[jax.Device],
        rate: Callable[[int], Any],
    ):
        self._on_batch = data_parallel(make_step, devices)
        self._on_batches = data_parallel(make_step, devices, several=True)
        self._loop, self._rate = loop, rate
        self._compiled = False
        self.seconds = 0.0  # spent in steps

    def advance(self, state: TrainState, feed: CachedFeed | HostFeed, step: int, until: int, log: Log) -> TrainState:
        """Runs the steps from `step` up to `until`."""
        chunk = self._loop.steps_per_dispatch
        return_freed_memory()  # of what came before: reading the images, or a validation
        while step < until:
            count = min(chunk, until - step)
            begin, waited = time.perf_counter(), feed.waited
            if isinstance(feed, CachedFeed):
                batches = feed.batches(step, count)
                if not self._compiled:  # apart from the first call, which so begins without the memory that this takes
                    self._on_batches.compile(state, batches)
                    return_freed_memory()
                    self._compiled = True
                state, metrics = self._on_batches(state, batches)
                metrics = jax.device_get(metrics)
            else:
                parts = []
                for number in range(step, step + count):
                    state, part = self._on_batch(state, feed.batch(number))
                    parts.append(part)
                metrics = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(parts))
            seconds = time.perf_counter() - begin
            self.seconds += seconds
            step += count
            good = metrics["skipped"] == 0
            values = {
                "loss": float(np.mean(metrics["loss"][good])) if good.any() else float("nan"),
                "grad_norm": float(np.mean(metrics["grad_norm"][good])) if good.any() else float("nan"),
                "rate": float(self._rate(step - 1)) * float(state.rate_scale),
                "skipped": int(state.skipped),
                "steps_per_second": count / seconds,
                "data_wait": (feed.waited - waited) / seconds,
            }
            log.write(step, values, group="train")
            log.advance(count, loss=f"{values['loss']:.2e}")
            if int(state.skipped_in_a_row) >= self._loop.max_skipped:
                raise TrainingError(
                    f"loss or gradient was not finite in {int(state.skipped_in_a_row)} steps in a row, to step {step}: "
                    "lower optimizer.rate or set optimizer.clip_norm; the checkpoints hold the last good state"
                )
        return state
