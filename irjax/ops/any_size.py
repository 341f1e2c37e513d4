"""Letterboxing and sliding windows for images whose sides are known only when a compiled program runs.

Exported programs (`jax.export`) have symbolic sides. The functions of `irjax.ops.letterbox` and `irjax.ops.windows`
compute positions on the host, in float64, from numbers; these compute the same positions in the program, from
quotients of integers, so that float32 does not round them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from irjax.ops.windows import window_ramp

Side = Any  # an int, or a symbolic dimension


def _number(side: Side) -> jax.Array:
    return jnp.asarray(side, jnp.int32)


def _weights(terms: Sequence[tuple[jax.Array, Any]], divisor: jax.Array, length: Side) -> jax.Array:
    """Returns the matrix [n, length] of linear interpolation at the sum of the products of int32 terms, over a divisor.

    Products may exceed 32 bits: integers wrap, and the remainder, which is small, is exact nevertheless.
    """
    exact = sum(one * other for one, other in terms)
    about = sum(jnp.asarray(one, jnp.float32) * jnp.asarray(other, jnp.float32) for one, other in terms)
    whole = jnp.floor(about / divisor).astype(jnp.int32)
    rest = exact - whole * divisor
    off = jnp.floor(rest / divisor).astype(jnp.int32)  # of the float quotient, by one at most
    whole, rest = (whole + off)[:, None], rest - off * divisor
    share = (rest / divisor)[:, None]
    index = jnp.arange(length, dtype=jnp.int32)
    return jnp.where(index == whole, 1 - share, 0.0) + jnp.where(index == whole + 1, share, 0.0)


def _to_canvas_weights(length: Side, longest: jax.Array, size: int, enlarge: bool) -> jax.Array:
    """Returns the weights [size, length] along an axis of `irjax.ops.letterbox.letterbox`.

    With E the longest side and e this one, the canvas pixel i is at ``(2 E i - S (E - e)) (e - 1) / (2 (e S - E))``.
    """
    index, side = jnp.arange(size, dtype=jnp.int32), _number(length)
    factor, times = 2 * longest * index - size * (longest - side), side - 1
    divisor = 2 * (side * size - longest)
    if not enlarge:
        copied = longest <= size
        factor = jnp.where(copied, index - (size - side) // 2, factor)
        times, divisor = jnp.where(copied, 1, times), jnp.where(copied, 1, divisor)
    return _weights([(factor, times)], divisor, length)


def _from_canvas_weights(length: Side, longest: jax.Array, size: int, enlarge: bool) -> jax.Array:
    """Returns the weights [length, size] along an axis of `irjax.ops.letterbox.unletterbox`, the inverse map."""
    index, side = jnp.arange(length, dtype=jnp.int32), _number(length)
    one, other = (2 * index, side * size - longest), (size * (longest - side), side - 1)
    divisor = 2 * longest * (side - 1)
    if not enlarge:
        copied = longest <= size
        one = jnp.where(copied, index, one[0]), jnp.where(copied, 1, one[1])
        other = jnp.where(copied, (size - side) // 2, other[0]), jnp.where(copied, 1, other[1])
        divisor = jnp.where(copied, 1, divisor)
    return _weights([one, other], divisor, size)


def _longest(height: Side, width: Side) -> jax.Array:
    return jnp.maximum(_number(height), _number(width))


def letterbox(images: jax.Array, size: int, enlarge: bool = True) -> jax.Array:
    """Does what `irjax.ops.letterbox.letterbox` does: images [..., H, W] float32 to [..., S, S]."""
    height, width = images.shape[-2:]
    rows, cols = (_to_canvas_weights(side, _longest(height, width), size, enlarge) for side in (height, width))
    return jnp.einsum("sh,...hw,tw->...st", rows, images, cols, precision=jax.lax.Precision.HIGHEST)


def unletterbox(canvases: jax.Array, height: Side, width: Side, enlarge: bool = True) -> jax.Array:
    """Does what `irjax.ops.letterbox.unletterbox` does: canvases [..., S, S] float32 to [..., H, W]."""
    size = canvases.shape[-1]
    rows, cols = (_from_canvas_weights(side, _longest(height, width), size, enlarge) for side in (height, width))
    return jnp.einsum("hs,...st,wt->...hw", rows, canvases, cols, precision=jax.lax.Precision.HIGHEST)


def letterbox_affine(height: Side, width: Side, size: int, enlarge: bool = True) -> tuple[jax.Array, jax.Array]:
    """Does what `irjax.ops.letterbox.letterbox_affine` does: scale [2] and offset [2], float32."""
    sides, longest = jnp.stack([_number(width), _number(height)]), _longest(height, width)
    scale = (sides * size - longest) / (longest * (sides - 1))
    offset = size * (longest - sides) / (2 * longest)
    if not enlarge:
        copied = longest <= size
        scale = jnp.where(copied, 1.0, scale)
        offset = jnp.where(copied, ((size - sides) // 2).astype(jnp.float32), offset)
    return scale, offset


def map_windows(
    function: Callable[[jax.Array], jax.Array], images: jax.Array, size: int, overlap: int, step: int = 1
) -> jax.Array:
    """Joins the maps of an image's windows; `irjax.ops.windows.cut_windows`, a function, `join_windows`.

    Args:
      function: maps windows [B, S, S] to [B, S / step, S / step], one window of every image at a time.
      images: [B, H, W] float32.
      size: side S of a window in pixels.
      overlap: least overlap of neighbours in pixels.
      step: pixels per cell of the map; divides S and the overlap.

    Returns:
      [B, ceil(H / step), ceil(W / step)] float32.
    """
    batch, height, width = images.shape
    side, least = size // step, overlap // step
    cells = [-(-length // step) for length in (height, width)]
    counts, missing = zip(*(_grid(_number(length), side, least) for length in cells), strict=True)
    weight = jnp.asarray(np.outer(window_ramp(side), window_ramp(side)))

    def add(index: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        places = (index // counts[1], index % counts[1])
        starts = [
            _start(place, count, _number(length), side) - before
            for place, count, length, before in zip(places, counts, cells, missing, strict=True)
        ]
        rows, cols = (
            _mirrored(step * start + jnp.arange(size), _number(length))
            for start, length in zip(starts, (height, width), strict=True)
        )
        maps = function(images[:, rows][:, :, cols]).astype(jnp.float32)
        # A negative index would count from the end; those past the end are dropped.
        places_in = [start + jnp.arange(side) for start in starts]
        down, across = (jnp.where(i < 0, _number(n), i) for i, n in zip(places_in, cells, strict=True))
        at = (down[:, None], across)
        return (
            sums[0].at[:, *at].add(maps * weight, mode="drop"),
            sums[1].at[at].add(weight, mode="drop"),
        )

    zeros = (jnp.zeros((batch, *cells), jnp.float32), jnp.zeros(cells, jnp.float32))
    total, weights = jax.lax.fori_loop(0, counts[0] * counts[1], add, zeros)
    return total / weights


def _grid(length: jax.Array, size: int, overlap: int) -> tuple[jax.Array, jax.Array]:
    """Returns the number of windows along an axis, and its margin before the image where that is shorter."""
    count = -(-(length - overlap) // (size - overlap))
    return jnp.where(length <= size, 1, count), jnp.maximum(size - length, 0) // 2


def _start(place: jax.Array, count: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """Returns the first pixel of a window as `irjax.ops.windows.window_starts` does: halves are rounded to even."""
    divisor = jnp.maximum(count - 1, 1)
    product = place * jnp.maximum(length - size, 0)
    whole, rest = product // divisor, product % divisor
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (whole % 2 == 1))
    return whole + up


def _mirrored(index: jax.Array, length: jax.Array) -> jax.Array:
    """Returns the pixels of an axis that its mirror images continue to."""
    index = index % (2 * length)
    return jnp.where(index < length, index, 2 * length - 1 - index)
