"""Upsampling with aligned corners, as PyTorch's ``Upsample(align_corners=True)``; `jax.image.resize` has none.

Output pixel j of m samples the input at j (n - 1) / (m - 1), so that the corner pixels keep their values.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def upsample_aligned(x: jax.Array, factor: int) -> jax.Array:
    """Bilinear upsampling with aligned corners.

    Args:
      x: [B, H, W, C] floating point.
      factor: 1 or more.

    Returns:
      [B, factor H, factor W, C], of the same type.

    Raises:
      ValueError: if the factor is below 1.
    """
    if factor < 1:
        raise ValueError(f"the factor of an upsampling must be at least 1, got {factor}")
    if factor == 1:
        return x
    along = _double if factor == 2 else lambda value, axis: _resample(value, axis, factor)
    return along(along(x, 1), 2)


def _double(x: jax.Array, axis: int) -> jax.Array:
    """Twice as long along an axis, from the pixel itself and its neighbours: no gather, and no scatter in the gradient.

    With 2n samples of n, sample 2k lies k / (2n - 1) before pixel k, and 2k + 1 lies (n - 1 - k) / (2n - 1) after it.
    """
    size = x.shape[axis]
    shape = [1] * x.ndim
    shape[axis] = size
    k = np.arange(size)
    before, after = (jnp.asarray(share.reshape(shape) / max(2 * size - 1, 1), x.dtype) for share in (k, size - 1 - k))
    first, last = jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
    previous = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
    following = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
    even, odd = x + (previous - x) * before, x + (following - x) * after
    return jnp.stack([even, odd], axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def _resample(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """The general case as a product with a matrix; meant for maps of few channels."""
    weights = jnp.asarray(aligned_weights(x.shape[axis], factor * x.shape[axis]), x.dtype)
    return jnp.moveaxis(jnp.tensordot(weights, x, ([1], [axis])), 0, axis)


def aligned_weights(size: int, out: int) -> np.ndarray:
    """The matrix [out, size] float64 of linear interpolation with aligned corners."""
    position = np.arange(out) * ((size - 1) / max(out - 1, 1))
    return np.maximum(1 - np.abs(position[:, None] - np.arange(size)), 0)
