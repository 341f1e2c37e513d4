"""Connected regions of a target mask, on the host: their centroids, areas and boxes.

Regions are numbered in raster order of their first pixel, and 8-connected where nothing else is said: that is how the
field counts targets.
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


def find_regions(mask: np.ndarray, connectivity: int = 8) -> Regions:
    """Finds the connected regions of a mask.

    Args:
      mask: [H, W] bool (or any type; nonzero is target).
      connectivity: 8 (pixels that share a corner are one region) or 4.

    Returns:
      The regions in raster order, as scikit-image numbers them; all arrays are empty along K where the mask is.

    Raises:
      ValueError: if the mask is not two-dimensional or `connectivity` is neither 4 nor 8.
    """
    from scipy import ndimage

    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask must be [H, W], got shape {mask.shape}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    labels = np.zeros(mask.shape, np.int32)
    y, x = np.nonzero(mask)
    if not y.size:
        return Regions(labels, np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
    # Targets are a handful of pixels, so only the part that holds them is labelled.
    top, left = y[0], x.min()
    part = np.s_[top : y[-1] + 1, left : x.max() + 1]
    structure = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    count = ndimage.label(mask[part], structure, output=labels[part])
    index = labels[y, x] - 1
    areas = np.bincount(index, minlength=count)
    sums = np.stack([np.bincount(index, weights=axis, minlength=count) for axis in (x, y)], axis=1)
    edges = [(column.start, row.start, column.stop, row.stop) for row, column in ndimage.find_objects(labels[part])]
    boxes = np.array(edges, np.int64) + [left, top, left, top]
    return Regions(labels, sums / areas[:, None], areas.astype(np.int64), boxes)


def points_from_mask(mask: np.ndarray) -> np.ndarray:
    """Target centroids of a mask [H, W]: [K, 2] float32 (x, y) in pixels, in raster order of their regions."""
    return find_regions(mask).centroids.astype(np.float32)
