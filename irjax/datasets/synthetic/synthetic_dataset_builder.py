"""Synthetic scenes with exactly known targets, made from a seed."""

from __future__ import annotations

import dataclasses
import os
import re

import numpy as np

from irjax.data import clutter, synthetic
from irjax.datasets import base
from irjax.errors import UserError
from irjax.types import Source

_NAME = re.compile(r"seed(\d{1,9})(_16bit)?")


@dataclasses.dataclass(eq=False)
class SyntheticConfig(base.IrstdConfig):
    """Parameters of the synthetic scenes.

    Attributes:
      seed: the splits use the seeds 3 * seed, 3 * seed + 1 and 3 * seed + 2, so that no two data sets share one.
      bits: 8 or 16 bits per pixel.
    """

    seed: int = 0
    bits: int = 8


class Builder(base.IrstdBuilder):
    """Synthetic scenes of `irjax.data.synthetic`, 256x256, from a seed; no source is needed. Any seedN builds.

    Points are the exact positions of the targets, not the centroids of their masks.
    """

    BUILDER_CONFIGS = [
        SyntheticConfig(name="seed0", description="8 bits; seed1, seed2, ... give other scenes."),
        SyntheticConfig(name="seed0_16bit", description="16 bits; seed1_16bit, ... give other scenes.", bits=16),
    ]
    NEEDS_SOURCE = False
    COUNTS = {"train": 1000, "validation": 250, "test": 250}

    @classmethod
    def config_for(cls, name: str) -> SyntheticConfig:
        """Returns a configuration, as `IrstdBuilder.config_for`; every seedN and seedN_16bit is one."""
        match = _NAME.fullmatch(name or "seed0")
        if match is None:
            raise UserError(f"{cls.name} has no configuration {name!r}; it has seedN and seedN_16bit, N being a number")
        seed, deep = match.groups()
        known = {config.name: config for config in cls.BUILDER_CONFIGS}
        bits = 16 if deep else 8
        text = f"{bits} bits, seed {int(seed)}."
        name = f"seed{int(seed)}{deep or ''}"
        return known.get(name) or SyntheticConfig(name=name, description=text, seed=int(seed), bits=bits)

    def _depth(self) -> type[np.unsignedinteger]:
        return np.uint16 if self.builder_config.bits == 16 else np.uint8

    @classmethod
    def open_splits(  # type: ignore[override]  # the configuration is required
        cls, root: str | os.PathLike | None, config: SyntheticConfig
    ) -> dict[str, Source]:
        """Returns the scenes by TFDS split name; `root` is not used."""
        scenes = clutter.SceneConfig(bits=config.bits)
        return {
            split: synthetic.SyntheticSource(scenes, 3 * config.seed + number, count)
            for number, (split, count) in enumerate(cls.COUNTS.items())
        }
