"""Advances a training state by many steps."""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import TrainingError
from irjax.training.allocator import return_freed_memory
from irjax.training.configs import LoopConfig
from irjax.training.data import CachedFeed, HostFeed
from irjax.training.log import Log
from irjax.training.parallel import data_parallel, replicate
from irjax.training.progress import Progress
from irjax.training.signals import Termination
from irjax.training.state import TrainState
from irjax.training.steps import Step
from irjax.training.trace import Trace

_logger = logging.getLogger(__name__)


class Runner:
    """Advances the state by many steps; earlier steps are logged while the device computes the next ones."""

    def __init__(
        self,
        make_step: Callable[[str | None], Step],
        loop: LoopConfig,
        devices: list[jax.Device],
        rate: Callable[[int], Any],
        progress: Progress,
        log: Log,
        termination: Termination,
        trace: Trace,
    ):
        self._on_batch = data_parallel(make_step, devices)
        self._on_batches = data_parallel(make_step, devices, several=True)
        self._loop, self._devices, self._rate = loop, devices, rate
        self._progress, self._log, self._termination, self._trace = progress, log, termination, trace
        self._compiled, self._scale = False, math.nan
        self._skipped = self._in_a_row = 0  # non-finite steps: all, and since the last finite one
        self.seconds = 0.0  # spent in steps

    def advance(self, state: TrainState, feed: CachedFeed | HostFeed, step: int, until: int) -> tuple[TrainState, int]:
        """Runs the steps from `step` up to `until`, or as many as the clock allows.

        Returns:
          The state and the step reached.
        """
        return_freed_memory()  # memory of earlier phases: reading the images, or a validation
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
                if self._compiled:
                    self._trace.start(step)
                state, metrics = self._dispatch(state, feed, step, count)
                step += count
                running.append((step, count, self._scale, metrics))
            if running and (len(running) > 1 or not going):
                self._finish(*running.popleft(), feed)
            elif not going:
                return state, step

    def _at_rate(self, state: TrainState) -> TrainState:
        """Returns the state with the current factor on the learning rate."""
        scale = self._progress.rate_scale()
        if scale == self._scale:
            return state
        self._scale = scale
        return dataclasses.replace(state, rate_scale=replicate(jnp.float32(scale), self._devices))

    def _dispatch(
        self, state: TrainState, feed: CachedFeed | HostFeed, step: int, count: int
    ) -> tuple[TrainState, list[Any]]:
        """Dispatches `count` steps."""
        if isinstance(feed, CachedFeed):
            batches = feed.batches(step, count)
            if not self._compiled:  # compiled before the first call, so that the memory it takes is released first
                begin = time.perf_counter()
                self._on_batches.compile(state, batches)
                _logger.info("compiled %d steps in %.1f s", count, time.perf_counter() - begin)
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
        """Waits for dispatched steps up to `step` and logs them."""
        metrics = jax.tree.map(lambda *x: np.concatenate([np.atleast_1d(one) for one in x]), *jax.device_get(parts))
        self._trace.finished(step)
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
