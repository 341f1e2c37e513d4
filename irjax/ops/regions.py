"""Connected regions of a target mask, on the host: their centroids, areas and boxes.

Regions are 8-connected and numbered in raster order of their first pixel, which is how METRICS counts targets.
"""

from __future__ import annotations

import dataclasses

import numpy as np


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


def find_regions(mask: np.ndarray) -> Regions:
    """Finds the 8-connected regions of a mask.

    Args:
      mask: [H, W] bool (or any type; nonzero is target).

    Returns:
      The regions in raster order; all arrays are empty along K where the mask is.

    Raises:
      ValueError: if the mask is not two-dimensional.
    """
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask must be [H, W], got shape {mask.shape}")
    labels, count = ndimage.label(mask, structure=np.ones((3, 3), np.int8))
    labels = labels.astype(np.int32, copy=False)
    y, x = np.nonzero(labels)
    index = labels[y, x] - 1
    areas = np.bincount(index, minlength=count)
    sums = np.stack([np.bincount(index, weights=axis, minlength=count) for axis in (x, y)], axis=1)
    slices = ndimage.find_objects(labels)
    boxes = [(column.start, row.start, column.stop, row.stop) for row, column in slices]
    return Regions(
        labels=labels,
        centroids=sums / np.maximum(areas, 1)[:, None],
        areas=areas.astype(np.int64),
        boxes=np.array(boxes, np.int64).reshape(count, 4),
    )


def points_from_mask(mask: np.ndarray) -> np.ndarray:
    """Target centroids of a mask [H, W]: [K, 2] float32 (x, y) in pixels, in raster order of their regions."""
    return find_regions(mask).centroids.astype(np.float32)
