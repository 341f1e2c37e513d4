"""Progress of a run, in addition to its state."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import jax.numpy as jnp

from irjax.training.budget import Budget, Clock
from irjax.training.checkpoints import Checkpoints
from irjax.training.configs import LoopConfig
from irjax.training.optimizers import OptimizerConfig, Plateau
from irjax.training.state import TrainState, Variables


@dataclasses.dataclass
class Progress:
    """Checkpoints, validations and time used, and the learning rate factor that follows from them."""

    checkpoints: Checkpoints
    plateau: Plateau
    clock: Clock
    budget: Budget
    save_seconds: float
    saved: tuple[int, float] = (0, 0.0)  # step and clock time of the last checkpoint
    decaying: bool = False

    @classmethod
    def resume(
        cls, run: pathlib.Path, state: TrainState, loop: LoopConfig, optimizer: OptimizerConfig
    ) -> tuple[Progress, TrainState]:
        """Returns the progress and the newest checkpoint's state, or the given state if there is none."""
        checkpoints = Checkpoints(run)
        state, record = checkpoints.restore(state) or (state, {"seconds": 0.0})
        step, clock = int(state.step), Clock(record["seconds"])
        checkpoints.forget(after=step)
        plateau = Plateau(optimizer.plateau_factor, optimizer.plateau_patience)
        budget = Budget(loop.minutes, clock)
        made = cls(checkpoints, plateau, clock, budget, 60 * loop.save_minutes, (step, clock.seconds))
        for metrics in checkpoints.validations().values():
            made._heed(metrics)
        return made, dataclasses.replace(state, rate_scale=jnp.float32(made.rate_scale()))

    def rate_scale(self) -> float:
        """Returns the current factor on the learning rate."""
        return self.plateau.scale * self.budget.factor()

    def save(self, state: TrainState) -> None:
        """Starts writing a checkpoint, unless there is one of this step; training continues meanwhile."""
        step = int(state.step)
        if step != self.saved[0]:
            self.checkpoints.save(state, {"seconds": self.clock.seconds}, steady=not self.decaying)
            self.saved = step, self.clock.seconds

    def save_in_time(self, state: TrainState) -> None:
        """Writes a checkpoint if the last one is older than the interval, or if the learning rate is about to fall."""
        falls = self.budget.decaying and not self.decaying
        if falls or self.clock.seconds - self.saved[1] > self.save_seconds:
            self.save(state)
        self.decaying = self.decaying or falls

    def validated(self, step: int) -> bool:
        """Returns whether a step was validated before."""
        return step in self.checkpoints.validations()

    def note(self, step: int, metrics: dict[str, float], choice: str) -> None:
        """Records the metrics of a step; the metric called `choice` selects the best step."""
        self.checkpoints.validated(step, metrics, choice)
        self._heed(metrics)

    def _heed(self, metrics: dict[str, float]) -> None:
        """Applies a validation, new or read from the run, to the learning rate and to the time budget."""
        self.plateau.update(math.nan if metrics["loss"] is None else metrics["loss"])
        self.budget.reserved = metrics["seconds"]

    def best(self) -> tuple[int, dict[str, float], Variables]:
        """Returns step, validation metrics and weights of the selected checkpoint."""
        self.checkpoints.wait()
        step, variables = self.checkpoints.variables("best")
        return step, self.checkpoints.metrics(step), variables
