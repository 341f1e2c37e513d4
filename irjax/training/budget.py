"""Runs that end after a time instead of a number of steps."""

from __future__ import annotations

import math
from time import monotonic

_STEADY = 0.8  # part of the budget before the decay


class Clock:
    """Wall time of a run from its first step on, over all the processes that it took.

    Args:
      seconds: of earlier processes.
    """

    def __init__(self, seconds: float = 0.0):
        self._before, self._begin = seconds, math.nan

    def start(self) -> None:
        """The first step of this process was done; what it took to compile does not count."""
        if math.isnan(self._begin):
            self._begin = monotonic()

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before if math.isnan(self._begin) else self._before + monotonic() - self._begin


class Budget:
    """How much of its minutes a run has used, and what the learning rate is then.

    After the warm-up the rate is constant for four fifths of the budget and falls to zero over the last, as one less
    the root of the part that has gone by (Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed
    Training Durations", 2024). A run that is given more minutes later goes on from where the decay began.

    Args:
      minutes: the budget; 0: none, the rate never falls and the time never ends.
      clock: of the run.

    Attributes:
      reserved: seconds to keep for the last validation; no more than half of the decay is.
    """

    def __init__(self, minutes: float, clock: Clock):
        self._seconds, self._clock, self.reserved = 60 * minutes, clock, 0.0

    @property
    def decaying(self) -> bool:
        """Whether the decay has begun."""
        return self.factor() < 1

    @property
    def used(self) -> bool:
        """Whether there is no time left for steps."""
        return bool(self._seconds) and self._clock.seconds >= self._end

    @property
    def _end(self) -> float:
        return self._seconds - min(self.reserved, self._seconds * (1 - _STEADY) / 2)

    def factor(self) -> float:
        """On the learning rate, now."""
        start = _STEADY * self._seconds
        if not self._seconds or self._clock.seconds <= start:
            return 1.0
        return max(0.0, 1 - math.sqrt((self._clock.seconds - start) / (self._end - start)))
