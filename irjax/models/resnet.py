"""ResNet-18 up to stride 16, used as a backbone.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1. The weights are initialised at
random (none are downloaded).
"""

from __future__ import annotations

import flax.linen as nn
import jax

from irjax.layers.blocks import ConvNorm, ModuleDef
from irjax.layers.pool import max_pool

WIDTHS = (64, 128, 256)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes: [B, H, W, C] to [B, H', W', features].

    Attributes:
      features: number of output channels.
      stride: stride of the first convolution.
      block: constructor of convolutions with normalisation.
    """

    features: int
    stride: int = 1
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]."""
        y = self.block(self.features, 3, self.stride, name="conv1")(x, train=train)
        y = self.block(self.features, 3, relu=False, name="conv2")(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = self.block(self.features, 1, self.stride, relu=False, name="shortcut")(x, train=train)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """Maps images [B, H, W, C] to the feature maps of the first three stages, with strides 4, 8 and 16.

    Attributes:
      widths: channels of the stages; tests use smaller ones.
      block: constructor of convolutions with normalisation.
    """

    widths: tuple[int, ...] = WIDTHS
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Computes the feature maps of images [B, H, W, C], finest first."""
        x = self.block(self.widths[0], 7, 2, name="stem")(images, train=train)
        x = max_pool(x, 3, 2, 1)
        maps = []
        for stage, features in enumerate(self.widths):
            for index in range(2):
                stride = 2 if stage and not index else 1
                x = BasicBlock(features, stride, self.block, name=f"stage{stage}_{index}")(x, train=train)
            maps.append(x)
        return tuple(maps)
