"""Blocks that several networks have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.layers.conv import Conv, DepthwiseConv
from irjax.layers.norm import BatchNorm


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, and ReLU if asked: [B, H, W, C] to [B, H', W', features].

    Attributes:
      features: number of output channels.
      size: side of the kernel, odd.
      stride: of the convolution.
      relu: whether a ReLU follows.
      depthwise: one kernel a channel; `features` must then equal C.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    features: int
    size: int = 1
    stride: int = 1
    relu: bool = True
    depthwise: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, order: Sequence[int] | None = None) -> jax.Array:
        """Applies the block to x [B, H, W, C], whose channels are in this `order` (not for a depthwise one)."""
        if self.depthwise:
            x = DepthwiseConv(self.size, dtype=self.dtype, name="conv")(x)
        else:
            x = Conv(self.features, self.size, self.stride, dtype=self.dtype, name="conv")(x, order=order)
        x = BatchNorm(axis_name=self.axis_name, name="norm")(x, train=train)
        return nn.relu(x) if self.relu else x
