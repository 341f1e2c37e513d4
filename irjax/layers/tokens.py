"""Attention between sets of tokens, and where tokens lie."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from irjax.layers.memory import kept


def sine_positions(height: int, width: int, channels: int, *, step: float = 1.0, longest: float = 1e4) -> np.ndarray:
    """Sines and cosines of the places of a lattice, for attention to tell near from far.

    Args:
      height: rows of sites.
      width: columns of sites.
      channels: a multiple of 4: a quarter each for sine and cosine of y and of x.
      step: from one site to the next in pixels; the centre of the first one lies at (step - 1) / 2, so that lattices of
        different strides over the same pixels agree.
      longest: the wavelengths rise from 2 pi to below 2 pi times this, in pixels.

    Returns:
      [height width, channels] float32, the sites by rows.

    Raises:
      ValueError: if the channels are no multiple of 4.

    Source: Vaswani et al., "Attention Is All You Need", 2017, for each axis.
    """
    if channels % 4 or not channels:
        raise ValueError(f"sine positions need a multiple of 4 channels, got {channels}")
    rate = longest ** (-np.arange(channels // 4) / (channels // 4))
    parts = []
    for size, axis in ((height, 0), (width, 1)):
        angle = (np.arange(size) * step + (step - 1) / 2)[:, None] * rate
        one = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
        parts.append(np.broadcast_to(np.expand_dims(one, 1 - axis), (height, width, channels // 2)))
    return np.concatenate(parts, axis=-1).reshape(height * width, channels).astype(np.float32)


class Attention(nn.Module):
    """Scaled dot-product attention with several heads: queries [..., M, C] and keys [..., N, D] to [..., M, features].

    Attributes:
      features: of the result.
      width: channels of queries, keys and values inside, of all heads together; 0: as many as `features`.
      heads: number of heads; divides the width.
      use_bias: of the projections, but that of the keys, whose bias the softmax takes away.
      out_init: initializer of the last projection's kernel.
      dtype: type of the computation; the softmax and the parameters are float32.
    """

    features: int
    width: int = 0
    heads: int = 8
    use_bias: bool = True
    out_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
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
        """Attends.

        Args:
          queries: [..., M, C].
          keys: [..., N, D].
          values: [..., N, E]; the keys if None.
          positions: [M, width / heads] and [N, width / heads], added to every head's queries and keys.

        Returns:
          [..., M, features].

        Raises:
          ValueError: if the heads do not divide the width.
        """
        width = self.width or self.features
        if width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide {width} channels")
        shape = (self.heads, width // self.heads)

        def project(x: jax.Array, name: str) -> jax.Array:
            y = nn.Dense(width, use_bias=self.use_bias and name != "key", dtype=self.dtype, name=name)(x)
            return y.reshape(*y.shape[:-1], *shape)

        q, k = project(queries, "query"), project(keys, "key")
        v = project(keys if values is None else values, "value")
        if positions is not None:
            # Kept twice for the CPU: a product with a small kernel would become plain loops inside the sum, and a sum
            # that the next product transposes takes ten times as long.
            places = (jnp.asarray(where, self.dtype)[:, None] for where in positions)
            q, k = (kept(kept(x) + where) for x, where in zip((q, k), places, strict=True))
        scores = jnp.einsum("...mhd,...nhd->...hmn", q * shape[1] ** -0.5, k, preferred_element_type=jnp.float32)
        shares = nn.softmax(scores).astype(self.dtype)
        mixed = jnp.einsum("...hmn,...nhd->...mhd", shares, v)
        out = nn.Dense(self.features, use_bias=self.use_bias, dtype=self.dtype, kernel_init=self.out_init, name="out")
        return out(mixed.reshape(*mixed.shape[:-2], width))


class Mlp(nn.Module):
    """Dense layers with a nonlinearity between them: [..., C] to [..., widths[-1]].

    Attributes:
      widths: of the layers.
      activation: between them.
      use_bias: of every layer.
      dtype: type of the computation.
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
