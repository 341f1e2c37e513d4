"""Channel and spatial attention in the form of CBAM, shared by the segmentation networks."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.conv import Conv
from irjax.layers.gaussian_pinwheel import KINDS, GaussianPinwheelConv

SPATIAL_KINDS = ("plain", *KINDS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_along(x: jax.Array, axis: int) -> jax.Array:
    """Returns the maximum along an axis, which keeps length 1; tied positions share its gradient equally.

    The gradient rule of `jnp.max` compares x with the maximum. If the compiler recomputes x for that comparison with
    other rounding, no position is equal and the gradient is 0 / 0. Here x is computed once, and the divisor is
    at least 1.
    """
    return jnp.max(x, axis, keepdims=True)


def _max_forward(x: jax.Array, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x = jax.lax.optimization_barrier(x)
    highest = jnp.max(x, axis, keepdims=True)
    return highest, (x, highest)


def _max_backward(axis: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array]:
    x, highest = saved
    equal = x == highest
    count = jnp.sum(equal, axis, keepdims=True, dtype=grad.dtype)
    return (jnp.where(equal, grad / jnp.maximum(count, 1), 0),)


max_along.defvjp(_max_forward, _max_backward)


class ChannelAttention(nn.Module):
    """Computes channel gates [B, 1, 1, C] from the global mean and maximum through one shared two-layer network.

    The gates are computed in float32 and have the dtype of x.

    Attributes:
      reduction: ratio of the input channels to the inner layer's channels, of which there is at least one.

    Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018.
    """

    reduction: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the gates of x [B, H, W, C]."""
        squeeze = Conv(max(x.shape[-1] // self.reduction, 1), name="squeeze")
        excite = Conv(x.shape[-1], name="excite")
        flat = x.reshape(x.shape[0], -1, 1, x.shape[-1])
        pooled = [jnp.mean(flat, 1, keepdims=True, dtype=jnp.float32), max_along(flat, 1)]
        return nn.sigmoid(sum(excite(nn.relu(squeeze(value))) for value in pooled)).astype(x.dtype)


class SpatialAttention(nn.Module):
    """Computes spatial gates [B, H, W, 1] from the mean and maximum over the channels through one convolution.

    The gates are computed in float32, since two planes cost little and the mean is not rounded; they have x.dtype.

    Attributes:
      kind: `plain` (a free kernel), or one of `irjax.layers.gaussian_pinwheel.KINDS`.
      size: side of the kernel, odd.
      orient: see `GaussianPinwheelConv`.
      free_weight: see `GaussianPinwheelConv`.
    """

    kind: str = "plain"
    size: int = 7
    orient: str = "learned"
    free_weight: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the gates of x [B, H, W, C]."""
        if self.kind not in SPATIAL_KINDS:
            raise UserError(f"unknown spatial attention {self.kind!r}; known: {', '.join(SPATIAL_KINDS)}")
        planes = [jnp.mean(x, -1, keepdims=True, dtype=jnp.float32), max_along(x, -1).astype(jnp.float32)]
        pooled = jnp.concatenate(planes, axis=-1)
        if self.kind == "plain":
            response = Conv(1, self.size, name="conv")(pooled)
        else:
            response = GaussianPinwheelConv(self.kind, self.size, self.free_weight, self.orient, name="conv")(pooled)
        return nn.sigmoid(response).astype(x.dtype)
