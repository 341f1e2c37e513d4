"""Selection of the images whose targets are all tiny, by the rule of IRSTD-Hard (arXiv 2605.05804)."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from irjax.data.resized import ResizedSource
from irjax.errors import UserError
from irjax.ops.regions import find_regions
from irjax.ops.resize import resize_mask
from irjax.types import Example, Source


@dataclasses.dataclass(frozen=True)
class HardSource:
    """The resized images of a source that have targets, all of them tiny (an `irjax.types.Source`).

    Attributes:
      source: examples with masks.
      prefix: prepended to the names of the examples, since data sets may use the same names.
      max_area: maximum area of the targets of an image after resizing, in pixels.
      size: side of the square to which images and masks are resized, in pixels.

    Raises:
      UserError: on first use, if an example has no mask.
    """

    source: Source
    prefix: str = ""
    max_area: int = 20
    size: int = 256

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        """Reads example `index`; raises IndexError if it is outside the source."""
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
