"""Windows of large images: a source whose examples are overlapping squares at the images' own resolution."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from irjax.data.sources import Concatenation
from irjax.ops.windows import cut_windows, in_window, window_origins
from irjax.types import Example, Source


def cut_example(example: Example, size: int, overlap: int) -> list[Example]:
    """Cuts an image into windows, named ``NAME@x,y``.

    The targets of a window are those whose centroid lies in one of its pixels. Its mask also contains parts of other
    targets, and of their mirror images where the image is smaller than a window.

    Args:
      example: the image.
      size: side S of a window in pixels; an image with a shorter side is centred and padded by mirroring.
      overlap: minimum overlap of neighbouring windows in pixels.
    """
    height, width = example.image.shape
    origins = window_origins(height, width, size, overlap)
    images = cut_windows(example.image, size, overlap)
    masks = [None] * len(images) if example.mask is None else cut_windows(example.mask, size, overlap)
    windows = []
    for (x, y), image, mask in zip(origins.tolist(), images, masks, strict=True):
        points = np.asarray(example.points, np.float32).reshape(-1, 2) - np.array([x, y], np.float32)
        windows.append(Example(f"{example.name}@{x},{y}", image, points[in_window(points, size)], mask))
    return windows


@dataclasses.dataclass(frozen=True)
class WindowSource:
    """Every window of every image of a source (an `irjax.types.Source`), as `cut_example` cuts them.

    Attributes:
      source: the images.
      size: side S of a window in pixels; an image with a shorter side is centred and padded by mirroring.
      overlap: minimum overlap of neighbouring windows in pixels.
    """

    source: Source
    size: int
    overlap: int

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        """Cuts window `index`; raises IndexError if it is outside the source."""
        number, which, _ = self._places[index]
        return cut_example(self._read(number), self.size, self.overlap)[which]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every window, in order."""
        return tuple(name for _, _, name in self._places)

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss."""
        return self.source.dtype

    @functools.cached_property
    def _places(self) -> list[tuple[int, int, str]]:
        """Index of the image, index of the window in it, and name; reads every image once for its size."""
        places = []
        for number, name in enumerate(self.source.names):
            height, width = self._read(number).image.shape
            origins = window_origins(height, width, self.size, self.overlap)
            places += [(number, which, f"{name}@{x},{y}") for which, (x, y) in enumerate(origins)]
        return places

    @functools.cached_property
    def _read(self) -> Callable[[int], Example]:
        # Consecutive windows are usually from the same image.
        return functools.lru_cache(maxsize=16)(self.source.__getitem__)

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "size": self.size, "overlap": self.overlap}


def as_windows(source: Source, size: int, overlap: int) -> Source:
    """Returns the windows of a source; for a concatenation, the concatenation of the windows of its parts."""
    if isinstance(source, Concatenation):
        return Concatenation(tuple(WindowSource(part, size, overlap) for part in source.sources))
    return WindowSource(source, size, overlap)
