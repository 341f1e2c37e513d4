"""Polygons of targets: [N, 2] corners (x, y), in the coordinates of box edges, in which pixel (i, j) covers the square
from (i, j) to (i + 1, j + 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fill_polygons(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Returns the mask of one target that consists of one or several polygons.

    A pixel belongs to a polygon if its centre lies inside (an odd number of edges to its left); the centre on a left or
    upper edge is inside, on a right or lower one outside. So a box of whole pixels is exactly its pixels. A target that
    contains no pixel's centre is the pixel that its middle lies in.

    Args:
      polygons: corners [N, 2] of each polygon, N >= 3; parts outside the image are cut off.
      shape: (H, W) of the mask.

    Returns:
      [H, W] bool with at least one pixel.
    """
    height, width = shape
    mask = np.zeros(shape, np.bool_)
    for corners in polygons:
        corners = np.asarray(corners, np.float64)
        low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, [width, height])
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, [width, height])
        x = np.arange(low[0], high[0]) + 0.5
        y = np.arange(low[1], high[1]) + 0.5
        inside = np.zeros((len(y), len(x)), np.bool_)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            crossed = (y0 <= y) != (y1 <= y)  # horizontal edges are crossed by no row
            crossing = x0 + (y[crossed] - y0) * (x1 - x0) / (y1 - y0) if crossed.any() else np.zeros(0)
            inside[crossed] ^= crossing[:, None] <= x
        mask[low[1] : high[1], low[0] : high[0]] |= inside
    if not mask.any():
        every = np.concatenate([np.asarray(corners, np.float64) for corners in polygons])
        column, row = np.floor((every.min(axis=0) + every.max(axis=0)) / 2).astype(int)
        mask[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)] = True
    return mask


def polygon_box(polygons: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the box [4] (x_min, y_min, x_max, y_max) around the polygons of one target."""
    every = np.concatenate(polygons)
    return np.concatenate([every.min(axis=0), every.max(axis=0)])


def box_polygon(box: np.ndarray) -> np.ndarray:
    """Returns the corners [4, 2] of a box (x_min, y_min, x_max, y_max)."""
    left, top, right, bottom = np.asarray(box, np.float64)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
