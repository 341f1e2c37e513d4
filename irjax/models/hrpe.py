"""HRPE, the high-resolution probabilistic encoder of SPIRE: image to target heatmap at a quarter of its size.

Source: "Rethinking IRSTD: Single-Point Supervision Guided Encoder-only Framework is Enough for Infrared Small Target
Detection", arXiv 2604.05363, Section 3.3; layer sizes from its published checkpoint.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.blocks import ConvNorm, ModuleDef, SqueezeExcitation
from irjax.layers.channels import Channels, channel_shuffle
from irjax.layers.conv import Conv, DepthwiseConv

STRIDES = (2, 4, 8)
_Map = TypeVar("_Map", jax.Array, Channels)


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3, 1x1 with a projected shortcut: [B, H, W, C] to [B, H, W, features].

    Attributes:
      features: number of output channels.
      width: number of channels of the two inner convolutions.
      block: constructor of convolutions with normalisation.
    """

    features: int
    width: int
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]."""
        y = self.block(self.width, name="reduce")(x, train=train)
        y = self.block(self.width, 3, name="spatial")(y, train=train)
        y = self.block(self.features, relu=False, name="expand")(y, train=train)
        shortcut = self.block(self.features, relu=False, name="shortcut")(x, train=train)
        return nn.relu(y + shortcut)


class ShuffleUnit(nn.Module):
    """Shuffle unit: half of the channels pass through 1x1, depthwise 3x3, 1x1; then all channels are shuffled.

    The other half of the channels is passed on unchanged.

    Attributes:
      shuffle: shuffle the channels; False is the ablation without channel reorganisation.
      block: constructor of convolutions with normalisation.
    """

    shuffle: bool = True
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: _Map, *, train: bool) -> _Map:
        """Applies the unit to x [B, H, W, C], C even; preserves the shape and kind (array or `Channels`)."""
        kept, rest = (x if isinstance(x, Channels) else Channels.of(x)).halve()
        y, order = rest.packed()
        half = y.shape[-1]
        y = self.block(half, name="before")(y, train=train, order=order)
        y = self.block(half, 3, relu=False, depthwise=True, name="spatial")(y, train=train)
        y = self.block(half, name="after")(y, train=train)
        joined = kept.join(y)
        result: Any = joined.shuffle() if self.shuffle else joined
        if not isinstance(x, Channels):
            array, _ = joined.packed()  # in order, since x was
            result = channel_shuffle(array) if self.shuffle else array
        return result


class ChannelWeighting(nn.Module):
    """Channel-weighting unit (Eq. 7): half of the channels pass through a depthwise 3x3 and channel gates.

    The other half is passed on unchanged; then all channels are shuffled.

    Attributes:
      refine: local refinement: add a depthwise 3x3 convolution without normalisation.
      shuffle: shuffle the channels; False is the ablation without channel reorganisation.
      block: constructor of convolutions with normalisation.
    """

    refine: bool = False
    shuffle: bool = True
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the unit to x [B, H, W, C], C even; preserves the shape."""
        kept, y = jnp.split(x, 2, axis=-1)
        y = self.block(y.shape[-1], 3, relu=False, depthwise=True, name="spatial")(y, train=train)
        y = SqueezeExcitation(name="gate")(y)
        if self.refine:
            y = DepthwiseConv(3, dtype=y.dtype, name="refine")(y)
        joined = jnp.concatenate([kept, y], axis=-1)
        return channel_shuffle(joined) if self.shuffle else joined


class HRPE(nn.Module):
    """High-resolution probabilistic encoder: 294,753 parameters with 3 input channels, 293,601 with one.

    Attributes:
      stride: pixels per heatmap cell (Table 3; 4 is the paper's model). At 2 the second convolution of the stem has
        stride 1, at 8 the stem has a third convolution of stride 2.
      shuffle: use channel reorganisation (Table 3); without it no channels are shuffled.
      reweight: use channel weighting (Table 3); without it plain shuffle units replace the four channel-weighting
        units.
      width: number of channels of the stem; the encoder has four times as many, the head half as many.
      shuffle_units: number of shuffle units in the encoder.
      axis_name: device axis over which the batch statistics are synchronised.
      dtype: dtype of the computation; parameters, batch statistics and the heatmap are float32.
    """

    stride: int = 4
    shuffle: bool = True
    reweight: bool = True
    width: int = 64
    shuffle_units: int = 3
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Predicts target heatmaps.

        Args:
          images: [B, H, W, C] float32, normalised; H and W are multiples of `stride`.
          train: normalise with the batch's statistics and update the running ones.

        Returns:
          [B, H / stride, W / stride] float32, about 1 at targets and 0 elsewhere; not limited to that range.

        Raises:
          UserError: if `stride` is unknown or the images have another rank or size.

        Note:
          Each of the two stages ends in relu(2 y), because the published code adds its single branch to itself.

          The paper does not describe the networks of its Table 3, but gives their parameters (1e-2 M) and FLOPs (G).
          The networks built here are compared at 640x640 with 3 channels and two operations for each normalised value.
          The whole network has 29.47 and 7.68 in the paper, 29.48 and 7.68 here; without reweighting, 29.63 and 7.72 in
          the paper, 29.63 and 7.73 here. The other rows have another, unknown structure: without channel
          reorganisation, 29.45 and 7.70 in the paper, 29.48 and 7.68 here; at stride 2, 26.56 and 26.77 in the paper,
          29.48 and 30.13 here; at stride 8, 33.27 and 3.05 in the paper, 33.17 and 3.01 here.
          experiments/spire/README.md lists the other structures that were tried.
        """
        if self.stride not in STRIDES:
            raise UserError(f"HRPE has output strides {STRIDES}, got {self.stride}")
        if images.ndim != 4 or images.shape[1] % self.stride or images.shape[2] % self.stride:
            raise UserError(f"HRPE takes [B, H, W, C] with H, W multiples of {self.stride}, got {images.shape}")
        block = functools.partial(ConvNorm, axis_name=self.axis_name, dtype=self.dtype)
        units: dict[str, Any] = {"shuffle": self.shuffle, "block": block}
        x = block(self.width, 3, 2, name="stem1")(images, train=train)
        x = block(self.width, 3, 1 if self.stride == 2 else 2, name="stem2")(x, train=train)
        if self.stride == 8:
            x = block(self.width, 3, 2, name="stem3")(x, train=train)
        x = Bottleneck(4 * self.width, self.width, block, name="bottleneck")(x, train=train)
        encoded = Channels.of(x)
        for i in range(self.shuffle_units):
            encoded = ShuffleUnit(name=f"encoder{i + 1}", **units)(encoded, train=train)
        x, order = encoded.packed()
        x = block(self.width // 2, 3, name="transition")(x, train=train, order=order)
        weighting = ChannelWeighting if self.reweight else ShuffleUnit
        refinement = functools.partial(ChannelWeighting, refine=True) if self.reweight else ShuffleUnit
        for stage in ("stage1", "stage2"):
            y = weighting(name=f"{stage}_weighting", **units)(x, train=train)
            y = refinement(name=f"{stage}_refinement", **units)(y, train=train)
            y = ShuffleUnit(name=f"{stage}_shuffle", **units)(y, train=train)
            x = nn.relu(2 * y)
        return Conv(1, use_bias=True, name="head")(x)[..., 0]
