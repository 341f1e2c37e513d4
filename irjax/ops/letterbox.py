"""Letterboxing: mapping an image of any size to a square canvas, and points to the canvas and back.

The image [H, W] is scaled by r = min(S/H, S/W), centred, and surrounded by zeros; with ``enlarge=False`` r is at most
1, and an image that fits is copied as it is. Interpolation is bilinear, without antialiasing, and sees zeros outside
the image, so it is a product with two small matrices: ``canvas = rows @ image @ cols.T``. Inside jit it is computed as
those products; on the host it uses that each row of the matrices has at most two nonzero entries.

Source: SPIRE (arXiv 2604.05363) states the canvas; the affine map is that of its published evaluation code.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import UserError
from irjax.ops.resize import linear_weights
from irjax.types import Array


def letterbox_affine(height: int, width: int, size: int, enlarge: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns the map from image to canvas pixels: ``canvas_xy = image_xy * scale + offset``.

    It maps the pixel centres (0, 0), (W-1, 0), (0, H-1) to (pw, ph), (S-pw-1, ph), (pw, S-ph-1). Without scaling pw and
    ph are integers, so that pixels fall on pixels.

    Args:
      height: H in pixels, at least 2.
      width: W in pixels, at least 2.
      size: side S of the square canvas in pixels.
      enlarge: whether to scale smaller images up to the canvas.

    Returns:
      scale [2] and offset [2], float64, for (x, y).

    Raises:
      UserError: if a side is below 2 pixels.
    """
    if min(height, width, size) < 2:
        raise UserError(f"letterboxing needs sides of at least 2 pixels, got image {height}x{width}, canvas {size}")
    extent = np.array([width, height], np.float64)
    ratio = size / extent.max()
    if ratio >= 1 and not enlarge:
        return np.ones(2), (size - extent) // 2
    offset = (size - extent * ratio) / 2
    scale = (extent * ratio - 1) / (extent - 1)
    return scale, offset


def to_canvas(points: Array, height: int, width: int, size: int, enlarge: bool = True) -> Array:
    """Converts image points [..., 2] (x, y) to canvas pixels; numpy in, numpy out, JAX in, JAX out."""
    scale, offset = letterbox_affine(height, width, size, enlarge)
    return points * scale.astype(np.float32) + offset.astype(np.float32)


def from_canvas(points: Array, height: int, width: int, size: int, enlarge: bool = True) -> Array:
    """Converts canvas points [..., 2] (x, y) to pixels of the original image."""
    scale, offset = letterbox_affine(height, width, size, enlarge)
    return (points - offset.astype(np.float32)) / scale.astype(np.float32)


def letterbox_extent(height: int, width: int, size: int, enlarge: bool = True) -> np.ndarray:
    """Returns the part of the canvas that the image affects; the rest is margin, whatever the values of the image.

    Returns:
      [4] int32: the first and last column and row, (left, top, right, bottom), all inclusive.
    """
    scale, offset = letterbox_affine(height, width, size, enlarge)
    # Interpolation fades to zero one image pixel outside the image, at its coordinates -1 and W or H.
    first = np.maximum(np.floor(offset - scale) + 1, 0)
    last = np.minimum(np.ceil(offset + scale * (width, height)) - 1, size - 1)
    return np.concatenate([first, last]).astype(np.int32)


@functools.lru_cache(maxsize=512)
def _axis_weights(length: int, size: int, scale: float, offset: float) -> np.ndarray:
    """Returns bilinear weights [size, length] float32 along one axis; zeros lie outside the image."""
    source = (np.arange(size) - offset) / scale
    return linear_weights(source, length).astype(np.float32)


def letterbox_weights(height: int, width: int, size: int, enlarge: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two interpolation matrices: rows [S, H] and cols [S, W], float32."""
    scale, offset = letterbox_affine(height, width, size, enlarge)
    rows = _axis_weights(height, size, float(scale[1]), float(offset[1]))
    cols = _axis_weights(width, size, float(scale[0]), float(offset[0]))
    return rows, cols


def letterbox(images: jax.Array, size: int, enlarge: bool = True) -> jax.Array:
    """Letterboxes float images inside jit.

    Args:
      images: [..., H, W] float32; H and W are static.
      size: side S of the canvas in pixels.
      enlarge: as in `letterbox_affine`.

    Returns:
      [..., S, S] float32.
    """
    rows, cols = letterbox_weights(images.shape[-2], images.shape[-1], size, enlarge)
    if rows.shape == (size, size) and cols.shape == (size, size) and np.array_equal(rows, np.eye(size)):
        return images if np.array_equal(cols, np.eye(size)) else jnp.einsum("...hw,tw->...ht", images, cols)
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("sh,...hw,tw->...st", rows, images, cols, precision=highest)


def unletterbox(canvases: jax.Array, height: int, width: int, enlarge: bool = True) -> jax.Array:
    """Resamples the image's part of canvases to the image's size, bilinearly, inside jit; reverses `letterbox`.

    Args:
      canvases: [..., S, S] float32, such as predicted probabilities.
      height: H in pixels, static.
      width: W in pixels, static.
      enlarge: as in `letterbox_affine`.

    Returns:
      [..., H, W] float32.
    """
    size = canvases.shape[-1]
    scale, offset = letterbox_affine(height, width, size, enlarge)
    if (height, width) == (size, size):
        return canvases
    rows, cols = (
        _axis_weights(size, length, float(1 / scale[axis]), float(-offset[axis] / scale[axis]))
        for length, axis in ((height, 1), (width, 0))
    )
    return jnp.einsum("hs,...st,wt->...hw", rows, canvases, cols, precision=jax.lax.Precision.HIGHEST)


def unletterbox_host(canvas: np.ndarray, height: int, width: int, enlarge: bool = True) -> np.ndarray:
    """Applies `unletterbox` to one float canvas [S, S] on the host: [H, W] float32."""
    scale, offset = letterbox_affine(height, width, len(canvas), enlarge)
    canvas = _resample_axis(canvas.astype(np.float32), height, 1 / scale[1], -offset[1] / scale[1], axis=0)
    return _resample_axis(canvas, width, 1 / scale[0], -offset[0] / scale[0], axis=1)


def _resample_axis(image: np.ndarray, size: int, scale: float, offset: float, axis: int) -> np.ndarray:
    """Multiplies by `_axis_weights` along one axis, using only the two nonzero taps."""
    length = image.shape[axis]
    source = (np.arange(size) - offset) / scale
    low = np.floor(source).astype(np.int64)
    shape = (-1, 1) if axis == 0 else (1, -1)

    def tap(index: np.ndarray) -> np.ndarray:
        weight = np.maximum(0.0, 1.0 - np.abs(source - index)) * ((index >= 0) & (index < length))
        return np.take(image, np.clip(index, 0, length - 1), axis=axis) * weight.astype(np.float32).reshape(shape)

    return tap(low) + tap(low + 1)


def letterbox_host(image: np.ndarray, size: int, enlarge: bool = True) -> np.ndarray:
    """Letterboxes one image on the host, in its own dtype.

    Args:
      image: [H, W] uint8, uint16, bool or float32.
      size: side S of the canvas in pixels.
      enlarge: as in `letterbox_affine`.

    Returns:
      [S, S] of the same dtype; integers are rounded to nearest, masks are True from one half.
    """
    height, width = image.shape
    scale, offset = letterbox_affine(height, width, size, enlarge)
    canvas = _resample_axis(image.astype(np.float32), size, scale[1], offset[1], axis=0)
    canvas = _resample_axis(canvas, size, scale[0], offset[0], axis=1)
    if image.dtype == np.bool_:
        return canvas >= 0.5
    if np.issubdtype(image.dtype, np.integer):
        return np.clip(np.rint(canvas), 0, np.iinfo(image.dtype).max).astype(image.dtype)
    return canvas
