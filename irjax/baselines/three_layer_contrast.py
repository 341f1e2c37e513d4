"""Three-layer local contrast measure (TLLCM): a smoothed pixel against the brightest pixels of the surrounding cells.

Source: the formulas of a third-party MATLAB collection; the publication (Han et al., IEEE Geosci. Remote Sens. Lett.,
2020) was not available. Sizes and the number of pixels are those of Table 1 of ADSNet (doi
10.1109/ACCESS.2024.3373436).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from irjax.baselines.common import as_float, check_window_sizes, crop, pad_symmetric
from irjax.types import Array

_KEPT = 9  # number of brightest pixels of a cell
_DARKEST = 1 / 255  # lower limit of m, as a fraction of the image's brightest pixel


def _binomial(images: jax.Array) -> jax.Array:
    """Filters with the 3x3 kernel of weights (1, 2, 1) / 4 along each axis; [B, H, W] to the same shape."""
    height, width = images.shape[1:]
    padded = pad_symmetric(images, 1)
    weights = (1, 2, 1)
    # Differences from the pixel itself are summed, so that equal pixels keep their exact value.
    changes = sum(
        weights[y] * weights[x] * (padded[:, y : y + height, x : x + width] - images)
        for y in range(3)
        for x in range(3)
        if (y, x) != (1, 1)
    )
    return images + changes / 16


def _mean_of_brightest(padded: jax.Array, size: int) -> jax.Array:
    """Averages the `_KEPT` brightest pixels of each size x size square: [B, H - size + 1, W - size + 1]."""
    height, width = (side - size + 1 for side in padded.shape[1:])
    kept: list[jax.Array] = []
    # Insertion into sorted planes, which XLA fuses into one loop, is far faster than top_k on the CPU.
    for y in range(size):
        for x in range(size):
            pixel = padded[:, y : y + height, x : x + width]
            for rank, brighter in enumerate(kept):
                kept[rank], pixel = jnp.maximum(brighter, pixel), jnp.minimum(brighter, pixel)
            if len(kept) < _KEPT:
                kept.append(pixel)
    return kept[-1] + sum(pixel - kept[-1] for pixel in kept[:-1]) / _KEPT


def _largest(maps: jax.Array, axis: int, count: int, step: int) -> jax.Array:
    """Computes the maximum over `count` places spaced by `step` along an axis, shortened by (count - 1) step."""
    window, dilation = [1, 1, 1], [1, 1, 1]
    window[axis], dilation[axis] = count, step
    return jax.lax.reduce_window(maps, -jnp.inf, jax.lax.max, window, (1, 1, 1), "VALID", window_dilation=dilation)


def _surroundings(padded: jax.Array, size: int) -> jax.Array:
    """Computes the maximum over the eight cells around a pixel of the mean of their brightest pixels.

    Args:
      padded: images padded by (3 size - 1) / 2.
      size: side of the cells in px, odd.

    Returns:
      [B, H, W] float32.
    """
    cells = _mean_of_brightest(padded, size)
    # For a maximum of eight slices XLA would recompute the cells for each slice.
    above_and_below = _largest(_largest(cells, 2, 3, size), 1, 2, 2 * size)
    left_and_right = _largest(cells, 2, 2, 2 * size)[:, size : cells.shape[1] - size]
    return jnp.maximum(above_and_below, left_and_right)


@functools.partial(jax.jit, static_argnames=("sizes",))
def tllcm(images: Array, *, sizes: tuple[int, ...] = (3, 5, 7, 9)) -> jax.Array:
    """Computes the response of the three-layer local contrast measure.

    G is the image under a 3x3 binomial filter. For each size s, eight cells of s x s pixels lie around the cell at a
    pixel, and m is the largest of the means of their nine brightest pixels. The response is the maximum of (G / m - 1)
    G over the sizes, or 0 if that is negative.

    Args:
      images: [B, H, W] uint8, uint16 or floating point in [0, 1]; mirrored at their borders, so they may be smaller
        than the cells.
      sizes: sides s in px, odd, at least 3, the smallest whose cells have nine pixels. Static.

    Returns:
      [B, H, W] float32, non-negative, in fractions of the full scale: proportional to the image, but not invariant to
      an added constant.

    Raises:
      UserError: if the images have another rank or dtype, or a size is out of range.

    Note:
      irjax's choice where the formulas are open: the cells are those of the image before the filter; m is at least
      1/255 of the image's brightest pixel, because the ratio is unbounded beside black cells; a black image has
      response 0. A target a few pixels from the border is mirrored into the cells around it, which removes its
      response.
    """
    check_window_sizes("sizes", sizes, 3)
    values, full_scale = as_float(images)
    smooth = _binomial(values)
    brightest = values.max(axis=(1, 2), keepdims=True)
    padded = pad_symmetric(values, (3 * max(sizes) - 1) // 2)
    cut = ((crop(padded, 3 * (max(sizes) - size) // 2), size) for size in sizes)
    around = functools.reduce(jnp.minimum, (_surroundings(*each) for each in cut))
    around = jnp.maximum(around, jnp.where(brightest > 0, brightest * _DARKEST, 1))
    return jax.nn.relu((smooth - around) / around * smooth) / full_scale
