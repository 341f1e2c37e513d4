"""Pooling, with a gradient that XLA runs fast on the CPU."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.layers import cpu


def max_pool(x: jax.Array, size: int, stride: int, pad: int = 0) -> jax.Array:
    """Computes the maximum of each square of `size` sites, `stride` apart: [B, H, W, C] to [B, H', W', C].

    Sites of the border, `pad` on each side, are never the maximum.
    """
    around: Any = ((pad, pad), (pad, pad))
    if cpu.converting():  # jax2onnx ignores this padding
        x, around = jnp.pad(x, ((0, 0), *around, (0, 0)), constant_values=-jnp.inf), "VALID"
    return nn.max_pool(x, window_shape=(size, size), strides=(stride, stride), padding=around)


@jax.custom_vjp
def max_pool2(x: jax.Array) -> jax.Array:
    """Computes the maximum of each 2x2 block.

    Args:
      x: [B, H, W, C] floating point, H and W even.

    Returns:
      [B, H / 2, W / 2, C]. The gradient goes to the first position, in row-major order, that holds the maximum of a
      block, as in PyTorch.

    Raises:
      ValueError: if a side is odd.

    Note:
      The derivative is defined for reverse mode only. It uses no scatter: on the CPU the gradient of
      `flax.linen.max_pool` takes 7 times as long.
    """
    return max_pool(x, 2, 2) if cpu.converting() else jnp.max(_blocks(x), axis=(2, 4))


def _blocks(x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise ValueError(f"max_pool2 needs even sides, got {height}x{width}")
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels)


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x = jax.lax.optimization_barrier(x)  # computed once: see `irjax.layers.attention.max_along`
    highest = max_pool2(x)
    return highest, (x, highest)


def _backward(saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array]:
    x, highest = saved
    equal = _blocks(x) == highest[:, :, None, :, None]
    taken = jnp.zeros(highest.shape, bool)
    rows = []
    for row in (0, 1):
        places = []
        for col in (0, 1):
            here = equal[:, :, row, :, col]
            places.append(jnp.where(here & ~taken, grad, 0))
            taken |= here
        rows.append(jnp.stack(places, axis=3))
    return (jnp.stack(rows, axis=2).reshape(x.shape),)


max_pool2.defvjp(_forward, _backward)
