"""A profile of some training steps, for TensorBoard, Perfetto or XProf."""

from __future__ import annotations

import logging
import pathlib

import jax

from irjax.errors import note

_logger = logging.getLogger(__name__)


class Trace:
    """A block in which jax.profiler records some steps, once they are compiled and warm.

    Args:
      folder: where the profile is written.
      steps: number of steps, rounded up to whole dispatches; 0 records none.
    """

    def __init__(self, folder: pathlib.Path, steps: int):
        self._folder, self._steps, self._until = folder, steps, 0
        self._running = False

    def __enter__(self) -> Trace:
        return self

    def start(self, step: int) -> None:
        """Starts with the step after this one, unless it has started before."""
        if self._steps and not self._until:
            jax.profiler.start_trace(str(self._folder))
            self._running, self._until = True, step + self._steps

    def finished(self, step: int) -> None:
        """Ends if this was the last step to record."""
        if self._running and step >= self._until:
            self._stop()

    def _stop(self) -> None:
        self._running = False
        jax.profiler.stop_trace()
        _logger.info("wrote the profile to %s", self._folder)

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._stop()
            note(f"the run ended before the {self._steps} steps of --loop.profile", self._folder)
        elif self._steps and not self._until:
            note("the run ended before its steps were warm, so that --loop.profile recorded none", self._folder)
