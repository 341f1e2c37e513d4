"""Bounding boxes of targets: (x_min, y_min, x_max, y_max) in pixels, upper edges exclusive."""

from __future__ import annotations

import os

import numpy as np

from irjax.errors import UserError


def box_centres(boxes: np.ndarray) -> np.ndarray:
    """Returns the centres (x, y) [K, 2] float32 of boxes [K, 4]; pixel centres are at integer coordinates."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return ((boxes[:, :2] + boxes[:, 2:] - 1) / 2).astype(np.float32)


def checked_boxes(
    boxes: np.ndarray, size: tuple[int, int], where: str | os.PathLike, tolerance: float = 0.01
) -> np.ndarray:
    """Checks that boxes lie in an image, and returns them clipped to it.

    Args:
      boxes: [K, 4] (x_min, y_min, x_max, y_max) in pixels, upper edges exclusive.
      size: (height, width) of the image.
      where: path of the file, for error messages.
      tolerance: in pixels: an edge may lie this far outside, because printed decimals are rounded; it is then clipped.

    Raises:
      UserError: if a box is empty or outside the image; the message names the file.
    """
    height, width = size
    boxes = np.asarray(boxes).reshape(-1, 4)
    limits = np.array([width, height, width, height])
    with np.errstate(invalid="ignore"):
        good = np.all((boxes >= -tolerance) & (boxes <= limits + tolerance), axis=1)
        good &= np.all(boxes[:, :2] < boxes[:, 2:], axis=1)
    if not good.all():
        edges = ", ".join(f"{edge:g}" for edge in boxes[np.argmin(good)])
        raise UserError(
            f"{os.fspath(where)}: the box ({edges}) is empty or outside the image of {width}x{height} pixels"
        )
    return np.clip(boxes, 0, limits)
