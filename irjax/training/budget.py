"""Time budgets, for runs that end after a given time instead of a number of steps."""

from __future__ import annotations

import math
from time import monotonic

_STEADY = 0.8  # fraction of the budget before the decay


class Clock:
    """Measures the wall time of a run from its first step on, over all processes that worked on it.

    Args:
      seconds: time used by earlier processes.
    """

    def __init__(self, seconds: float = 0.0):
        self._before, self._begin = seconds, math.nan

    def start(self) -> None:
        """Starts the clock; called after the first step of this process, so that its compilation is not counted."""
        if math.isnan(self._begin):
            self._begin = monotonic()

    @property
    def seconds(self) -> float:
        """Seconds used so far."""
        return self._before if math.isnan(self._begin) else self._before + monotonic() - self._begin


class Budget:
    """The time budget of a run and the learning rate factor that follows from it.

    After the warm-up the rate is constant for four fifths of the budget. Over the last fifth it falls to zero as 1 -
    sqrt(fraction of the decay that has passed) (Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed
    Training Durations", 2024). A run that is given more minutes later continues from the point where the decay began.

    Args:
      minutes: the budget; with 0 there is no budget: the rate never falls and the time never ends.
      clock: clock of the run.

    Attributes:
      reserved: seconds to keep for the last validation; at most half of the decay is used for this.
    """

    def __init__(self, minutes: float, clock: Clock):
        self._seconds, self._clock, self.reserved = 60 * minutes, clock, 0.0

    @property
    def decaying(self) -> bool:
        """Whether the decay has begun."""
        return self.factor() < 1

    @property
    def used(self) -> bool:
        """Whether no time is left for further steps."""
        return bool(self._seconds) and self._clock.seconds >= self._end

    @property
    def _end(self) -> float:
        return self._seconds - min(self.reserved, self._seconds * (1 - _STEADY) / 2)

    def factor(self) -> float:
        """Returns the current factor on the learning rate."""
        start = _STEADY * self._seconds
        if not self._seconds or self._clock.seconds <= start:
            return 1.0
        return max(0.0, 1 - math.sqrt((self._clock.seconds - start) / (self._end - start)))
