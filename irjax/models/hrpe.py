"""HRPE, SPIRE's high-resolution probabilistic encoder: an image in, a target heatmap at a quarter of its size out.

Source: "Rethinking IRSTD: Single-Point Supervision Guided Encoder-only Framework is Enough for Infrared Small Target
Detection", arXiv 2604.05363, Section 3.3; layer sizes from its published checkpoint.
"""

from __future__ import annotations

import functools
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
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    refine: bool = False
    shuffle: bool = True
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the unit to x [B, H, W, C], C even; the shape stays."""
        kept, y = jnp.split(x, 2, axis=-1)
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        y = ConvNorm(y.shape[-1], 3, relu=False, depthwise=True, name="spatial", **common)(y, train=train)
        y = SqueezeExcitation(dtype=self.dtype, name="gate")(y)
        if self.refine:
            y = DepthwiseConv(3, dtype=self.dtype, name="refine")(y)
        joined = jnp.concatenate([kept, y], axis=-1)
        return channel_shuffle(joined) if self.shuffle else joined


class HRPE(nn.Module):
    """High-resolution probabilistic encoder: 294,753 parameters with 3 input channels, 293,601 with one.

    Attributes:
      stride: pixels per heatmap cell (Table 3; 4 is the paper's model). At 2 the second convolution of the stem has
        stride 1, at 8 the stem has a third one of stride 2.
      shuffle: channel reorganisation (Table 3); off: nothing is shuffled.
      reweight: channel weighting (Table 3); off: plain shuffle units in place of the four channel-weighting units.
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

          The paper does not describe the networks of its Table 3, but gives their parameters (1e-2 M) and FLOPs (G).
          Beside what is built here, with 3 channels at 640x640 and two operations for each normalised value: the
          whole network 29.47 and 7.68, here 29.48 and 7.68; without reweighting 29.63 and 7.72, here 29.63 and 7.73.
          The other rows have another structure, which is not known: without channel reorganisation 29.45 and 7.70, here
          29.48 and 7.68; stride 2 26.56 and 26.77, here 29.48 and 30.13; stride 8 33.27 and 3.05, here 33.17 and 3.01.
          experiments/spire/README.md tables what else was tried.
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
        weighting = ChannelWeighting if self.reweight else ShuffleUnit
        refinement = functools.partial(ChannelWeighting, refine=True) if self.reweight else ShuffleUnit
        for stage in ("stage1", "stage2"):
            y = weighting(name=f"{stage}_weighting", **units)(x, train=train)
            y = refinement(name=f"{stage}_refinement", **units)(y, train=train)
            y = ShuffleUnit(name=f"{stage}_shuffle", **units)(y, train=train)
            x = nn.relu(2 * y)
        return Conv(1, use_bias=True, name="head")(x)[..., 0]
