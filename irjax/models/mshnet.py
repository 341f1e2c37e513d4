"""MSHNet: a U-Net of residual blocks with channel and spatial attention, and one mask at each of four scales.

Source: Liu et al., "Infrared Small Target Detection with Scale and Location Sensitivity", CVPR 2024, and its published
code (Lliu666/MSHNet) for layer sizes. The kinds of spatial attention other than `plain` are those of
`irjax.layers.gaussian_pinwheel`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.attention import ChannelAttention, SpatialAttention
from irjax.layers.conv import Conv
from irjax.layers.gaussian_pinwheel import PinwheelConv
from irjax.layers.norm import BatchNorm
from irjax.layers.pool import max_pool2
from irjax.layers.resize import upsample_aligned
from irjax.types import SegmentationLogits

WIDTHS = (16, 32, 64, 128, 256)
DEPTHS = (1, 2, 2, 2, 2)
FIRST_LAYERS = ("plain", "pinwheel")
_PINWHEELS = (4, 3)  # sizes of the first two convolutions


class AttentionBlock(nn.Module):
    """Two 3x3 convolutions, channel then spatial attention, and a shortcut: [B, H, W, C] to [B, H, W, features].

    Attributes:
      features: number of output channels.
      attention: options of `SpatialAttention`.
      pinwheel: size of a pinwheel-shaped convolution in place of the first 3x3 one; 0: none.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    features: int
    attention: Any
    pinwheel: int = 0
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]."""
        conv = lambda size, name: Conv(self.features, size, use_bias=True, dtype=self.dtype, name=name)  # noqa: E731
        norm = lambda name: BatchNorm(axis_name=self.axis_name, name=name)  # noqa: E731
        shortcut = x
        if x.shape[-1] != self.features:
            shortcut = norm("shortcut_norm")(conv(1, "shortcut")(x), train=train)
        if self.pinwheel:
            common = {"axis_name": self.axis_name, "dtype": self.dtype}
            y = PinwheelConv(self.features, self.pinwheel, name="conv1", **common)(x, train=train)
        else:
            y = nn.relu(norm("norm1")(conv(3, "conv1")(x), train=train))
        y = norm("norm2")(conv(3, "conv2")(y), train=train)
        y = y * ChannelAttention(dtype=self.dtype, name="channels")(y)
        y = y * SpatialAttention(**self.attention, dtype=self.dtype, name="positions")(y)
        return nn.relu(y + shortcut)


class MSHNet(nn.Module):
    """MSHNet: images [B, H, W, C] to `SegmentationLogits`, H and W multiples of 16.

    4,065,513 parameters with three input channels and plain attention.

    Attributes:
      spatial_attention: `plain`, `gaussian`, `gaussian_pinwheel` or `gaussian_pinwheel_rotated`.
      orient: `learned` or `bank`, see `irjax.layers.gaussian_pinwheel.GaussianPinwheelConv`.
      free_weight: see there.
      first_layers: `plain`, or `pinwheel`: the first two convolutions are `irjax.layers.gaussian_pinwheel.PinwheelConv`
        with strips of 4 and 3 pixels, normalisation and SiLU included; 4,065,721 parameters.
      widths: channels at the five scales; tests use smaller ones.
      depths: blocks at the five scales of the encoder; the decoder has as many at the finer four.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation; parameters, statistics and logits are float32.

    Note:
      Yang et al. (AAAI 2025) put pinwheel-shaped convolutions into the first layers of networks. That those are
      MSHNet's 1x1 convolution and the first 3x3 one of the first block is irjax's choice.
    """

    spatial_attention: str = "plain"
    orient: str = "learned"
    free_weight: bool = True
    first_layers: str = "plain"
    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @property
    def multiple(self) -> int:
        """What H and W must be multiples of."""
        return 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> SegmentationLogits:
        """The masks of images [B, H, W, C], normalised as in training.

        Args:
          images: [B, H, W, C] floating point.
          train: normalise with the batch's statistics and update the running ones.

        Returns:
          Logits [B, H, W], and those of the scales 1, 1/2, 1/4, 1/8. In the warm phase of training only the first of
          the scales is used.

        Raises:
          UserError: if the images are not [B, H, W, C], H or W is no multiple of 16, or `first_layers` is unknown.
        """
        if images.ndim != 4:
            raise UserError(f"images must be [B, H, W, C], got shape {images.shape}")
        if images.shape[1] % self.multiple or images.shape[2] % self.multiple:
            raise UserError(f"MSHNet needs sides that are multiples of {self.multiple}, got {images.shape[1:3]}")
        if self.first_layers not in FIRST_LAYERS:
            raise UserError(f"first_layers must be one of {FIRST_LAYERS}, got {self.first_layers!r}")
        first, second = _PINWHEELS if self.first_layers == "pinwheel" else (0, 0)
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        attention = {"kind": self.spatial_attention, "orient": self.orient, "free_weight": self.free_weight}

        def stage(x: jax.Array, features: int, depth: int, name: str) -> jax.Array:
            for index in range(depth):
                size = second if (name, index) == ("encoder0", 0) else 0
                block = AttentionBlock(features, attention, size, name=f"{name}_{index}", **common)
                x = block(x, train=train)
            return x

        if first:
            x = PinwheelConv(self.widths[0], first, name="stem", **common)(images, train=train)
        else:
            x = Conv(self.widths[0], use_bias=True, dtype=self.dtype, name="stem")(images)
        skips = []
        for scale, (features, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            if scale:
                x = max_pool2(x)
            x = stage(x, features, depth, f"encoder{scale}")
            skips.append(x)
        sides = []
        for scale in range(len(self.widths) - 2, -1, -1):
            x = jnp.concatenate([skips[scale], upsample_aligned(x, 2)], axis=-1)
            x = stage(x, self.widths[scale], self.depths[scale], f"decoder{scale}")
            sides.append(Conv(1, use_bias=True, name=f"side{scale}")(x))
        sides.reverse()
        joined = jnp.concatenate([upsample_aligned(side, 2**scale) for scale, side in enumerate(sides)], axis=-1)
        logits = Conv(1, 3, use_bias=True, name="final")(joined)
        return SegmentationLogits(logits[..., 0], tuple(side[..., 0] for side in sides))
