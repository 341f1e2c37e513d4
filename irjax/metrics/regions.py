"""Connected regions of a binary mask: their centroids and areas, in raster order."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.ndimage

_STRUCTURE = {
    4: np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool),
    8: np.ones((3, 3), bool),
}


@dataclasses.dataclass(frozen=True)
class Regions:
    """The connected regions of one mask, numbered by their first pixel in raster order.

    Attributes:
      centroids: [K, 2] float64 (x, y) in pixels, unweighted.
      areas: [K] int64, in pixels.
    """

    centroids: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.areas)


def find_regions(mask: np.ndarray, connectivity: int = 8) -> Regions:
    """Labels a mask and measures its regions.

    Args:
      mask: [H, W] bool.
      connectivity: 8 (pixels that share a corner are one region) or 4.

    Returns:
      Regions, in the order scikit-image numbers them.

    Raises:
      ValueError: if `mask` is not a 2-D boolean array or `connectivity` is neither 4 nor 8.
    """
    if connectivity not in _STRUCTURE:
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    if mask.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"regions need a boolean mask [H, W], got {mask.dtype} {mask.shape}")
    rows, cols = np.nonzero(mask)
    if not rows.size:
        return Regions(np.zeros((0, 2)), np.zeros(0, np.int64))
    # Targets are a handful of pixels, so everything after labelling touches only those.
    top, left = rows[0], cols.min()
    labels, count = scipy.ndimage.label(mask[top : rows[-1] + 1, left : cols.max() + 1], _STRUCTURE[connectivity])
    region = labels[rows - top, cols - left] - 1
    areas = np.bincount(region, minlength=count)
    sums = [np.bincount(region, weights=axis, minlength=count) for axis in (cols, rows)]
    return Regions(np.stack(sums, axis=1) / areas[:, None], areas)
