"""Attention between sets of tokens, and position encodings."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from irjax.errors import UserError
from irjax.layers import cpu


def sine_positions(height: int, width: int, channels: int, *, step: float = 1.0, longest: float = 1e4) -> np.ndarray:
    """Returns the sine position encoding of a grid, by which attention can use distances.

    Args:
      height: rows of sites.
      width: columns of sites.
      channels: a multiple of 4: a quarter each for sine and cosine of y and of x.
      step: distance between neighbouring sites in pixels; the centre of the first site lies at (step - 1) / 2, so that
        grids of different strides over the same pixels agree.
      longest: the wavelengths rise from 2 pi to below 2 pi times this value, in pixels.

    Returns:
      [height width, channels] float32, the sites in row-major order.

    Raises:
      UserError: if the number of channels is not a multiple of 4.

    Source: Vaswani et al., "Attention Is All You Need", 2017, for each axis.
    """
    if channels % 4 or not channels:
        raise UserError(f"sine positions need a multiple of 4 channels, got {channels}")
    rate = longest ** (-np.arange(channels // 4) / (channels // 4))
    parts = []
    for size, axis in ((height, 0), (width, 1)):
        angle = (np.arange(size) * step + (step - 1) / 2)[:, None] * rate
        one = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
        parts.append(np.broadcast_to(np.expand_dims(one, 1 - axis), (height, width, channels // 2)))
    return np.concatenate(parts, axis=-1).reshape(height * width, channels).astype(np.float32)


class _Projection(nn.Module):
    """Holds a kernel [C, heads d], returned as [heads, C, d] in `dtype`, and a float32 bias [heads, 1, d] or 0.

    Attributes:
      heads: number of heads.
      width: heads d.
      use_bias: whether there is a bias.
      dtype: dtype of the computation.
    """

    heads: int
    width: int
    use_bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array | float]:
        """Returns the kernel and bias for inputs with this many channels."""
        size = self.width // self.heads
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (channels, self.width), jnp.float32)
        kernel = kernel.reshape(channels, self.heads, size).swapaxes(0, 1).astype(self.dtype)
        if not self.use_bias:
            return kernel, 0.0
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,), jnp.float32)
        return kernel, bias.reshape(self.heads, 1, size)


_scored = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
_IN_CACHE = 2**20  # number of scores that fit in cache


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Averages values [..., N, d], weighted by the softmax of queries [..., M, d] times keys [..., N, d]."""

    def whole(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        shares = nn.softmax(_scored("...md,...nd->...mn", q, k)).astype(v.dtype)
        return jnp.einsum("...mn,...nd->...md", shares, v)

    scores = q.size // q.shape[-1] * k.shape[-2]
    if not is_symbolic_dim(scores) and scores <= _IN_CACHE:  # not known where a program is exported for any batch
        return whole(q, k, v)
    # One by one the scores stay in cache: a third of the time forward, two thirds of the time backward.
    return cpu.by_platform(q, k, v, cpu=functools.partial(cpu.one_by_one, whole), default=whole)


class Attention(nn.Module):
    """Scaled dot-product attention with several heads: queries [..., M, C] and keys [..., N, D] to [..., M, features].

    Attributes:
      features: number of output channels.
      width: total number of channels of queries, keys and values in all heads; 0 means `features`.
      heads: number of heads; divides the width.
      use_bias: whether the projections have a bias; that of the keys has none, because the softmax cancels it.
      absorb: apply the kernels of keys and values to the queries and to the weighted sums of the values where that
        takes fewer multiply-adds, as with few queries and many keys; the function is the same.
      dtype: dtype of the computation; the softmax and the parameters are float32.
    """

    features: int
    width: int = 0
    heads: int = 8
    use_bias: bool = True
    absorb: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: jax.Array,
        keys: jax.Array,
        values: jax.Array | None = None,
        *,
        positions: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> jax.Array:
        """Computes the attention.

        Args:
          queries: [..., M, C].
          keys: [..., N, D].
          values: [..., N, E]; None to use the keys.
          positions: [M, width / heads] and [N, width / heads], added to the queries and keys of every head.

        Returns:
          [..., M, features].

        Raises:
          UserError: if the number of heads does not divide the width.
        """
        width = self.width or self.features
        if width % self.heads:
            raise UserError(f"{self.heads} heads do not divide {width} channels")
        values = keys if values is None else values
        queries, keys, values = (x.astype(self.dtype) for x in (queries, keys, values))
        own = {"heads": self.heads, "width": width, "dtype": self.dtype}
        kernel_q, bias_q = _Projection(use_bias=self.use_bias, name="query", **own)(queries.shape[-1])
        kernel_k, _ = _Projection(use_bias=False, name="key", **own)(keys.shape[-1])
        kernel_v, bias_v = _Projection(use_bias=self.use_bias, name="value", **own)(values.shape[-1])
        here, there = (0.0, None) if positions is None else (jnp.asarray(x, jnp.float32) for x in positions)

        # The axis of heads precedes that of sites, so that the products need no transposed copies.
        q = jnp.einsum("...mc,hcd->...hmd", queries, kernel_q) + bias_q + here
        q = (q * (width // self.heads) ** -0.5).astype(self.dtype)
        if self.absorb and self._absorbs(width, queries, keys, values):
            scores = _scored("...hmc,...nc->...hmn", jnp.einsum("...hmd,hcd->...hmc", q, kernel_k), keys)
            scores = scores if there is None else scores + _scored("...hmd,nd->...hmn", q, there.astype(self.dtype))
            summed = jnp.einsum("...hmn,...nc->...hmc", nn.softmax(scores).astype(self.dtype), values)
            mixed = jnp.einsum("...hmc,hcd->...hmd", summed, kernel_v)
        else:
            k = jnp.einsum("...nc,hcd->...hnd", keys, kernel_k)
            v = jnp.einsum("...nc,hcd->...hnd", values, kernel_v)
            mixed = _attend(q, k if there is None else (k + there).astype(self.dtype), v)
        # The weights sum to 1, so a bias added to every value can be added to their sum.
        mixed = jnp.moveaxis(mixed + bias_v, -3, -2)
        out = nn.Dense(self.features, use_bias=self.use_bias, dtype=self.dtype, name="out")
        return out(mixed.reshape(*mixed.shape[:-2], width))

    def _absorbs(self, width: int, queries: jax.Array, keys: jax.Array, values: jax.Array) -> bool:
        number, channels = queries.shape[-2], keys.shape[-1] + values.shape[-1]
        projected = channels * width + 2 * number * width  # multiply-adds for each key
        return number * (self.heads * channels + width) < projected


class Mlp(nn.Module):
    """Dense layers with a nonlinearity between them: [..., C] to [..., widths[-1]].

    Attributes:
      widths: number of output channels of each layer.
      activation: nonlinearity between the layers.
      use_bias: whether the layers have a bias.
      dtype: dtype of the computation.
    """

    widths: tuple[int, ...]
    activation: Any = nn.relu
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layers to x [..., C]."""
        for index, width in enumerate(self.widths):
            x = self.activation(x) if index else x
            x = nn.Dense(width, use_bias=self.use_bias, dtype=self.dtype, name=f"layer{index + 1}")(x)
        return x
