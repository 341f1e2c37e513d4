"""Notes on what a detector's limits do to images, for `irjax predict`; a limit that was not asked for is raised."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from irjax.errors import note
from irjax.types import Detections

MOST = 4096  # detections in an image, up to which the limit is raised
_STEP = 8

Run = Callable[[Sequence[np.ndarray], int], Detections]


class Limits:
    """A detector as a function of images, which takes account of what its limits cut or shrink.

    Args:
      run: ``(images [H, W], max_detections) -> Detections``.
      limit: largest number of detections in an image.
      fixed: whether the limit was asked for: detections beyond it are cut and counted. Otherwise the images are run
        again with a higher limit.
      most: the highest limit that `run` takes.
      side: side in pixels of the square that larger images are scaled down to; 0: none are.
    """

    def __init__(self, run: Run, limit: int, *, fixed: bool, most: int = MOST, side: int = 0):
        self._run, self._limit, self._fixed, self._side = run, limit, fixed, side
        self._most = max(limit, min(most, MOST))
        self._cut = self._shrunk = 0
        self._factor = 1.0

    def __call__(self, images: Sequence[np.ndarray]) -> Detections:
        """Returns the detections in images [H, W] of any sizes."""
        if self._side:
            factors = [max(image.shape) / self._side for image in images]
            self._shrunk += sum(factor > 1 for factor in factors)
            self._factor = max(self._factor, *factors)
        found = self._run(images, self._limit)
        while (full := int(found.valid.all(axis=1).sum())) and not self._fixed and self._limit < self._most:
            self._limit = min(_STEP * self._limit, self._most)
            found = self._run(images, self._limit)
        self._cut += full
        return found

    def tell(self) -> None:
        """Notes what was cut and shrunk so far."""
        if self._cut:
            way = "--max-detections raises it" if self._fixed else "--threshold leaves fewer"
            note(f"{self._cut} images reached the limit of {self._limit} detections and may hold more; {way}")
        if self._shrunk:
            note(
                f"{self._shrunk} images were scaled down to fit {self._side} pixels, by up to {self._factor:.3g}, so "
                "that small targets may be lost; --native keeps their resolution, --size takes a larger square"
            )
