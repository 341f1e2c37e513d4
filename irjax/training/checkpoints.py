"""Checkpoints of a run: the newest state, to resume, and the best on validation. The only use of orbax in irjax.

A checkpoint holds the whole `TrainState` and the loop's own record. Both are restored bit for bit. The validation
metrics of the checkpoints are in the file validation.json of the run directory.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import flax.serialization
import jax
import numpy as np

from irjax.errors import MissingFileError, UserError
from irjax.io.files import read_json, write_json
from irjax.training.state import TrainState, Variables

_logger = logging.getLogger(__name__)

_FOLDER = "checkpoints"
_REMOVED = "removed"
_VALIDATIONS = "validation.json"
_CHOICE = "select"


def saved_steps(run: str | os.PathLike) -> list[int]:
    """Returns the steps of a run directory that have a complete checkpoint, in ascending order."""
    folder = pathlib.Path(run) / _FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())


def _best(steps: Sequence[int], validations: dict[int, dict[str, float]]) -> int | None:
    """Returns the validated step with the highest selection metric; ties go to the lower loss, then the later step."""

    def rank(step: int) -> tuple[float, float, int]:
        # An undefined metric (such as F1 without detections) is null in the file and never the best.
        chosen, loss = (validations[step].get(name) for name in (_CHOICE, "loss"))
        return -1.0 if chosen is None else chosen, -np.inf if loss is None else -loss, step

    return max((step for step in steps if step in validations), key=rank, default=None)


class _Kept:
    """Preservation policy: keeps the newest, the best and the newest checkpoint that training may be extended from."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [one.step for one in checkpoints]
        steady = [one.step for one in checkpoints if (one.metrics or {}).get("steady", 1.0)]
        best = _best(steps, self._checkpoints.validations())
        kept = {max(steps, default=None), max(steady, default=None), best}
        return [step in kept for step in steps]


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Silences orbax's warnings about intended conditions, such as a read-only folder."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class CheckpointError(UserError):
    """A checkpoint could not be written or read; earlier checkpoints are unchanged."""


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
      run: the run directory; checkpoints are in its folder ``checkpoints``.
      read_only: do not create folders.

    Raises:
      CheckpointError: if the folder cannot be created.
    """

    def __init__(self, run: str | os.PathLike, *, read_only: bool = False):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self.folder = pathlib.Path(run).resolve() / _FOLDER
        self._path = self.folder.parent / _VALIDATIONS
        # Orbax's own asynchronous writing hangs for minutes when a folder cannot be created.
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: tuple[int, concurrent.futures.Future] | None = None
        try:
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            with _only_errors():
                options = ocp.CheckpointManagerOptions(
                    create=not read_only,
                    read_only=read_only,
                    best_fn=lambda metrics: 0.0,  # without it, orbax does not store metrics
                    preservation_policy=_Kept(self),
                    # Checkpoints are renamed before removal, so a killed process leaves no partial checkpoint.
                    todelete_subdir=None if read_only else _REMOVED,
                    enable_async_checkpointing=False,
                )
                handlers = {"state": ocp.PyTreeCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
                self._manager = ocp.CheckpointManager(self.folder, item_handlers=handlers, options=options)
        except OSError as error:
            raise CheckpointError(f"cannot write checkpoints to {self.folder}: {error}") from error

    def save(self, state: TrainState, record: dict[str, Any], *, steady: bool = True) -> None:
        """Writes a checkpoint of the state's step in the background.

        Args:
          state: state on any device; it is copied before this returns.
          record: the loop's own JSON values.
          steady: whether training may be extended from it, that is, the learning rate has not begun to fall.

        Raises:
          CheckpointError: if the previous checkpoint could not be written (folder not writable, disk full); earlier
            ones are kept.
        """
        self.wait()
        tree = flax.serialization.to_state_dict(jax.device_get(state))
        items = self._ocp.args.Composite(state=self._ocp.args.PyTreeSave(tree), record=self._ocp.args.JsonSave(record))
        step = int(state.step)
        self._writing = step, self._thread.submit(self._save, step, items, {"steady": float(steady)})

    def _save(self, step: int, items: Any, metrics: dict[str, float]) -> None:
        self._manager.save(step, args=items, metrics=metrics)
        self._manager.wait_until_finished()
        shutil.rmtree(self.folder / _REMOVED, ignore_errors=True)
        _logger.info("wrote the checkpoint of step %d to %s", step, self.folder)

    def wait(self) -> None:
        """Waits until the last checkpoint is complete.

        Raises:
          CheckpointError: if it could not be written.
        """
        if self._writing is None:
            return
        (step, written), self._writing = self._writing, None
        try:
            written.result()
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"could not write the checkpoint of step {step} to {self.folder}: {error}. "
                f"Checkpoints of steps {self.steps()} are intact; free space or permissions there and run again to "
                "resume."
            ) from error

    def steps(self) -> list[int]:
        """Returns the steps that have a complete checkpoint, in ascending order."""
        return saved_steps(self.folder.parent)

    def newest_steady(self) -> int | None:
        """Returns the newest step that training may be extended from, or None."""
        return max((step for step in self.steps() if self._metrics(step).get("steady", 1.0)), default=None)

    def validations(self) -> dict[int, dict[str, float]]:
        """Returns the metrics of each validated step, in ascending order, including steps without a checkpoint."""
        history = read_json(self._path) if self._path.exists() else {}
        return {step: history[str(step)] for step in sorted(map(int, history))}

    def metrics(self, step: int) -> dict[str, float]:
        """Returns the metrics of a step; empty if it was not validated."""
        return {name: value for name, value in self.validations().get(step, {}).items() if name != _CHOICE}

    def validated(self, step: int, metrics: dict[str, float], choice: str) -> None:
        """Records the validation of a step.

        Args:
          step: a step later than all recorded ones.
          metrics: its metrics.
          choice: name of the metric that selects the best step; higher is better.

        Raises:
          CheckpointError: if it cannot be written.
        """
        history = {**self.validations(), step: {**metrics, _CHOICE: metrics[choice]}}
        self._write(history)

    def forget(self, after: int) -> None:
        """Removes the validations of steps later than `after`, which will be repeated."""
        history = self.validations()
        if any(step > after for step in history):
            self._write({step: metrics for step, metrics in history.items() if step <= after})

    def _write(self, history: dict[int, dict[str, float]]) -> None:
        try:
            write_json(self._path, {str(step): metrics for step, metrics in history.items()})
        except OSError as error:
            raise CheckpointError(f"could not write {self._path}: {error}; the checkpoints are intact") from error

    def best_step(self) -> int:
        """Returns the best validated step (ties: lower loss, then later step), or the newest if none was validated.

        Raises:
          CheckpointError: if there is no checkpoint.
        """
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        validations = self.validations()
        for step in steps:
            if step in validations and _CHOICE not in validations[step]:  # irjax 0.1 stored it in the checkpoint
                validations[step] = {**validations[step], **self._metrics(step)}
        best = _best(steps, validations)
        return steps[-1] if best is None else best

    def _metrics(self, step: int) -> dict[str, float]:
        with self._reading(step):
            return dict(self._manager.metrics(step) or {})

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the newest state and record, or None if there is no checkpoint.

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
        _logger.info("restored the checkpoint of step %d from %s", steps[-1], self.folder)
        return flax.serialization.from_state_dict(template, tree), record

    def variables(self, which: str = "best") -> tuple[int, Variables]:
        """Returns step and weights of the ``best`` or ``newest`` checkpoint; the moving average if the run kept one."""
        if which not in ("best", "newest"):
            raise UserError(f"which must be 'best' or 'newest', got {which!r}")
        if not self.steps():
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        step = self.best_step() if which == "best" else self.steps()[-1]
        tree, _ = self._read(step)
        return step, tree["average"] if tree.get("average") is not None else tree["variables"]

    def close(self) -> None:
        """Waits for the last checkpoint and stops orbax's threads.

        Raises:
          CheckpointError: if the checkpoint could not be written.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()
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
    """Loads the weights of a run directory as numpy arrays.

    Args:
      run: the run directory.
      which: ``best`` on validation, or ``newest``.

    Raises:
      MissingFileError: if the directory has no checkpoints.
      CheckpointError: if they cannot be read.
    """
    if not (pathlib.Path(run) / _FOLDER).is_dir():
        raise MissingFileError(f"{os.fspath(run)} is no run directory: it has no folder {_FOLDER!r}")
    with contextlib.closing(Checkpoints(run, read_only=True)) as checkpoints:
        return checkpoints.variables(which)[1]


def set_aside(run: str | os.PathLike, minutes: float, after: int) -> pathlib.Path | None:
    """Moves the last part of a finished run into its own run directory, so that the run can continue from before it.

    Args:
      run: the run directory.
      minutes: the budget of the finished run.
      after: the step to continue from; checkpoints of later steps are moved.

    Returns:
      RUN/after-M-minutes, which `irjax.load` accepts like the run; None if there was nothing to move.
    """
    run = pathlib.Path(run)
    later = [step for step in saved_steps(run) if step > after]
    if not later:
        return None
    end = run / f"after-{minutes:g}-minutes"
    (end / _FOLDER).mkdir(parents=True, exist_ok=True)
    for file in run.glob("*.json"):
        shutil.copy2(file, end)
    history = end / _VALIDATIONS
    if history.exists():
        # The best step must have its checkpoint in the new directory.
        write_json(history, {step: found for step, found in read_json(history).items() if int(step) in later})
    for step in later:
        shutil.move(run / _FOLDER / str(step), end / _FOLDER / str(step))
    return end
