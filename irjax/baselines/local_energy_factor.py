"""Local energy factor (LEF): how much a pixel's cell differs from its surroundings in structure and brightness.

Source: the formulas of a third-party MATLAB collection; the publication itself was not available.
"""

from __future__ import annotations

import functools
from typing import cast

import jax
import jax.numpy as jnp

from irjax.baselines.common import as_float, box_sum, check_window_sizes, crop, pad_symmetric
from irjax.errors import UserError
from irjax.types import Array


def _energy_factor(padded: jax.Array, size: int) -> jax.Array:
    """Computes (Var_9 - Var_8) / Var_9 [B, H, W] of 3x3 cells, from images padded by (3 size - 1) / 2."""
    height, width = (side - 2 * size for side in padded.shape[1:])
    centre = crop(padded, size)
    # The central block is subtracted, so that equal blocks give exactly 0 in spite of rounding.
    around = [
        padded[:, y : y + height, x : x + width] - centre
        for y in (0, size, 2 * size)
        for x in (0, size, 2 * size)
        if (y, x) != (size, size)
    ]
    mean = cast(jax.Array, sum(around)) / 8
    squares_8 = box_sum(cast(jax.Array, sum((block - mean) ** 2 for block in around)), size)
    squares_9 = squares_8 + box_sum(mean**2, size) * (8 / 9)
    changes = squares_9 > 0
    return jnp.where(changes, 1 - (squares_8 / 8) / (jnp.where(changes, squares_9, 1) / 9), 0)


def _difference(padded: jax.Array, size: int) -> jax.Array:
    """Computes each pixel minus the mean of the square of side 3 size without its middle cell, [B, H, W].

    The images are padded by (3 size - 1) / 2.
    """
    ring = box_sum(padded, 3 * size) - box_sum(crop(padded, size), size)
    return crop(padded, (3 * size - 1) // 2) - ring / (8 * size**2)


def _normalise(maps: jax.Array) -> jax.Array:
    """Scales [S, B, H, W] to 0..1 over all sizes and pixels of each image; 0 where all are equal."""
    low = maps.min(axis=(0, 2, 3), keepdims=True)
    spread = maps.max(axis=(0, 2, 3), keepdims=True) - low
    return jnp.where(spread > 0, (maps - low) / jnp.where(spread > 0, spread, 1), 0)


@functools.partial(jax.jit, static_argnames=("sizes", "alpha", "bandwidth"))
def lef(
    images: Array, *, sizes: tuple[int, ...] = (1, 3, 5, 7, 9), alpha: float = 0.5, bandwidth: float = 0.2
) -> jax.Array:
    """Computes the response of the local energy factor.

    For each size s, nine cells of s x s pixels lie around a pixel in three rows of three. Var_n is the variance across
    n of them of the pixels at the same place in each, summed over the places: Var_9 of all cells, Var_8 of all but the
    middle one. LEF = (Var_9 - Var_8) / Var_9, or 0 where both are 0; D is the pixel minus the mean of the eight outer
    cells. Both are scaled to 0..1 by their extremes over all sizes and pixels of the image, and the response is the
    maximum over the sizes of exp(-(alpha (LEF - 1)^2 + (1 - alpha) (D - 1)^2) / (2 bandwidth^2)).

    Args:
      images: [B, H, W] uint8, uint16 or floating point in [0, 1]; mirrored at their borders, so they may be smaller
        than the cells.
      sizes: sides s in px, odd. Static.
      alpha: weight of structure against brightness, 0 to 1. Static.
      bandwidth: h, positive; smaller values separate high responses more. Static.

    Returns:
      [B, H, W] float32 in 0..1, without unit. A positive factor on an image or a constant added to it changes nothing.

    Raises:
      UserError: if the images have another rank or dtype, or an option is out of range.

    Note:
      irjax's choice where the formulas are open: the largest of the published P = 9 sizes is 9; variances are divided
      by n, which only matters beside places where both are 0, as another divisor cancels in the scaling to 0..1; a
      constant image has response 0.
    """
    check_window_sizes("sizes", sizes, 1)
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha must be in 0..1, got {alpha}")
    if bandwidth <= 0:
        raise UserError(f"bandwidth must be positive, got {bandwidth}")
    values, _ = as_float(images)
    padded = pad_symmetric(values, (3 * max(sizes) - 1) // 2)
    cut = [(crop(padded, 3 * (max(sizes) - size) // 2), size) for size in sizes]
    factor = _normalise(jnp.stack([_energy_factor(*each) for each in cut]))
    difference = _normalise(jnp.stack([_difference(*each) for each in cut]))
    distance = alpha * (factor - 1) ** 2 + (1 - alpha) * (difference - 1) ** 2
    response = jnp.exp(-distance.min(axis=0) / (2 * bandwidth**2))
    # Otherwise rounding errors of the means would count as contrast.
    flat = values.max(axis=(1, 2), keepdims=True) == values.min(axis=(1, 2), keepdims=True)
    return jnp.where(flat, 0, response)
