"""Connected regions as the metrics use them: pixels, centroids and areas."""

from __future__ import annotations

import dataclasses

import numpy as np

from irjax.ops.regions import find_regions


@dataclasses.dataclass(frozen=True)
class Blobs:
    """The K regions of one mask, which have N pixels in total.

    Attributes:
      points: [K, 2] float64, centroids (x, y) in pixels.
      areas: [K] int64 in pixels.
      index: [N] int64, indices of the pixels in the flattened image.
      owner: [N] int64, index of the region that each pixel belongs to.
    """

    points: np.ndarray
    areas: np.ndarray
    index: np.ndarray
    owner: np.ndarray

    def __len__(self) -> int:
        return len(self.areas)

    def only(self, kept: np.ndarray) -> Blobs:
        """Returns the regions that are True in `kept`, [K] bool."""
        inside = kept[self.owner]
        number = np.cumsum(kept) - 1
        return Blobs(self.points[kept], self.areas[kept], self.index[inside], number[self.owner[inside]])

    def peaks(self, scores: np.ndarray) -> np.ndarray:
        """Returns the maximum of `scores` [H, W] over each region: [K], in the dtype of `scores`."""
        highest = np.full(len(self), -np.inf, scores.dtype)
        np.maximum.at(highest, self.owner, scores.reshape(-1)[self.index])
        return highest


def find_blobs(mask: np.ndarray, connectivity: int, weights: np.ndarray | None = None) -> Blobs:
    """Finds the connected regions of a mask, in raster order.

    Args:
      mask: [H, W] bool.
      connectivity: 8 or 4.
      weights: [H, W], weights of the pixels in the centroids, positive wherever the mask is True; None weights all
        pixels equally.

    Returns:
      The regions.
    """
    regions = find_regions(mask, connectivity)
    index = np.flatnonzero(mask)
    owner = regions.labels.reshape(-1)[index].astype(np.int64) - 1
    points = regions.centroids
    if weights is not None and len(regions):
        y, x = np.divmod(index, mask.shape[1])
        weight = weights.reshape(-1)[index].astype(np.float64)
        sums = [np.bincount(owner, weight * axis, len(regions)) for axis in (x, y)]
        points = np.stack(sums, axis=1) / np.bincount(owner, weight, len(regions))[:, None]
    return Blobs(points, regions.areas, index, owner)


def equal_level_blobs(levels: np.ndarray, connectivity: int) -> Blobs:
    """Finds the regions of equal level above 0 in [H, W] uint8, in raster order of their first pixels."""
    parts = [find_blobs(levels == level, connectivity) for level in np.unique(levels[levels > 0])]
    if not parts:
        return find_blobs(levels > 0, connectivity)
    shift = np.cumsum([0, *(len(part) for part in parts)])
    index = np.concatenate([part.index for part in parts])
    owner = np.concatenate([part.owner + start for part, start in zip(parts, shift[:-1], strict=True)])
    first = np.full(shift[-1], levels.size)
    np.minimum.at(first, owner, index)
    order = np.argsort(first)
    return Blobs(
        np.concatenate([part.points for part in parts])[order],
        np.concatenate([part.areas for part in parts])[order],
        index,
        np.argsort(order)[owner],
    )
