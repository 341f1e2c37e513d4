"""ResNet-18 up to stride 16, a backbone.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1; random weights (none are
downloaded).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.layers.blocks import ConvNorm

WIDTHS = (64, 128, 256)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes: [B, H, W, C] to [B, H', W', features].

    Attributes:
      features: number of output channels.
      stride: of the first convolution.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    features: int
    stride: int = 1
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]."""
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        y = ConvNorm(self.features, 3, self.stride, name="conv1", **common)(x, train=train)
        y = ConvNorm(self.features, 3, relu=False, name="conv2", **common)(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = ConvNorm(self.features, 1, self.stride, relu=False, name="shortcut", **common)(x, train=train)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """Images [B, H, W, C] to the maps of the first three stages: strides 4, 8 and 16.

    Attributes:
      widths: channels of the stages; tests use smaller ones.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    widths: tuple[int, ...] = WIDTHS
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """The maps of images [B, H, W, C], finest first."""
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        x = ConvNorm(self.widths[0], 7, 2, name="stem", **common)(images, train=train)
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        maps = []
        for stage, features in enumerate(self.widths):
            for index in range(2):
                stride = 2 if stage and not index else 1
                x = BasicBlock(features, stride, name=f"stage{stage}_{index}", **common)(x, train=train)
            maps.append(x)
        return tuple(maps)
