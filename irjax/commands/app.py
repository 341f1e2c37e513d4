"""irjax app: detection, looked at and corrected in a browser."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Optional

from irjax.commands.shared import Switch, arg


@dataclasses.dataclass(frozen=True, kw_only=True)
class App:
    """Serves a page that detects in dropped images, frames and videos, and saves corrected points (docs/app.md).

    Nothing leaves this machine. By default the page is for this machine alone.

    Attributes:
      model: another detector to choose, beside the shipped weights and the filters; what irjax predict --model takes.
      host: address to listen at; 0.0.0.0 lets everybody in who reaches this machine, without a password.
      port: port to listen at; 0 takes a free one.
      open: open the page in this machine's browser.
      no_cache: compile anew, and keep no compiled programs for the next call (docs/jax.md).
    """

    model: Annotated[Optional[str], arg()] = None
    host: str = "127.0.0.1"
    port: int = 8080
    open: Switch = False
    no_cache: Switch = False

    def run(self) -> None:
        """Serves until it is interrupted."""
        from irjax.app.page import serve
        from irjax.baselines import BASELINES
        from irjax.detector import weights
        from irjax.detector.programs import keep_programs

        if not self.no_cache:
            keep_programs()
        shipped = sorted(weights.names(), key=lambda name: name != "spire-sirst")
        models = [*([self.model] if self.model else []), *shipped, *BASELINES]
        serve(list(dict.fromkeys(models)), host=self.host, port=self.port, open_browser=self.open)
