"""Polygons of targets: [N, 2] corners (x, y), in the coordinates of box edges, in which pixel (i, j) covers the square
from (i, j) to (i + 1, j + 1)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from irjax.errors import UserError


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


def polygon_centroid(polygons: Sequence[np.ndarray], shape: tuple[int, int] | None = None) -> tuple[float, float]:
    """Returns the centroid (x, y) of the pixels of one target, by `fill_polygons`; without `shape`, of any image."""
    if shape is None:
        width, height = np.ceil(np.concatenate(polygons).max(axis=0)).astype(int).clip(min=1).tolist()
        shape = height, width
    rows, columns = np.nonzero(fill_polygons(polygons, shape))
    return float(columns.mean()), float(rows.mean())


def mask_polygons(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns rectangles [4, 2] of exactly the pixels of a mask [H, W], holes included; `fill_polygons` undoes it."""
    rows = np.flatnonzero(mask.any(axis=1))
    begun: dict[tuple[int, int], int] = {}  # the run of pixels in a row -> the first row that has it
    boxes = []
    for y in range(rows[0], rows[-1] + 2) if rows.size else ():
        row = mask[y] if y < len(mask) else np.zeros(mask.shape[1], np.bool_)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]]).astype(np.int8))).tolist()
        runs = dict.fromkeys(zip(edges[::2], edges[1::2], strict=True), y)
        boxes += [(run[0], begun.pop(run), run[1], y) for run in list(begun) if run not in runs]
        begun = runs | begun
    return tuple(box_polygon(np.array(box)) for box in boxes)


def checked_polygon(corners: Any, size: tuple[int, int] | None, where: str | os.PathLike) -> np.ndarray:
    """Checks that corners [N, 2] are a polygon in an image, and returns them clipped to it.

    Corners may lie up to a pixel outside, because programs let their users draw to the last pixel and beyond.

    Args:
      corners: x and y of each corner, flat or not.
      size: (height, width) of the image; None if it is not known, and nothing is clipped.
      where: path of the file, for error messages.

    Raises:
      UserError: if there are fewer than three corners, or one is not finite or outside; the message names the file.
    """
    corners = np.array(corners, np.float64).reshape(-1, 2)
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise UserError(f"{os.fspath(where)}: a polygon of three corners or more is wanted, with finite numbers")
    if size is None:
        return corners
    height, width = size
    if (corners < -1).any() or (corners > [width + 1, height + 1]).any():
        raise UserError(f"{os.fspath(where)}: the polygon reaches outside the image of {width}x{height} pixels")
    return np.clip(corners, 0, [width, height])
