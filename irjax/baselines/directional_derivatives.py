"""Absolute average difference weighted by cumulative directional derivatives (AADCDD).

Source: the formulas of a third-party MATLAB collection; the publication itself was not available.
"""

from __future__ import annotations

import functools
from typing import cast

import jax
import jax.numpy as jnp

from irjax.baselines.common import as_float, box_sum, check_window_sizes, crop, pad_symmetric
from irjax.types import Array


def _average_difference(padded: jax.Array, size: int, outer: int) -> jax.Array:
    """Computes relu(mean inside - mean outside)^2 [B, H, W] from images padded by (outer - 1) / 2."""
    inside = box_sum(crop(padded, (outer - size) // 2), size)
    outside = box_sum(padded, outer) - inside
    return jax.nn.relu(inside / size**2 - outside / (outer**2 - size**2)) ** 2


def _directional_derivative(padded: jax.Array, size: int) -> jax.Array:
    """Computes the smallest summed fall to the right, left, down and up, clipped at 0, [B, H, W].

    The images are padded by (size + 1) / 2.
    """
    beyond = (size + 1) // 2
    height, width = (side - 2 * beyond for side in padded.shape[1:])

    def fall(dy: int, dx: int) -> jax.Array:
        line = [
            padded[:, beyond + k * dy : beyond + k * dy + height, beyond + k * dx : beyond + k * dx + width]
            for k in range(beyond + 1)
        ]
        return cast(jax.Array, sum(pixel - line[-1] for pixel in line[:-1]))

    falls = (fall(dy, dx) for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)))
    return jax.nn.relu(functools.reduce(jnp.minimum, falls))


@functools.partial(jax.jit, static_argnames=("sizes", "outer"))
def aadcdd(images: Array, *, sizes: tuple[int, ...] = (3, 5, 7, 9), outer: int = 19) -> jax.Array:
    """Computes the absolute average difference times the cumulative directional derivative.

    For each size s, D1 is the squared excess of the mean of the s x s square around a pixel x over the mean of the
    outer square without it. With r = (s - 1) / 2, D2 is the minimum over four directions of the sum over k = 0..r of
    I(x + k) - I(x + r + 1), where I(x + k) is the pixel k steps away, or 0 if that is negative: the brightness must
    fall on all sides. The response is the maximum of D1 D2 over the sizes.

    Args:
      images: [B, H, W] uint8, uint16 or floating point in [0, 1]; mirrored at their borders, so they may be smaller
        than the squares.
      sizes: sides s in px, odd and below `outer`. Static.
      outer: side of the outer square in px, odd. Static.

    Returns:
      [B, H, W] float32, non-negative, in cubes of the full scale: a factor on the image is cubed; adding a constant to
      the image changes nothing.

    Raises:
      UserError: if the images have another rank or dtype, or an option is out of range.

    Note:
      irjax's choice where the formulas are open: the four directions are right, left, down and up, so that a line in
      the image, which falls off on only two sides, is rejected if it runs along an axis.
    """
    check_window_sizes("outer", (outer,), 3)
    check_window_sizes("sizes", sizes, 1, outer)
    values, full_scale = as_float(images)
    padded = pad_symmetric(values, outer // 2)
    products = (
        _average_difference(padded, size, outer) * _directional_derivative(crop(padded, (outer - size) // 2 - 1), size)
        for size in sizes
    )
    return functools.reduce(jnp.maximum, products) / full_scale**3
