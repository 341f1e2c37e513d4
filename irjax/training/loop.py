"""The training loop that every method shares: step, log, validate, choose, checkpoint, resume."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import os
import pathlib
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import UserError
from irjax.ops.keys import purpose_key
from irjax.reports.files import plain, read_json, write_json
from irjax.training.allocator import return_freed_memory
from irjax.training.budget import Budget, Clock, set_aside
from irjax.training.checkpoints import CheckpointError, Checkpoints, saved_steps
from irjax.training.configs import differences
from irjax.training.data import CachedFeed, DataConfig, HostFeed, in_memory, open_splits
from irjax.training.log import Log
from irjax.training.optimizers import OptimizerConfig, Plateau
from irjax.training.parallel import data_parallel, largest_share, replicate
from irjax.training.state import TrainState, Variables
from irjax.training.steps import Method, Step, make_train_step
from irjax.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long and how often.

    Attributes:
      seed: of everything random in the run.
      epochs: passes over the training images, as many draws as there are images; ignored with `steps` or `minutes`.
      steps: optimiser steps, or 0 to count in epochs.
      minutes: wall time of the run from its first step on, validation included, or 0. The learning rate is constant
        after the warm-up, whatever `optimizer.schedule` is, and falls in the last fifth. A run may be given more
        minutes later, and goes on from where it began to fall.
      batch_size: examples a step, of all devices together.
      eval_batch_size: images a validation step.
      eval_epochs: epochs from one validation, and checkpoint, to the next; while the rate of a run with `minutes`
        falls there is none before its end.
      save_minutes: from one checkpoint to the next, at the most.
      validate: validate, and choose the best checkpoint; without, the newest is taken and no images to validate on
        are needed.
      steps_per_dispatch: steps in one call of the device, with data.cache=device.
      averaging: decay of the moving average of the weights per step, or 0 for none. The average is what is validated.
      bf16: compute in bfloat16; parameters, losses and batch statistics stay float32.
      max_skipped: non-finite steps in a row after which the run stops.
      devices: local devices to use, or 0 for as many as can share the batch equally.
      tensorboard: write TensorBoard files.
    """

    seed: int = 0
    epochs: float = 10
    steps: int = 0
    minutes: float = 0.0
    batch_size: int = 8
    eval_batch_size: int = 8
    eval_epochs: float = 1
    save_minutes: float = 4.0
    validate: bool = True
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
        for name in ("seed", "steps", "minutes", "devices"):
            if getattr(self, name) < 0:
                raise UserError(f"loop.{name} must not be negative, got {getattr(self, name)}")
        for name in ("epochs", "eval_epochs", "save_minutes"):
            if not getattr(self, name) > 0:
                raise UserError(f"loop.{name} must be positive, got {getattr(self, name)}")
        if self.minutes and self.steps:
            raise UserError(f"loop.minutes {self.minutes:g} and loop.steps {self.steps} exclude each other")
        if not 0 <= self.averaging < 1:
            raise UserError(f"loop.averaging must be in [0, 1), got {self.averaging}")


class TrainingError(UserError):
    """Training cannot go on; the run directory holds what was reached."""


class _Terminated(BaseException):
    """SIGTERM came, and the state is saved."""


class _Termination:
    """SIGTERM is noted inside the block, and takes effect after it.

    Attributes:
      asked: whether it came.
    """

    def __enter__(self) -> _Termination:
        self.asked, self._before = False, None
        if threading.current_thread() is threading.main_thread():  # others may not say what a signal does
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def check(self) -> None:
        """Ends the block if the signal came."""
        if self.asked:
            raise _Terminated

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self.asked:
            os.kill(os.getpid(), signal.SIGTERM)
        if kind is _Terminated:  # the program has its own answer to the signal
            raise TrainingError("training was asked to stop: the checkpoints hold what was reached; run again to go on")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
      run: the run directory.
      best_step: step of the chosen checkpoint.
      best: its validation metrics; none without validation.
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
    """Makes the run directory with config, versions and splits; refuses to resume a run of others.

    One with more minutes than it had is taken back to where its learning rate began to fall.
    """
    path = run / "config.json"
    new = plain({"config": dataclasses.asdict(config), "data": about})
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
            steady = Checkpoints(run, read_only=True).newest_steady() if saved_steps(run) else None
            if steady is not None:
                set_aside(run, minutes, steady)
        if old is None or other or more:
            write_json(path, {**new, "versions": versions()})
        on_start()
    except OSError as error:
        raise CheckpointError(f"cannot write the run directory {run}: {error}") from error


def _devices(loop: LoopConfig) -> list[jax.Device]:
    """The devices to use, which must be able to share the batch."""
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


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """Optimiser steps: of the whole run (None: as time allows), of an epoch, from one validation to the next."""

    steps: int | None
    per_epoch: int
    validation: int

    @classmethod
    def of(cls, loop: LoopConfig, images: int) -> _Schedule:
        per_epoch = -(-images // loop.batch_size)
        steps = None if loop.minutes else loop.steps or max(1, round(loop.epochs * per_epoch))
        validation = max(1, round(loop.eval_epochs * per_epoch))
        return cls(steps, per_epoch, validation if steps is None else min(steps, validation))

    def next(self, step: int) -> int:
        """The first step after this one at which to validate."""
        after = (step // self.validation + 1) * self.validation
        return after if self.steps is None else min(self.steps, after)


@dataclasses.dataclass
class _Progress:
    """Where a run stands beside its state: checkpoints and validations, the time used, factors on the learning rate."""

    checkpoints: Checkpoints
    plateau: Plateau
    clock: Clock
    budget: Budget
    save_seconds: float
    saved: tuple[int, float] = (0, 0.0)  # step, and time on the clock
    decaying: bool = False

    @classmethod
    def resume(
        cls, run: pathlib.Path, state: TrainState, loop: LoopConfig, optimizer: OptimizerConfig
    ) -> tuple[_Progress, TrainState]:
        """The newest checkpoint's state, or the given one if there is none."""
        checkpoints = Checkpoints(run)
        state, record = checkpoints.restore(state) or (state, {"seconds": 0.0})
        step, clock = int(state.step), Clock(record["seconds"])
        checkpoints.forget(after=step)
        plateau = Plateau(optimizer.plateau_factor, optimizer.plateau_patience)
        for metrics in checkpoints.validations().values():
            plateau.update(math.nan if metrics["loss"] is None else metrics["loss"])
        budget = Budget(loop.minutes, clock)
        made = cls(checkpoints, plateau, clock, budget, 60 * loop.save_minutes, (step, clock.seconds))
        return made, state.replace(rate_scale=jnp.float32(made.rate_scale()))

    def rate_scale(self) -> float:
        """The factor on the learning rate now."""
        return self.plateau.scale * self.budget.factor()

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint, if there is none of this step; training goes on meanwhile."""
        step = int(state.step)
        if step != self.saved[0]:
            self.checkpoints.save(state, {"seconds": self.clock.seconds}, steady=not self.decaying)
            self.saved = step, self.clock.seconds

    def save_in_time(self, state: TrainState) -> None:
        """Writes a checkpoint if the last is long ago, or the learning rate is about to fall."""
        falls = self.budget.decaying and not self.decaying
        if falls or self.clock.seconds - self.saved[1] > self.save_seconds:
            self.save(state)
        self.decaying = self.decaying or falls

    def validated(self, step: int) -> bool:
        """Whether a step was validated before."""
        return step in self.checkpoints.validations()

    def note(self, step: int, metrics: dict[str, float], choice: str) -> None:
        """Keeps the metrics of a step; the one called `choice` chooses the best."""
        self.checkpoints.validated(step, metrics, choice)
        self.plateau.update(metrics["loss"])
        self.budget.reserved = metrics["seconds"]

    def best(self) -> tuple[int, dict[str, float], Variables]:
        """Step, validation metrics and weights of the chosen checkpoint."""
        self.checkpoints.wait()
        step, variables = self.checkpoints.variables("best")
        metrics = self.checkpoints.validations().get(step, {})
        return step, {name: value for name, value in metrics.items() if name != "select"}, variables


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
    train, val, about = open_splits(data, validate=loop.validate)
    devices = _devices(loop)
    _open_run(run, config, about, on_start)

    feed_of = HostFeed if data.cache == "host" else functools.partial(CachedFeed, device=devices[0])
    feed = feed_of(train, data, loop.batch_size, loop.seed, with_masks)
    schedule = _Schedule.of(loop, len(train))
    init_key, seed_key = (purpose_key(jax.random.key(loop.seed), purpose) for purpose in ("init", "steps"))
    optimiser = functools.partial(optimizer.build, schedule.steps, schedule.per_epoch)
    initial = _variables(one.model, (data.size, data.size, input_channels), init_key, initial)
    progress, state = _Progress.resume(
        run, TrainState.create(initial, optimiser(), averaging=bool(loop.averaging)), loop, optimizer
    )
    state, step = replicate(state, devices), int(state.step)

    step_options = {
        "seed_key": seed_key,
        "averaging": loop.averaging,
        "warm_steps": round(one.warm_epochs * schedule.per_epoch),
        "learns": optimizer.learns,
    }
    make_step = lambda axis: make_train_step(method_for(axis), optimiser(axis), axis_name=axis, **step_options)  # noqa: E731
    log = Log(run, step, schedule.steps, progress.clock, minutes=loop.minutes, tensorboard=loop.tensorboard)
    if len(devices) < len(jax.local_devices()) and not loop.devices:
        log.say(f"{len(devices)} of {len(jax.local_devices())} devices share the batch of {loop.batch_size} equally")
    with _Termination() as termination:
        try:
            rate = optimizer.learning_rate(schedule.steps, schedule.per_epoch)
            runner = _Runner(make_step, loop, devices, rate, progress, log, termination)
            evaluate = None
            if val is not None:
                val = val if data.cache == "host" else in_memory(val, with_masks)
                evaluate = Validation(
                    one, val, data, batch_size=loop.eval_batch_size, with_masks=with_masks, device=devices[0],
                    before_batch=termination.check,
                )  # fmt: skip
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
            return Result(run, *progress.best(), time.perf_counter() - begin, feed.waited / max(runner.seconds, 1e-9))
        finally:
            log.close()
            progress.checkpoints.close()


class _Runner:
    """Advances the state by many steps; while the device does some, those before are logged."""

    def __init__(
        self,
        make_step: Callable[[str | None], Step],
        loop: LoopConfig,
        devices: list[jax.Device],
        rate: Callable[[int], Any],
        progress: _Progress,
        log: Log,
        termination: _Termination,
    ):
        self._on_batch = data_parallel(make_step, devices)
        self._on_batches = data_parallel(make_step, devices, several=True)
        self._loop, self._devices, self._rate = loop, devices, rate
        self._progress, self._log, self._termination = progress, log, termination
        self._compiled, self._scale = False, math.nan
        self._skipped = self._in_a_row = 0  # steps that were not finite: all, and since the last good one
        self.seconds = 0.0  # spent in steps

    def advance(self, state: TrainState, feed: CachedFeed | HostFeed, step: int, until: int) -> tuple[TrainState, int]:
        """Runs the steps from `step` up to `until`, or as many as the clock allows; and the step reached."""
        return_freed_memory()  # of what came before: reading the images, or a validation
        self._skipped, self._in_a_row = int(state.skipped), int(state.skipped_in_a_row)
        running: collections.deque[tuple[int, int, float, Any]] = collections.deque()
        self._last, self._waited = time.perf_counter(), feed.waited
        while True:
            self._progress.save_in_time(state)
            if self._termination.asked:
                while running:
                    self._finish(*running.popleft(), feed)
                self._progress.save(state)
                self._termination.check()
            if self._progress.decaying:  # no validation before the end
                until = sys.maxsize
            going = step < until and not self._progress.budget.used
            if going:
                count = min(self._loop.steps_per_dispatch, until - step)
                state = self._at_rate(state)
                state, metrics = self._dispatch(state, feed, step, count)
                step += count
                running.append((step, count, self._scale, metrics))
            if running and (len(running) > 1 or not going):
                self._finish(*running.popleft(), feed)
            elif not going:
                return state, step

    def _at_rate(self, state: TrainState) -> TrainState:
        """The state with the factor on the learning rate as it is now."""
        scale = self._progress.rate_scale()
        if scale == self._scale:
            return state
        self._scale = scale
        return state.replace(rate_scale=replicate(jnp.float32(scale), self._devices))

    def _dispatch(
        self, state: TrainState, feed: CachedFeed | HostFeed, step: int, count: int
    ) -> tuple[TrainState, list[Any]]:
        """Starts `count` steps."""
        if isinstance(feed, CachedFeed):
            batches = feed.batches(step, count)
            if not self._compiled:  # apart from the first call, which so begins without the memory that this takes
                self._on_batches.compile(state, batches)
                return_freed_memory()
            state, metrics = self._on_batches(state, batches)
            parts = [metrics]
        else:
            parts = []
            for number in range(step, step + count):
                state, metrics = self._on_batch(state, feed.batch(number))
                parts.append(metrics)
        if not self._compiled:
            jax.block_until_ready(parts)
            self._progress.clock.start()
            self._compiled = True
        return state, parts

    def _finish(self, step: int, count: int, scale: float, parts: list[Any], feed: CachedFeed | HostFeed) -> None:
        """Waits for dispatched steps up to `step`, and logs them."""
        metrics = jax.tree.map(lambda *x: np.concatenate([np.atleast_1d(one) for one in x]), *jax.device_get(parts))
        now, waited = time.perf_counter(), feed.waited
        seconds, waiting = now - self._last, waited - self._waited
        self._last, self._waited = now, waited
        self.seconds += seconds
        good = metrics["skipped"] == 0
        self._skipped += int(np.sum(~good))
        for one in good:
            self._in_a_row = 0 if one else self._in_a_row + 1
        values = {
            "loss": float(np.mean(metrics["loss"][good])) if good.any() else float("nan"),
            "grad_norm": float(np.mean(metrics["grad_norm"][good])) if good.any() else float("nan"),
            "rate": float(self._rate(step - 1)) * scale,
            "skipped": self._skipped,
            "steps_per_second": count / seconds,
            "data_wait": waiting / seconds,
        }
        self._log.write(step, values, group="train")
        self._log.advance(step, count, loss=f"{values['loss']:.2e}")
        if self._in_a_row >= self._loop.max_skipped:
            raise TrainingError(
                f"loss or gradient was not finite in {self._in_a_row} steps in a row, to step {step}: "
                "lower optimizer.rate or set optimizer.clip_norm; the checkpoints hold the last good state"
            )
