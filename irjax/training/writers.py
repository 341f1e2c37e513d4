"""Where the metrics of a run are written besides metrics.jsonl: TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from irjax.errors import MissingPackageError, UserError, reading
from irjax.io.files import write_text
from irjax.training.configs import LoopConfig

_ID_FILE = "wandb-id"


class MetricWriter(Protocol):
    """Writes the metrics of a run somewhere."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes {``train/loss`` and so on: value} of a step."""

    def close(self) -> None:
        """Writes what is left, and ends."""


class TensorBoard:
    """TensorBoard files in RUN/tensorboard.

    Args:
      run: the run directory.
      start: the step that the run starts or resumes at; earlier files' later steps are not shown.
    """

    def __init__(self, run: pathlib.Path, start: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, called after the run directory; its files are in RUN/wandb.

    A resumed run goes on as the same one, whose name is in RUN/wandb-id. WANDB_MODE, WANDB_API_KEY and the other
    variables of wandb hold; ``WANDB_MODE=offline`` writes files alone.

    Args:
      run: the run directory.
      project: the project's name.
      config: what the run depends on, as JSON values.

    Raises:
      MissingPackageError: without wandb.
      UserError: if wandb cannot start a run, such as without a key.
    """

    def __init__(self, run: pathlib.Path, project: str, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise MissingPackageError("--loop.wandb needs wandb: pip install 'irjax[wandb]'") from error
        options: dict[str, Any] = {"id": _identity(run), "name": run.name, "dir": str(run), "config": dict(config)}
        try:
            # What is printed stays where it is printed.
            settings = wandb.Settings(console="off")
            self._run = wandb.init(project=project, resume="allow", settings=settings, **options)
        except wandb.errors.Error as error:
            raise UserError(f"--loop.wandb {project}: {error}; WANDB_MODE=offline needs no account") from error
        # A resumed run repeats steps, which W&B's own count of calls cannot do.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step."""
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """Waits until all is sent or written."""
        self._run.finish()


def open_writers(run: pathlib.Path, start: int, loop: LoopConfig, config: Mapping[str, Any]) -> list[MetricWriter]:
    """Returns the writers that a run asks for.

    Args:
      run: the run directory.
      start: the step that the run starts or resumes at.
      loop: says which.
      config: what the run depends on, as JSON values.
    """
    writers: list[MetricWriter] = []
    if loop.tensorboard:
        with contextlib.suppress(ImportError):  # an accelerator machine may lack it
            writers.append(TensorBoard(run, start))
    if loop.wandb:
        writers.append(WandB(run, loop.wandb, config))
    return writers


def _identity(run: pathlib.Path) -> str:
    """Returns what W&B knows the run by, drawn when it is first opened."""
    path = run / _ID_FILE
    if not path.exists():
        write_text(path, secrets.token_hex(8) + "\n")
    with reading(path):
        return path.read_text(encoding="utf-8").strip()
