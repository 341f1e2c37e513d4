"""Targets of a probability map inside jit: connected regions, their centroids and scores.

`irjax.ops.regions` does the same on the host for any number of regions. Here the number is fixed, so that the
detections of a segmentation network are arrays of one shape.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from irjax.errors import UserError
from irjax.types import Detections


# Both functions are jitted, because a loop outside of jit is compiled again in every call.
@jax.jit
def label_components(mask: jax.Array) -> jax.Array:
    """Labels the 8-connected regions of masks.

    Every pixel starts with its own number and takes the maximum of its 3x3 neighbourhood until nothing changes. This
    takes about as many iterations as the longest path through a region has pixels, a few dozen for small targets.

    Args:
      mask: [B, H, W] bool.

    Returns:
      [B, H, W] int32: a positive label, the same on all pixels of a region and different for each region; 0 outside.
      The label is 1 + the index of the region's last pixel in raster order.
    """
    height, width = mask.shape[-2:]
    own = jnp.arange(1, height * width + 1, dtype=jnp.int32).reshape(height, width)

    def spread(labels: jax.Array) -> jax.Array:
        padded = jnp.pad(labels, ((0, 0), (1, 1), (1, 1)))
        rows = jnp.maximum(jnp.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
        around = jnp.maximum(jnp.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])
        return jnp.where(mask, around, 0)

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        labels = state[0]
        spreaded = spread(labels)
        return spreaded, jnp.any(spreaded != labels)

    return lax.while_loop(lambda state: state[1], step, (jnp.where(mask, own, 0), jnp.any(mask)))[0]


@functools.partial(jax.jit, static_argnames="max_detections")
def decode_mask(probabilities: jax.Array, *, threshold: jax.Array | float, max_detections: int) -> Detections:
    """Decodes the regions of p > threshold into detections; pure and jit-able.

    Args:
      probabilities: [B, H, W] float in [0, 1].
      threshold: threshold of the pixels; p equal to it is background. May be traced.
      max_detections: N, static; if there are more regions, those with the highest scores are kept.

    Returns:
      Detections: points [B, N, 2] float32, the unweighted centroids of the 8-connected regions; scores [B, N], the
      highest probability of each region, differentiable; valid [B, N]; masks, the probabilities.

    Raises:
      UserError: if the probabilities are not [B, H, W], or N is not in 1..H W.
    """
    if probabilities.ndim != 3:
        raise UserError(f"probabilities must be [B, H, W], got shape {probabilities.shape}")
    batch, height, width = probabilities.shape
    pixels = height * width
    if not 1 <= max_detections <= pixels:
        raise UserError(f"max_detections must be in 1..{pixels}, got {max_detections}")
    fixed = lax.stop_gradient(probabilities)
    labels = label_components(fixed > threshold).reshape(batch, pixels)
    measured = jax.vmap(lambda p, k: _measure(p, k, width, max_detections))(fixed.reshape(batch, pixels), labels)
    points, scores, valid, place = measured
    at_peak = jnp.take_along_axis(probabilities.reshape(batch, pixels), place, axis=1)
    scores = scores + (at_peak - lax.stop_gradient(at_peak))  # the exact value, with the gradient of the peak
    return Detections(
        points=jnp.where(valid[..., None], points, 0.0).astype(jnp.float32),
        scores=jnp.where(valid, scores, 0.0).astype(jnp.float32),
        valid=valid,
        masks=probabilities,
    )


def _measure(
    p: jax.Array, labels: jax.Array, width: int, number: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns points [N, 2], scores [N], valid [N] and peak pixels [N] of an image's regions from p, labels [H W]."""
    pixels = p.shape[0]  # may be symbolic
    index = jnp.arange(pixels)
    peaks = jnp.full(pixels + 1, -1.0, p.dtype).at[labels].max(p)
    # The root of a region is the pixel that gave it its label.
    top, root = lax.top_k(jnp.where(labels == index + 1, peaks[1:], -1.0), number)
    each = jnp.stack([jnp.ones_like(index), index % width, index // width], axis=1)
    sums = jnp.zeros((pixels + 1, 3), each.dtype).at[labels].add(each)[root + 1]
    # The root is used where no pixel equals the peak because of rounding.
    peak = jnp.full(pixels + 1, -1).at[labels].max(jnp.where(p == peaks[labels], index, -1))[root + 1]
    return sums[:, 1:] / jnp.maximum(sums[:, :1], 1), top, top > -1.0, jnp.where(peak < 0, root, peak)
