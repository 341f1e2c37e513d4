"""Resizing on the host: linear interpolation, padding, and resizing to squares with Pillow."""

from __future__ import annotations

import numpy as np


def linear_weights(positions: np.ndarray, length: int) -> np.ndarray:
    """Returns the matrix [n, length] float64 of linear interpolation at positions [n]; outside counts as zero."""
    return np.maximum(0.0, 1.0 - np.abs(np.asarray(positions)[:, None] - np.arange(length)[None, :]))


def resize_square(values: np.ndarray, side: int) -> np.ndarray:
    """Resizes values [H, W] to [side, side] float32, bilinearly with Pillow, which averages when shrinking."""
    from PIL import Image

    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Resizes a mask [H, W] bool or uint8 to [side, side] of the same dtype, nearest neighbour with Pillow."""
    from PIL import Image

    image = Image.fromarray(mask.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(image).astype(mask.dtype)


def crop_padding(values: np.ndarray, size: tuple[int, int], place: str) -> np.ndarray:
    """Cuts the image out of a map that a program padded.

    Args:
      values: [H, W].
      size: (height, width) of the image. If it does not fit into the map, the program shrunk it until it did; if it
        does, the program is taken to have left it as it was.
      place: "corner" (top left) or "centre", where the image lies in the map.

    Returns:
      A view [h, w] of the map, with the size of the image or, if that was shrunk, with its aspect.
    """
    scale = min(1.0, values.shape[0] / size[0], values.shape[1] / size[1])
    rows, columns = (max(1, round(side * scale)) for side in size)
    top, left = ((values.shape[0] - rows) // 2, (values.shape[1] - columns) // 2) if place == "centre" else (0, 0)
    return values[top : top + rows, left : left + columns]


def same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Returns whether (height, width) differ by one factor only, up to one pixel of `one`."""
    factor = one[0] / other[0], one[1] / other[1]
    return any(abs(one[0] - f * other[0]) <= 1 and abs(one[1] - f * other[1]) <= 1 for f in factor)


def resize_bilinear(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a map bilinearly without antialiasing, with pixel centres at half-integers and edges extended.

    Args:
      values: [H, W]; booleans count as 0 and 1.
      height: new number of rows.
      width: new number of columns.

    Returns:
      [height, width] floating, within the range of `values`.
    """
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float32)
    limits = values.min(), values.max()
    for axis, size in enumerate((height, width)):
        length = values.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
        first = np.minimum(place.astype(int), max(length - 2, 0))
        second = np.minimum(first + 1, length - 1)
        part = (place - first).astype(values.dtype).reshape([-1, 1] if axis == 0 else [1, -1])
        low, high = np.take(values, first, axis), np.take(values, second, axis)
        values = low + (high - low) * part
    return np.clip(values, *limits)  # rounding errors may exceed the limits
