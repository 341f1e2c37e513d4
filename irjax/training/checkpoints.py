"""Checkpoints of a run: the newest state, to resume, and the best on validation, to use. The only orbax of irjax.

A checkpoint holds the whole `TrainState` and the loop's own record (plateau rule, feed position). Both come back as
they were saved, to the bit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import flax.serialization
import jax
import numpy as np

from irjax.errors import MissingFileError, UserError
from irjax.training.state import TrainState, Variables

_FOLDER = "checkpoints"
_REMOVED = "removed"
_METRIC = "select"


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    """Higher is better; ties go to the lower loss."""
    return metrics[_METRIC], -metrics["loss"]


def saved_steps(run: str | os.PathLike) -> list[int]:
    """The steps of a run directory that have a whole checkpoint, rising."""
    folder = pathlib.Path(run) / _FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Without orbax's warnings about what is meant, such as that a read-only folder is read only."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class CheckpointError(UserError):
    """A checkpoint could not be written or read; earlier ones are as they were."""


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
      run: the run directory; checkpoints lie in its folder ``checkpoints``.
      read_only: do not make folders.

    Raises:
      CheckpointError: if the folder cannot be made.
    """

    def __init__(self, run: str | os.PathLike, *, read_only: bool = False):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        self._ocp = ocp
        self.folder = pathlib.Path(run).resolve() / _FOLDER
        best = BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False)
        try:
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            with _only_errors():
                options = ocp.CheckpointManagerOptions(
                    create=not read_only,
                    read_only=read_only,
                    best_fn=_rank,  # without it orbax does not store metrics
                    preservation_policy=AnyPreservationPolicy([LatestN(1), best]),
                    enable_async_checkpointing=False,
                    # Renamed before it is removed: a kill leaves no half of a checkpoint.
                    todelete_subdir=None if read_only else _REMOVED,
                )
                handlers = {"state": ocp.PyTreeCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
                self._manager = ocp.CheckpointManager(self.folder, item_handlers=handlers, options=options)
        except OSError as error:
            raise CheckpointError(f"cannot write checkpoints to {self.folder}: {error}") from error

    def save(self, state: TrainState, record: dict[str, Any], *, select: float, loss: float) -> None:
        """Writes a checkpoint of the state's step.

        Args:
          state: on any device.
          record: the loop's own JSON values.
          select: the metric that chooses the best checkpoint, higher is better.
          loss: validation loss, which breaks ties.

        Raises:
          CheckpointError: if it cannot be written (folder not writable, disk full); earlier checkpoints are kept.
        """
        step = int(state.step)
        tree = flax.serialization.to_state_dict(jax.device_get(state))
        items = self._ocp.args.Composite(state=self._ocp.args.PyTreeSave(tree), record=self._ocp.args.JsonSave(record))
        try:
            self._manager.save(step, args=items, metrics={_METRIC: float(select), "loss": float(loss)})
            self._manager.wait_until_finished()
            shutil.rmtree(self.folder / _REMOVED, ignore_errors=True)
        except (OSError, ValueError, RuntimeError) as error:
            kept = self.steps()
            raise CheckpointError(
                f"could not write the checkpoint of step {step} to {self.folder}: {error}. "
                f"Checkpoints of steps {kept} are intact; free space or permissions there and run again to resume."
            ) from error

    def steps(self) -> list[int]:
        """The steps that have a whole checkpoint, rising."""
        return saved_steps(self.folder.parent)

    def best_step(self) -> int:
        """The step of the highest selection metric; ties go to the lower validation loss.

        Raises:
          CheckpointError: if there is no checkpoint.
        """
        scores = {step: self.metrics(step) for step in self.steps()}
        if not scores:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        return max(scores, key=lambda step: (_rank(scores[step]), step))

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics that were saved with a step.

        Raises:
          CheckpointError: if they are not there.
        """
        with self._reading(step):
            return dict(self._manager.metrics(step))

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state and record, or None if there is none.

        Args:
          template: a state of the same structure and shapes.

        Raises:
          CheckpointError: if the checkpoint has another structure, such as that of another method or optimiser.
        """
        steps = self.steps()
        if not steps:
            return None
        tree, record = self._read(steps[-1])
        wanted = flax.serialization.to_state_dict(template)
        shapes = lambda t: jax.tree.map(lambda x: tuple(np.shape(x)), t)  # noqa: E731
        if shapes(tree) != shapes(wanted):
            raise CheckpointError(
                f"the checkpoint of step {steps[-1]} in {self.folder} does not fit this run's model and optimiser"
            )
        return flax.serialization.from_state_dict(template, tree), record

    def variables(self, which: str = "best") -> tuple[int, Variables]:
        """Step and weights of the ``best`` or ``newest`` checkpoint, the moving average if the run kept one."""
        if which not in ("best", "newest"):
            raise UserError(f"which must be 'best' or 'newest', got {which!r}")
        if not self.steps():
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        step = self.best_step() if which == "best" else self.steps()[-1]
        tree, _ = self._read(step)
        return step, tree["average"] if tree.get("average") is not None else tree["variables"]

    def close(self) -> None:
        """Ends orbax's threads."""
        self._manager.close()

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        ocp = self._ocp
        with self._reading(step):
            found = self._manager.item_metadata(step)["state"]
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), found.tree)
            items = ocp.args.Composite(
                state=ocp.args.PyTreeRestore(restore_args=arguments), record=ocp.args.JsonRestore()
            )
            restored = self._manager.restore(step, args=items)
            return restored["state"], restored["record"]

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"cannot read the checkpoint of step {step} in {self.folder}: {error}") from error


def load_variables(run: str | os.PathLike, which: str = "best") -> Variables:
    """The weights of a run directory, as numpy arrays.

    Args:
      run: the run directory.
      which: ``best`` on validation, or ``newest``.

    Raises:
      MissingFileError: if the directory has no checkpoints.
      CheckpointError: if they cannot be read.
    """
    if not (pathlib.Path(run) / _FOLDER).is_dir():
        raise MissingFileError(f"{os.fspath(run)} is no run directory: it has no folder {_FOLDER!r}")
    checkpoints = Checkpoints(run, read_only=True)
    try:
        return checkpoints.variables(which)[1]
    finally:
        checkpoints.close()
