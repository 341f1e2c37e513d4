"""White top-hat filter: structures brighter than their surroundings and smaller than the structuring square."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from irjax.baselines.common import as_float
from irjax.errors import UserError
from irjax.types import Array


def _slide(images: jax.Array, size: int, *, largest: bool) -> jax.Array:
    """Computes the minimum or maximum over a size x size square around each pixel, [B, H, W] to the same shape.

    The square is separated into a column and a row. Outside the image lies the neutral value of the operation, which is
    equivalent to mirroring the image at its border: a mirrored pixel always lies inside the clipped window as well.
    """
    start, step = (-jnp.inf, jax.lax.max) if largest else (jnp.inf, jax.lax.min)
    for window in ((1, size, 1), (1, 1, size)):
        images = jax.lax.reduce_window(images, start, step, window, (1, 1, 1), "SAME")
    return images


@functools.partial(jax.jit, static_argnames=("size",))
def tophat(images: Array, *, size: int = 5) -> jax.Array:
    """Computes the white top-hat filter, I - open(I), with a flat square structuring element.

    Args:
      images: [B, H, W] uint8, uint16 or floating point in [0, 1].
      size: side of the square in px, odd; structures into which it fits vanish. Static.

    Returns:
      [B, H, W] float32, non-negative, in fractions of the full scale.

    Raises:
      UserError: if the images have another rank or dtype, or the size is even or below 3.
    """
    if size < 3 or size % 2 == 0:
        raise UserError(f"size must be odd and at least 3, got {size}")
    values, full_scale = as_float(images)
    opened = _slide(_slide(values, size, largest=False), size, largest=True)
    return (values - opened) / full_scale
