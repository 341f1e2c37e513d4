"""Sliding windows: splitting a large image into overlapping squares of the network's size, and joining their maps.

The windows form a grid, so joining proceeds along one axis after the other. Where windows overlap, their maps are
averaged with weights that fall linearly to the border of each window, where the network has the least context.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from irjax.errors import UserError
from irjax.ops.letterbox import unletterbox_host
from irjax.types import Array


def overlap_of(size: int) -> int:
    """Returns irjax's least overlap of neighbouring windows of this side, both in pixels: a quarter."""
    return size // 4


def check_slide(slide: bool, enlarge: bool, prefix: str = "") -> None:
    """Checks that sliding windows, which keep an image's resolution, are not combined with enlarging smaller images.

    Raises:
      UserError: if both are on; `prefix` precedes their names.
    """
    if slide and enlarge:
        raise UserError(f"{prefix}slide keeps the images' resolution: it needs {prefix}enlarge off")


def window_starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    """Returns the first pixels of the fewest windows that cover an axis, evenly spaced.

    Args:
      length: length of the axis in pixels.
      size: side S of a window in pixels.
      overlap: least overlap of neighbours in pixels, 0 to S - 1.

    Returns:
      From 0 to ``length - size``; ``(0,)`` where one window covers the axis.

    Raises:
      UserError: if the overlap is out of range.
    """
    if not 0 <= overlap < size:
        raise UserError(f"the overlap of windows of {size} pixels must be in 0..{size - 1}, got {overlap}")
    if length <= size:
        return (0,)
    count = -(-(length - overlap) // (size - overlap))
    return tuple(round(i * (length - size) / (count - 1)) for i in range(count))


def _grid(height: int, width: int, size: int, overlap: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return window_starts(height, size, overlap), window_starts(width, size, overlap)


def window_origins(height: int, width: int, size: int, overlap: int, step: int = 1) -> np.ndarray:
    """Returns the position of each window's first pixel in the image.

    Returns:
      [n, 2] int64 (x, y), in the order of `cut_windows`; negative where the image is smaller than a window.
    """
    height, width, size, overlap = (-(-height // step), -(-width // step), size // step, overlap // step)
    rows, cols = _grid(height, width, size, overlap)
    top, left = _margins(height, size)[0], _margins(width, size)[0]
    return step * np.array([(x - left, y - top) for y in rows for x in cols])


def _margins(length: int, size: int) -> tuple[int, int]:
    """Returns the padding of a side shorter than a window, placing the image as `irjax.ops.letterbox` does."""
    missing = max(size - length, 0)
    return missing // 2, missing - missing // 2


def in_window(points: Array, size: int) -> Array:
    """Tests which points [..., 2] (x, y), in pixels of a window of this side, have their pixel in it: [...] bool."""
    return ((points >= -0.5) & (points < size - 0.5)).all(axis=-1)


def widen(image: Array, size: int, step: int = 1) -> Array:
    """Pads an image, centred, with its mirror images where a side is shorter than a window: at least [..., S, S].

    Sides become multiples of `step`, and so does the margin on the left and above.
    """
    xp = np if isinstance(image, np.ndarray) else jnp
    margins = [(0, 0)] * (image.ndim - 2)
    for length in image.shape[-2:]:
        cells = -(-length // step)
        before, after = _margins(cells, size // step)
        margins.append((step * before, step * (after + cells) - length))
    return xp.pad(image, margins, mode="symmetric")


def cut_windows(image: Array, size: int, overlap: int, step: int = 1) -> Array:
    """Cuts an image into windows, in row-major order.

    Args:
      image: [..., H, W]; numpy in, numpy out, JAX in, JAX out.
      size: side S of a window in pixels. A shorter side of the image is padded on both ends with its mirror image,
        because empty margins disturb a network that pools over its whole input (channel attention).
      overlap: least overlap of neighbours in pixels.
      step: windows begin at multiples of it; divides S and the overlap. With the stride of a heatmap, the heatmaps of
        the windows are the windows of the image's heatmap, [..., ceil(H / step), ceil(W / step)].

    Returns:
      [n, ..., S, S] of the same dtype.
    """
    xp = np if isinstance(image, np.ndarray) else jnp
    height, width = image.shape[-2:]
    origins = np.maximum(window_origins(height, width, size, overlap, step), 0)
    image = widen(image, size, step)
    return xp.stack([image[..., y : y + size, x : x + size] for x, y in origins])


def join_windows(maps: Array, height: int, width: int, overlap: int) -> Array:
    """Joins maps of windows; the inverse of `cut_windows`.

    Args:
      maps: [n, ..., S, S] floating point, in the order of `cut_windows`; numpy in, numpy out, JAX in, JAX out.
      height: H of the image in pixels; of heatmaps, everything is in cells.
      width: W of the image in pixels.
      overlap: the overlap with which they were cut.

    Returns:
      [..., H, W].

    Raises:
      UserError: if the number of windows is not that of such an image.
    """
    size = maps.shape[-1]
    rows, cols = _grid(height, width, size, overlap)
    if len(maps) != len(rows) * len(cols):
        raise UserError(
            f"an image of {height}x{width} has {len(rows)}x{len(cols)} windows of {size} pixels, got {len(maps)}"
        )
    lines = [
        _join(maps[i * len(cols) : (i + 1) * len(cols)], cols, max(width, size), axis=-1) for i in range(len(rows))
    ]
    whole = _join(lines, rows, max(height, size), axis=-2)
    top, left = _margins(height, size)[0], _margins(width, size)[0]
    return whole[..., top : top + height, left : left + width]


def window_ramp(size: int) -> np.ndarray:
    """Returns the weights [size] float32 of a window along one axis, which fall linearly to its borders."""
    return np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)


def _join(maps: Sequence[Array], starts: Sequence[int], length: int, axis: int) -> Array:
    """Joins windows along one axis, averaging them where they overlap."""
    if len(starts) == 1:
        return maps[0]
    xp = np if isinstance(maps[0], np.ndarray) else jnp
    size = maps[0].shape[axis]
    ramp = window_ramp(size)
    total = np.zeros(length, np.float32)
    for start in starts:
        total[start : start + size] += ramp
    joined = 0
    for one, start in zip(maps, starts, strict=True):
        weight = ramp / total[start : start + size]
        pads = [(0, 0)] * one.ndim
        pads[axis] = (start, length - size - start)
        joined = joined + xp.pad(one * weight.reshape((-1, 1) if axis == -2 else (-1,)), pads)
    return joined


def restore_map(maps: np.ndarray, height: int, width: int, *, enlarge: bool, slide: bool) -> np.ndarray:
    """Restores the map of one image at its own size from the maps of its canvas or windows.

    Args:
      maps: [n, S, S] floating point: one canvas, or all windows with `slide`.
      height: H of the image in pixels.
      width: W of the image in pixels.
      enlarge: whether smaller images were scaled up to the canvas.
      slide: whether the maps are those of windows (with `overlap_of` their size) rather than of one canvas.

    Returns:
      [H, W] float32. Interpolation, and averaging where windows overlap, can exceed the range of the maps by rounding.

    Raises:
      UserError: if the number of maps is not that of such an image.
    """
    if slide:
        return join_windows(maps.astype(np.float32), height, width, overlap_of(maps.shape[-1]))
    return unletterbox_host(maps[0], height, width, enlarge)
