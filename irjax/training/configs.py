"""Configuration of the training loop, changes of configs, and comparison with saved configs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import flax.traverse_util

from irjax.errors import UserError
from irjax.io.files import json_values

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# What only watches a run, and may be another when it is resumed.
_WATCHING = ("loop.tensorboard", "loop.wandb", "loop.profile")

Config = TypeVar("Config", bound="DataclassInstance")


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Length of a run, batch sizes and intervals.

    Attributes:
      seed: seed of all random numbers in the run.
      epochs: passes over the training images, with as many draws as there are images; ignored with `steps` or
        `minutes`.
      steps: optimiser steps, or 0 to count in epochs.
      minutes: wall time of the run from its first step on, including validation, or 0. The learning rate is constant
        after the warm-up, whatever `optimizer.schedule` is, and falls in the last fifth. A run may be given more
        minutes later and then continues from where the rate began to fall.
      batch_size: examples in a step, over all devices.
      eval_batch_size: images in a validation step.
      eval_epochs: epochs between validations, each of which writes a checkpoint; while the rate of a run with `minutes`
        falls, there is only one at its end.
      save_minutes: largest interval between checkpoints, in minutes.
      validate: validate, and select the best checkpoint; if off, the newest is used and no validation images are
        needed.
      steps_per_dispatch: steps in one dispatch to the device, with data.cache=device.
      averaging: decay of the moving average of the weights per step, or 0 for none. The average is what is validated.
      bf16: compute in bfloat16; parameters, losses and batch statistics stay float32.
      max_skipped: number of consecutive non-finite steps after which the run stops.
      devices: local devices to use, or 0 for as many as can share the batch equally.
      tensorboard: write TensorBoard files.
      wandb: project of Weights & Biases that the metrics also go to; WANDB_MODE=offline sends nothing.
      profile: record this many steps by jax.profiler into RUN/profile, once they are compiled and warm.
    """

    seed: int = 0
    epochs: float = 10
    steps: int = 0
    minutes: float = 0.0
    batch_size: int = 8
    eval_batch_size: int = 8
    eval_epochs: float = 1
    save_minutes: float = 4.0
    validate: bool = True
    steps_per_dispatch: int = 10
    averaging: float = 0.0
    bf16: bool = False
    max_skipped: int = 20
    devices: int = 0
    tensorboard: bool = True
    wandb: str = ""
    profile: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_batch_size", "steps_per_dispatch", "max_skipped"):
            if getattr(self, name) < 1:
                raise UserError(f"loop.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("seed", "steps", "minutes", "devices", "profile"):
            if getattr(self, name) < 0:
                raise UserError(f"loop.{name} must not be negative, got {getattr(self, name)}")
        for name in ("epochs", "eval_epochs", "save_minutes"):
            if not getattr(self, name) > 0:
                raise UserError(f"loop.{name} must be positive, got {getattr(self, name)}")
        if self.minutes and self.steps:
            raise UserError(f"loop.minutes {self.minutes:g} and loop.steps {self.steps} exclude each other")
        if not 0 <= self.averaging < 1:
            raise UserError(f"loop.averaging must be in [0, 1), got {self.averaging}")


def replace_parts(config: Config, **parts: Mapping[str, Any]) -> Config:
    """Returns the config with fields of its parts replaced.

    Args:
      config: a dataclass of dataclasses.
      **parts: {field: value} for each part, such as ``loop={"steps": 4}``.
    """
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **values) for name, values in parts.items()}
    )


def differences(saved: Any, config: Any) -> list[str]:
    """Lists the fields in which a saved config differs from a given one.

    A field that only one of them has counts as a difference, because the behaviour of an earlier or later version
    without that field is not known. What only watches a run, such as `loop.tensorboard`, does not count.

    Args:
      saved: JSON values of a dataclass, or None.
      config: a dataclass.

    Returns:
      A phrase for each differing field, such as "loop.steps 10, was 20" or "loop.minutes 5, was absent"; empty if they
      are equal.
    """
    given = flax.traverse_util.flatten_dict(json_values(dataclasses.asdict(config)), sep=".", keep_empty_nodes=True)
    kept = flax.traverse_util.flatten_dict(dict(saved or {}), sep=".", keep_empty_nodes=True)
    told = lambda values, name: json.dumps(values[name]) if name in values else "absent"  # noqa: E731
    names = [name for name in {**given, **kept} if given.get(name, ...) != kept.get(name, ...)]
    names = [name for name in names if name not in _WATCHING]
    return [f"{name} {told(given, name)}, was {told(kept, name)}" for name in names]
