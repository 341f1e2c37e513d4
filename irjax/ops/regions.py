"""Connected regions of a target mask on the host: their centroids, areas and boxes.

Regions are numbered in raster order of their first pixel, and are 8-connected unless stated otherwise, as is usual for
counting small targets.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from irjax.errors import UserError

_STRUCTURES = {4: np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.bool_), 8: np.ones((3, 3), np.bool_)}


@dataclasses.dataclass(frozen=True)
class Regions:
    """The regions of one mask.

    Attributes:
      labels: [H, W] int32, 0 on background, k + 1 on the pixels of region k.
      centroids: [K, 2] float64 (x, y) in pixels, the mean of the pixel centres, unweighted.
      areas: [K] int64 in pixels.
      boxes: [K, 4] int64 (x_min, y_min, x_max, y_max) in pixels; upper edges exclusive: the width is x_max - x_min.
    """

    labels: np.ndarray
    centroids: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.areas)

    def peaks(self, values: np.ndarray) -> np.ndarray:
        """Returns the maximum of the values [H, W] on each region: [K], of their dtype."""
        pixels = np.flatnonzero(self.labels)
        highest = np.full(len(self), -np.inf, values.dtype)
        np.maximum.at(highest, self.labels.reshape(-1)[pixels] - 1, values.reshape(-1)[pixels])
        return highest


def find_regions(mask: np.ndarray, connectivity: int = 8) -> Regions:
    """Finds the connected regions of a mask.

    Args:
      mask: [H, W] bool (or any dtype; nonzero is target).
      connectivity: 8 (pixels that share a corner are connected) or 4.

    Returns:
      The regions in raster order, as scikit-image numbers them; for an empty mask all arrays are empty along K.

    Raises:
      UserError: if the mask is not two-dimensional or `connectivity` is neither 4 nor 8.
    """
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise UserError(f"a mask must be [H, W], got shape {mask.shape}")
    if connectivity not in _STRUCTURES:
        raise UserError(f"connectivity must be 4 or 8, got {connectivity}")
    labels = np.zeros(mask.shape, np.int32)
    # Targets have few pixels, so after one pass that finds them only those pixels are processed.
    pixels = np.flatnonzero(mask)
    if not pixels.size:
        return Regions(labels, np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
    y, x = np.divmod(pixels, mask.shape[1])
    top, left = y[0], x.min()
    part = mask[top : y[-1] + 1, left : x.max() + 1]
    found, count = ndimage.label(part, _STRUCTURES[connectivity])
    numbers = found[y - top, x - left]
    labels.reshape(-1)[pixels] = numbers
    # Sorted by region and, as the sort is stable, in raster order within each.
    order = np.argsort(numbers, kind="stable")
    x, y = x[order], y[order]
    areas = np.bincount(numbers, minlength=count + 1)[1:]
    starts = np.concatenate([[0], np.cumsum(areas)])
    firsts, lasts = starts[:-1], starts[1:] - 1
    centroids = np.stack([np.add.reduceat(axis, firsts) for axis in (x, y)], axis=1) / areas[:, None]
    left, right = np.minimum.reduceat(x, firsts), np.maximum.reduceat(x, firsts)
    boxes = np.stack([left, y[firsts], right + 1, y[lasts] + 1], axis=1)
    return Regions(labels, centroids, areas.astype(np.int64), boxes.astype(np.int64))


def points_from_mask(mask: np.ndarray) -> np.ndarray:
    """Returns the target centroids of a mask [H, W]: [K, 2] float32 (x, y) in pixels, in raster order."""
    return find_regions(mask).centroids.astype(np.float32)
