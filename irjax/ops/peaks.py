"""Decoding of heatmaps to points: non-maximum suppression, the N highest peaks, sub-cell refinement.

Source: SPIRE (arXiv 2604.05363), Section 3.4, Eqs. 8-10, as decoded by its published evaluation code; deviations are
listed in `decode_heatmap`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.types import Array, Detections


def _max_pool_3x3(maps: jax.Array) -> jax.Array:
    """Computes the 3x3 maximum, [..., H, W] to the same shape; outside counts as the lowest value."""
    lowest = jnp.array(-jnp.inf if jnp.issubdtype(maps.dtype, jnp.floating) else jnp.iinfo(maps.dtype).min, maps.dtype)
    window = (1,) * (maps.ndim - 2) + (3, 3)
    return jax.lax.reduce_window(maps, lowest, jax.lax.max, window, (1,) * maps.ndim, "SAME")


def _first_of_plateau(heatmap: jax.Array, peak: jax.Array) -> jax.Array:
    """Keeps the raster-first cell of every 8-connected group of peaks; [B, H, W] each, bool out.

    Neighbouring peaks have equal values by definition, so a group is one plateau. Isolated peaks take one iteration.
    """
    height, width = heatmap.shape[-2:]
    order = height * width - jnp.arange(height * width, dtype=jnp.int32).reshape(height, width)
    label = jnp.where(peak, order, 0)

    def spread(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        old, _ = carry
        new = jnp.where(peak, _max_pool_3x3(old), 0)
        return new, jnp.any(new != old)

    label, _ = jax.lax.while_loop(lambda carry: carry[1], spread, (label, jnp.any(peak)))
    return peak & (label == order)


def _refine(heatmap: jax.Array, rows: jax.Array, cols: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sign (-1, 0, 1) of the slope across each peak for x and y; zero within a cell of the border.

    Neighbours of -inf are padding: the border is before them.
    """
    height, width = heatmap.shape[-2:]
    inside = (cols > 1) & (cols < width - 1) & (rows > 1) & (rows < height - 1)
    take = jax.vmap(lambda plane, r, c: plane[jnp.clip(r, 0, height - 1), jnp.clip(c, 0, width - 1)])
    slope_x = take(heatmap, rows, cols + 1) - take(heatmap, rows, cols - 1)
    slope_y = take(heatmap, rows + 1, cols) - take(heatmap, rows - 1, cols)
    inside &= jnp.isfinite(slope_x) & jnp.isfinite(slope_y)
    return jnp.where(inside, jnp.sign(slope_x), 0.0), jnp.where(inside, jnp.sign(slope_y), 0.0)


# Jitted, because the loop over plateaus would be compiled again in every call outside of jit.
@functools.partial(jax.jit, static_argnames=("max_detections", "stride", "refine"))
def decode_heatmap(
    heatmap: Array,
    *,
    threshold: Array | float = 0.35,
    max_detections: int = 32,
    stride: int = 4,
    relative_threshold: float | None = None,
    refine: bool = True,
) -> Detections:
    """Decodes target heatmaps into a fixed number of points.

    A cell is a peak if it equals the maximum of its 3x3 neighbourhood and exceeds `threshold`.

    Args:
      heatmap: [B, H, W] or [H, W] float32, raw network output; cell (u, v) corresponds to pixel (stride u, stride v).
      threshold: lowest score, exclusive; may be traced.
      max_detections: N, static. The published code keeps 8, which limits its recall.
      stride: pixels per cell, static.
      relative_threshold: if given, peaks lower than ``(1 - relative_threshold)`` times the highest are dropped
        (``value_range`` in the published code, absent from the paper).
      refine: move each point by ``1 / stride`` of a cell towards its higher neighbour along each axis. Static.

    Returns:
      Detections in pixels of the image from which the heatmap was computed: points [B, N, 2], scores [B, N], valid [B,
      N], without the batch axis if `heatmap` had none. Scores are differentiable, points are not.

    Raises:
      UserError: if `heatmap` has another rank or `max_detections` is not between 1 and H W.

    Note:
      A plateau of equal values gives one point, its raster-first cell; the published code returns every cell of it.
    """
    heatmap = jnp.asarray(heatmap, jnp.float32)
    if heatmap.ndim == 2:
        single = decode_heatmap(
            heatmap[None],
            threshold=threshold,
            max_detections=max_detections,
            stride=stride,
            relative_threshold=relative_threshold,
            refine=refine,
        )
        return jax.tree.map(lambda x: x[0], single)
    if heatmap.ndim != 3:
        raise UserError(f"heatmap must be [B, H, W] or [H, W], got shape {heatmap.shape}")
    batch, height, width = heatmap.shape
    if not 1 <= max_detections <= height * width:
        cells = height * width
        raise UserError(f"max_detections must be in 1..{cells} for a {height}x{width} heatmap, got {max_detections}")

    fixed = jax.lax.stop_gradient(heatmap)
    peak = (fixed == _max_pool_3x3(fixed)) & (fixed > threshold)
    peak = _first_of_plateau(fixed, peak)
    ranked = jnp.where(peak, fixed, -jnp.inf).reshape(batch, -1)
    top, index = jax.lax.top_k(ranked, max_detections)
    valid = top > -jnp.inf
    if relative_threshold is not None:
        valid &= top >= (1 - relative_threshold) * top[:, :1]
    scores = jnp.take_along_axis(heatmap.reshape(batch, -1), index, axis=1)
    rows, cols = index // width, index % width
    x, y = cols.astype(jnp.float32), rows.astype(jnp.float32)
    if refine:
        shift_x, shift_y = _refine(fixed, rows, cols)
        x, y = x + shift_x / stride, y + shift_y / stride
    points = jnp.stack([x, y], axis=-1) * stride
    return Detections(
        points=jnp.where(valid[..., None], points, 0.0),
        scores=jnp.where(valid, scores, 0.0),
        valid=valid,
    )
