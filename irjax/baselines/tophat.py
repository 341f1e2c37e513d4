"""White top-hat filter: what is brighter than its surroundings and does not hold the structuring square."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from irjax.baselines.common import as_float, decode_response
from irjax.errors import UserError
from irjax.types import Array, Detections


def _slide(images: jax.Array, size: int, *, largest: bool) -> jax.Array:
    """Minimum or maximum over a size x size square about each pixel, [B, H, W] to the same shape.

    A square separates into a column and a row. Outside the image stands the operation's neutral value, which gives the
    same as mirroring the image at its border: a mirrored pixel is always inside the cut window as well.
    """
    start, step = (-jnp.inf, jax.lax.max) if largest else (jnp.inf, jax.lax.min)
    for window in ((1, size, 1), (1, 1, size)):
        images = jax.lax.reduce_window(images, start, step, window, (1, 1, 1), "SAME")
    return images


@functools.partial(jax.jit, static_argnames=("size",))
def tophat(images: Array, *, size: int = 5) -> jax.Array:
    """Response of the white top-hat filter, I - open(I), with a flat square structuring element.

    Args:
      images: [B, H, W] uint8, uint16 or floating in [0, 1].
      size: side of the square in px, odd; structures that it fits into vanish. Static.

    Returns:
      [B, H, W] float32, not negative, in fractions of the full scale.

    Raises:
      UserError: images of another rank or type, or a size that is even or below 3.
    """
    if size < 3 or size % 2 == 0:
        raise UserError(f"size must be odd and at least 3, got {size}")
    values, full_scale = as_float(images)
    opened = _slide(_slide(values, size, largest=False), size, largest=True)
    return (values - opened) / full_scale


@functools.partial(jax.jit, static_argnames=("max_detections", "size"))
def tophat_detect(
    images: Array, threshold: Array | float | None = None, max_detections: int = 32, *, size: int = 5
) -> Detections:
    """Detects small targets with the white top-hat filter.

    Args:
      images: [B, H, W] uint8, uint16 or floating in [0, 1].
      threshold: lowest response, exclusive, in fractions of the full scale: a number or [B] numbers. None takes
        mean + 0.5 (max - mean) of each image.
      max_detections: N, static.
      size: side of the structuring square in px, odd. Static.

    Returns:
      Detections in pixels of the images: points [B, N, 2], scores [B, N] (responses), valid [B, N].

    Raises:
      UserError: as `tophat`.
    """
    return decode_response(tophat(images, size=size), threshold, max_detections=max_detections)
