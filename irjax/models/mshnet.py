"""MSHNet: a U-Net of residual blocks with channel and spatial attention that predicts a mask at each of four scales.

Source: Liu et al., "Infrared Small Target Detection with Scale and Location Sensitivity", CVPR 2024, and its published
code (Lliu666/MSHNet) for layer sizes. The kinds of spatial attention other than `plain` are those of
`irjax.layers.gaussian_pinwheel`.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.attention import ChannelAttention, SpatialAttention
from irjax.layers.blocks import ModuleDef
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
    """Two 3x3 convolutions, channel attention, spatial attention and a shortcut: [B, H, W, C] to [B, H, W, features].

    Attributes:
      features: number of output channels.
      attention: options of `SpatialAttention`.
      conv: constructor of convolutions.
      norm: constructor of normalisations.
      first: constructor of the block that replaces the first 3x3 convolution and its normalisation, or None.
    """

    features: int
    attention: Any
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm
    first: ModuleDef | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]."""
        shortcut = x
        if x.shape[-1] != self.features:
            shortcut = self.norm(name="shortcut_norm")(
                self.conv(self.features, use_bias=True, name="shortcut")(x), train=train
            )
        if self.first is not None:
            y = self.first(self.features, name="conv1")(x, train=train)
        else:
            y = nn.relu(
                self.norm(name="norm1")(self.conv(self.features, 3, use_bias=True, name="conv1")(x), train=train)
            )
        y = self.norm(name="norm2")(self.conv(self.features, 3, use_bias=True, name="conv2")(y), train=train)
        y = y * ChannelAttention(name="channels")(y)
        y = y * SpatialAttention(**self.attention, name="positions")(y)
        return nn.relu(y + shortcut)


class MSHNet(nn.Module):
    """MSHNet: images [B, H, W, C] to `SegmentationLogits`, H and W multiples of 16.

    4,065,513 parameters with three input channels and plain attention.

    Attributes:
      spatial_attention: kernel of the 16 spatial attentions: `plain` is a free 7x7 kernel; `gaussian` multiplies it by
        a Gaussian window of learned width; `gaussian_pinwheel` by that window and a fixed pinwheel;
        `gaussian_pinwheel_rotated` by that window and a pinwheel with a learned angle.
      orient: orientation of the rotated pinwheel: `learned` learns one angle per block, `bank` takes the strongest
        response of four orientations at every pixel.
      free_weight: use free weights under the window; without them the window alone is the kernel.
      first_layers: the first two convolutions: `plain` has 1x1 and 3x3 kernels, `pinwheel` has pinwheel-shaped kernels
        with strips of 4 and 3 pixels.
      widths: number of channels at each scale, finest first; each scale has half the height and width of the previous.
      depths: number of blocks at each scale of the encoder; the decoder has as many at the finer scales.
      axis_name: device axis over which the batch statistics are synchronised.
      dtype: dtype of the computation; parameters, statistics and logits are float32.

    Note:
      The layers are those of `irjax.layers.gaussian_pinwheel`. Pinwheels in the first layers come with normalisation
      and SiLU; the network then has 4,065,721 parameters. Yang et al. (AAAI 2025) put pinwheel-shaped convolutions into
      the first layers of networks. Replacing MSHNet's 1x1 convolution and the first 3x3 convolution of the first block
      is irjax's choice.
    """

    spatial_attention: Literal["plain", "gaussian", "gaussian_pinwheel", "gaussian_pinwheel_rotated"] = "plain"
    orient: Literal["learned", "bank"] = "learned"
    free_weight: bool = True
    first_layers: Literal["plain", "pinwheel"] = "plain"
    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @property
    def multiple(self) -> int:
        """The number that H and W must be multiples of."""
        return 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> SegmentationLogits:
        """Predicts target logits.

        Args:
          images: [B, H, W, C] floating point, normalised as in training.
          train: normalise with the batch's statistics and update the running ones.

        Returns:
          Logits [B, H, W], and side logits at the scales 1, 1/2, 1/4 and 1/8. The warm phase of training uses only the
          first of the side logits.

        Raises:
          UserError: if the images are not [B, H, W, C], H or W is not a multiple of 16, or `first_layers` is unknown.
        """
        if images.ndim != 4:
            raise UserError(f"images must be [B, H, W, C], got shape {images.shape}")
        if images.shape[1] % self.multiple or images.shape[2] % self.multiple:
            raise UserError(f"MSHNet needs sides that are multiples of {self.multiple}, got {images.shape[1:3]}")
        if self.first_layers not in FIRST_LAYERS:
            raise UserError(f"first_layers must be one of {FIRST_LAYERS}, got {self.first_layers!r}")
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(BatchNorm, axis_name=self.axis_name)
        pinwheels: list[ModuleDef | None] = [None, None]
        if self.first_layers == "pinwheel":
            one = functools.partial(PinwheelConv, norm=norm, dtype=self.dtype)
            pinwheels = [functools.partial(one, size=size) for size in _PINWHEELS]
        attention = {"kind": self.spatial_attention, "orient": self.orient, "free_weight": self.free_weight}

        def stage(x: jax.Array, features: int, depth: int, name: str) -> jax.Array:
            for index in range(depth):
                first = pinwheels[1] if (name, index) == ("encoder0", 0) else None
                x = AttentionBlock(features, attention, conv, norm, first, name=f"{name}_{index}")(x, train=train)
            return x

        if pinwheels[0] is not None:
            x = pinwheels[0](self.widths[0], name="stem")(images, train=train)
        else:
            x = conv(self.widths[0], use_bias=True, name="stem")(images)
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
