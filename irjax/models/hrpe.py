"""HRPE, the encoder-only network of SPIRE: an image in, one target heatmap at a quarter of its size out.

Source: "Rethinking IRSTD: Single-Point Supervision Guided Encoder-only Framework is Enough for Infrared Small Target
Detection", arXiv 2604.05363, Section 3; layer sizes from its published checkpoint.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.blocks import ConvNorm, SqueezeExcitation
from irjax.layers.channels import Channels
from irjax.layers.conv import Conv, DepthwiseConv

STRIDES = (2, 4, 8)


def channel_shuffle(x: jax.Array, groups: int = 2) -> jax.Array:
    """Interleaves `groups` equal runs of channels: [..., C] to [..., C]."""
    *lead, channels = x.shape
    return x.reshape(*lead, groups, channels // groups).swapaxes(-1, -2).reshape(*lead, channels)


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3, 1x1 with a projected shortcut: [B, H, W, C] to [B, H, W, features].

    Attributes:
      features: number of output channels.
      width: channels of the two inner convolutions.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    features: int
    width: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]."""
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        y = ConvNorm(self.width, name="reduce", **common)(x, train=train)
        y = ConvNorm(self.width, 3, name="spatial", **common)(y, train=train)
        y = ConvNorm(self.features, relu=False, name="expand", **common)(y, train=train)
        shortcut = ConvNorm(self.features, relu=False, name="shortcut", **common)(x, train=train)
        return nn.relu(y + shortcut)


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the other half go through 1x1, depthwise 3x3, 1x1; then a channel shuffle.

    Attributes:
      shuffle: off for the ablation without channel reorganisation.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    shuffle: bool = True
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array | Channels, *, train: bool) -> jax.Array | Channels:
        """Applies the unit to x [B, H, W, C], C even; shape and kind (array or `Channels`) stay."""
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        kept, rest = (x if isinstance(x, Channels) else Channels.of(x)).halve()
        y, order = rest.packed()
        half = y.shape[-1]
        y = ConvNorm(half, name="before", **common)(y, train=train, order=order)
        y = ConvNorm(half, 3, relu=False, depthwise=True, name="spatial", **common)(y, train=train)
        y = ConvNorm(half, name="after", **common)(y, train=train)
        joined = kept.join(y)
        joined = joined.shuffle() if self.shuffle else joined
        return joined if isinstance(x, Channels) else joined.in_order()


class ChannelWeighting(nn.Module):
    """Channel-weighting unit (Eq. 7): identity beside depthwise 3x3 and channel gates; then a channel shuffle.

    Attributes:
      refine: local refinement, one more depthwise 3x3 without normalisation.
      shuffle: off for the ablation without channel reorganisation.
      reweight: off for the ablation without squeeze-excitation.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    refine: bool = False
    shuffle: bool = True
    reweight: bool = True
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the unit to x [B, H, W, C], C even; the shape stays."""
        kept, y = jnp.split(x, 2, axis=-1)
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        y = ConvNorm(y.shape[-1], 3, relu=False, depthwise=True, name="spatial", **common)(y, train=train)
        if self.reweight:
            y = SqueezeExcitation(dtype=self.dtype, name="gate")(y)
        if self.refine:
            y = DepthwiseConv(3, dtype=self.dtype, name="refine")(y)
        joined = jnp.concatenate([kept, y], axis=-1)
        return channel_shuffle(joined) if self.shuffle else joined


class HRPE(nn.Module):
    """The network of SPIRE: 294,753 parameters with 3 input channels, 293,601 with one.

    Attributes:
      stride: pixels per heatmap cell, 2, 4 or 8 (Table 3; 4 is the paper's model).
      shuffle: channel reorganisation (Table 3).
      reweight: squeeze-excitation (Table 3).
      width: channels of the stem; the encoder has four times, the head half as many.
      shuffle_units: number of shuffle units in the encoder.
      axis_name: device axis to synchronise batch statistics over.
      dtype: type of the computation; parameters, batch statistics and the heatmap stay float32.
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
          images: [B, H, W, C] float32, normalised; H and W multiples of `stride`.
          train: normalises with the batch's statistics and updates the running ones.

        Returns:
          [B, H / stride, W / stride] float32, about 1 at targets and 0 elsewhere; not limited to that range.

        Raises:
          UserError: if `stride` is unknown or the images have another rank or size.

        Note:
          Each of the two stages ends in relu(2 y): the published code adds its single branch to itself.
        """
        if self.stride not in STRIDES:
            raise UserError(f"HRPE has output strides {STRIDES}, got {self.stride}")
        if images.ndim != 4 or images.shape[1] % self.stride or images.shape[2] % self.stride:
            raise UserError(f"HRPE takes [B, H, W, C] with H, W multiples of {self.stride}, got {images.shape}")
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        units = {"shuffle": self.shuffle, **common}
        x = ConvNorm(self.width, 3, 2, name="stem1", **common)(images, train=train)
        x = ConvNorm(self.width, 3, 1 if self.stride == 2 else 2, name="stem2", **common)(x, train=train)
        if self.stride == 8:
            x = ConvNorm(self.width, 3, 2, name="stem3", **common)(x, train=train)
        x = Bottleneck(4 * self.width, self.width, name="bottleneck", **common)(x, train=train)
        encoded = Channels.of(x)
        for i in range(self.shuffle_units):
            encoded = ShuffleUnit(name=f"encoder{i + 1}", **units)(encoded, train=train)
        x, order = encoded.packed()
        x = ConvNorm(self.width // 2, 3, name="transition", **common)(x, train=train, order=order)
        for stage in ("stage1", "stage2"):
            y = ChannelWeighting(reweight=self.reweight, name=f"{stage}_weighting", **units)(x, train=train)
            y = ChannelWeighting(True, reweight=self.reweight, name=f"{stage}_refinement", **units)(y, train=train)
            y = ShuffleUnit(name=f"{stage}_shuffle", **units)(y, train=train)
            x = nn.relu(2 * y)
        return Conv(1, use_bias=True, name="head")(x)[..., 0]
