"""The images of a data set whose targets are all tiny: the rule of IRSTD-Hard (arXiv 2605.05804)."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from irjax.data.resized import ResizedSource
from irjax.errors import UserError
from irjax.ops.regions import find_regions, resize_mask
from irjax.types import Example, Source


@dataclasses.dataclass(frozen=True)
class HardSource:
    """The images of a source that have targets, all of them tiny, resized (an `irjax.types.Source`).

    Attributes:
      source: examples with masks.
      prefix: in front of their names, which may be alike in several data sets.
      max_area: pixels of the largest target that an image may have, after resizing.
      size: side of the square to which images and masks are resized, in pixels.

    Raises:
      UserError: when it is first used, if an example has no mask.
    """

    source: Source
    prefix: str = ""
    max_area: int = 20
    size: int = 256

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        """Reads example `index`; IndexError outside the source."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} examples")
        example = ResizedSource(self.source, self.size)[self._kept[index]]
        return dataclasses.replace(example, name=f"{self.prefix}{example.name}")

    @property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss."""
        return self.source.dtype

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every example, in order."""
        return tuple(f"{self.prefix}{self.source.names[index]}" for index in self._kept)

    @functools.cached_property
    def _kept(self) -> tuple[int, ...]:
        return tuple(index for index in range(len(self.source)) if self._is_hard(self.source[index].mask))

    def _is_hard(self, mask: np.ndarray | None) -> bool:
        if mask is None:
            raise UserError("the areas of targets need masks, and there is an image without one")
        areas = find_regions(resize_mask(mask, self.size)).areas
        return len(areas) > 0 and areas.max() <= self.max_area
