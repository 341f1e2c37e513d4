"""One run of a method: training into a directory that `irjax.load` accepts."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

from irjax.data.augment import AugmentConfig
from irjax.data.sources import DRAWN
from irjax.data.splits import DataConfig
from irjax.detector.loading import load
from irjax.io.files import write_text
from irjax.methods.detector_config import CONFIG_FILE, DetectorConfig
from irjax.methods.method import Method, Objective
from irjax.training.configs import LoopConfig
from irjax.training.loop import TrainedRun, fit
from irjax.training.optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on except its method's own parts; saved with it.

    Attributes:
      initial: weights to start from instead of random ones: a run directory, a .safetensors, a published .pth, or the
        name of shipped weights.
    """

    initial: str = ""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)


def train(
    method: Method,
    config: Any,
    run: pathlib.Path,
    *,
    objective: Callable[[Any, str | None], Objective] | None = None,
) -> TrainedRun:
    """Trains or resumes a run; its directory can then be given to `irjax.load`.

    Args:
      method: the method to train.
      config: everything the run depends on: an `irjax.experiments.run.RunConfig` with the method's own parts.
      run: the run directory.
      objective: replaces the method's objective.

    Returns:
      The result of `irjax.training.loop.fit`.
    """

    def leave_detector() -> None:
        write_text(run / CONFIG_FILE, DetectorConfig.of_run(method, config).to_json() + "\n")
        _leave_lists(config.data, run)

    return fit(
        functools.partial(objective or method.objective, config),
        config=config,
        data=config.data,
        optimizer=config.optimizer,
        loop=config.loop,
        run=run,
        initial=load(config.initial).variables if config.initial else None,
        with_masks=method.masks,
        input_channels=config.model.channels,
        on_start=leave_detector,
    )


def _leave_lists(data: DataConfig, run: pathlib.Path) -> None:
    """Writes RUN/splits/DATASET-SPLIT.txt, one name a line, for all drawn splits if the run uses any of them."""
    for number, root in enumerate(map(pathlib.Path, data.root)):
        alike = [one for one in data.root if pathlib.Path(one).name == root.name]
        label = root.name if len(alike) == 1 else f"{number}-{root.name}"
        for split in DRAWN if {*data.train, *data.val} & {*DRAWN} else ():
            names = data.open_folder(str(root), split).names
            write_text(run / "splits" / f"{label}-{split}.txt", "\n".join(names) + "\n")
