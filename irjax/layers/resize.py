"""Bilinear upsampling without gather or scatter, with aligned corners and with half-pixel centres.

With aligned corners, as in PyTorch's ``Upsample(align_corners=True)``, output pixel j of m samples the input at
j (n - 1) / (m - 1), so that the corner pixels keep their values. `jax.image.resize` has only half-pixel centres, and
computes them by two matrix products. All values are computed in float32 and rounded once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from irjax.ops.resize import linear_weights


def upsample_aligned(x: jax.Array, factor: int) -> jax.Array:
    """Upsamples bilinearly with aligned corners.

    Args:
      x: [B, H, W, C] floating point.
      factor: at least 1.

    Returns:
      [B, factor H, factor W, C], of the same dtype.

    Raises:
      ValueError: if the factor is below 1.
    """
    if factor < 1:
        raise ValueError(f"the factor of an upsampling must be at least 1, got {factor}")
    if factor == 1:
        return x
    along = _double if factor == 2 else lambda value, axis: _resample(value, axis, factor)
    return along(along(x.astype(jnp.float32), 1), 2).astype(x.dtype)


def _double(x: jax.Array, axis: int) -> jax.Array:
    """Doubles the length of an axis from each pixel and its neighbours, without gather or, in the gradient, scatter.

    With 2n samples of n, sample 2k lies k / (2n - 1) before pixel k, and 2k + 1 lies (n - 1 - k) / (2n - 1) after it.
    """
    size = x.shape[axis]
    shape = [1] * x.ndim
    shape[axis] = size
    k = np.arange(size)
    before, after = ((share.reshape(shape) / max(2 * size - 1, 1)).astype(np.float32) for share in (k, size - 1 - k))
    return _interleave(x, axis, before, after)


def _interleave(x: jax.Array, axis: int, before: np.ndarray | float, after: np.ndarray | float) -> jax.Array:
    """Doubles an axis: shifts each pixel by these fractions towards its two neighbours; the border repeats."""
    size = x.shape[axis]
    first, last = jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
    previous = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
    following = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
    even, odd = x + (previous - x) * before, x + (following - x) * after
    return jnp.stack([even, odd], axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def upsample_double(x: jax.Array) -> jax.Array:
    """Upsamples bilinearly by two with half-pixel centres: [B, H, W, C] to [B, 2 H, 2 W, C], of the same dtype."""
    return _interleave(_interleave(x.astype(jnp.float32), 1, 0.25, 0.25), 2, 0.25, 0.25).astype(x.dtype)


def _resample(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """Upsamples an axis by a matrix product, for any factor; meant for maps with few channels."""
    weights = aligned_weights(x.shape[axis], factor * x.shape[axis]).astype(np.float32)
    # By default accelerators round the operands of a product to fewer bits.
    return jnp.moveaxis(jnp.tensordot(weights, x, ([1], [axis]), precision=jax.lax.Precision.HIGHEST), 0, axis)


def aligned_weights(size: int, out: int) -> np.ndarray:
    """Returns the matrix [out, size] float64 of linear interpolation with aligned corners."""
    position = np.arange(out) * ((size - 1) / max(out - 1, 1))
    return linear_weights(position, size)
