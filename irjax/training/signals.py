"""Handling of SIGTERM during training."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from irjax.errors import TrainingError


class _Terminated(BaseException):
    """SIGTERM was received, and the state is saved."""


class Termination:
    """Defers SIGTERM: it is recorded inside the block and takes effect after it.

    Attributes:
      asked: whether it was received.
    """

    def __enter__(self) -> Termination:
        self.asked, self._before = False, None
        if threading.current_thread() is threading.main_thread():  # other threads must not set handlers
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def check(self) -> None:
        """Ends the block if the signal was received."""
        if self.asked:
            raise _Terminated

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self.asked:
            os.kill(os.getpid(), signal.SIGTERM)
        if kind is _Terminated:  # reached only if the program handles the signal itself
            raise TrainingError("training was asked to stop: the checkpoints hold what was reached; run again to go on")
