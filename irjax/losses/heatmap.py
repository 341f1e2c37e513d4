"""Losses on target heatmaps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from irjax.errors import UserError


def heatmap_mse(heatmap: jax.Array, target: jax.Array) -> jax.Array:
    """Computes twice the mean squared error over the map, in float32.

    Args:
      heatmap: [B, H, W] predicted.
      target: [B, H, W] ground truth.

    Returns:
      [B] float32.

    Raises:
      UserError: if the shapes differ.

    Source: SPIRE (arXiv 2604.05363), Section 3.2, says "pixel-wise regression"; the squared error and the factor 2 are
    those of its published code.
    """
    if heatmap.shape != target.shape:
        raise UserError(f"heatmap and target differ in shape: {heatmap.shape} and {target.shape}")
    error = heatmap.astype(jnp.float32) - target.astype(jnp.float32)
    return 2.0 * jnp.mean(error**2, axis=(-2, -1))
