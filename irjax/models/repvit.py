"""RepViT-M1.1, a backbone of convolutions whose parallel depthwise kernels become one for prediction.

Source: Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", CVPR 2024, Figure 6 and Table 7 for the
sizes of M1.1; random weights (none are downloaded).

Note:
  The depthwise 1x1 has no bias, which the normalisation after it would take away, and GELU is its tanh form, whose
  gradient takes a sixth of the time on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.blocks import ConvNorm, SqueezeExcitation, fold
from irjax.layers.conv import DepthwiseConv
from irjax.layers.memory import kept
from irjax.layers.norm import BatchNorm

WIDTHS = (64, 128, 256, 512)
DEPTHS = (3, 3, 13, 2)
STEM_STRIDES = (1, 4)


class _Part(nn.Module):
    """What the parts share.

    Attributes:
      folded: run the weights of `reparameterize`.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation.
    """

    folded: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @property
    def common(self) -> dict[str, Any]:
        return {"folded": self.folded, "axis_name": self.axis_name, "dtype": self.dtype}


class TokenMixer(_Part):
    """norm(norm(depthwise 3x3) + depthwise 1x1 + identity) of [B, H, W, C]; one depthwise 3x3 if folded."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Mixes the sites of x [B, H, W, C]."""
        # In training the batch's statistics keep it.
        x = x if train else kept(x)
        if self.folded:
            return DepthwiseConv(3, use_bias=True, dtype=self.dtype, name="whole")(x)
        near = ConvNorm(x.shape[-1], 3, relu=False, depthwise=True, name="near", **self.common)(x, train=train)
        point = DepthwiseConv(1, dtype=self.dtype, name="point")(x)
        return BatchNorm(axis_name=self.axis_name, name="norm")(near + point + x, train=train)


class ChannelMixer(_Part):
    """x + 1x1 to 2 C, GELU, 1x1 to C, both normalised; it starts as the identity."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Mixes the channels of x [B, H, W, C]."""
        width, zero = x.shape[-1], nn.initializers.zeros_init()
        y = nn.gelu(ConvNorm(2 * width, relu=False, name="expand", **self.common)(x, train=train))
        return x + ConvNorm(width, relu=False, scale_init=zero, name="project", **self.common)(y, train=train)


class RepVitBlock(_Part):
    """A block with stride 1: token mixer, squeeze-excitation or not, channel mixer.

    Attributes:
      excite: whether the channels are weighted.
    """

    excite: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]; the shape stays."""
        x = TokenMixer(name="tokens", **self.common)(x, train=train)
        if self.excite:
            x = SqueezeExcitation(use_bias=True, dtype=self.dtype, name="gate")(x)
        return ChannelMixer(name="channels", **self.common)(x, train=train)


class Downsample(_Part):
    """A block with stride 2: depthwise 3x3, 1x1 to other channels, channel mixer.

    Attributes:
      features: number of output channels.
    """

    features: int = 128

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H / 2, W / 2, features]."""
        x = ConvNorm(x.shape[-1], 3, 2, relu=False, depthwise=True, name="near", **self.common)(x, train=train)
        x = ConvNorm(self.features, relu=False, name="point", **self.common)(x, train=train)
        return ChannelMixer(name="channels", **self.common)(x, train=train)


class RepViT(_Part):
    """Images [B, H, W, C] to the maps of four stages.

    Attributes:
      widths: channels of the stages; tests use smaller ones.
      depths: blocks with stride 1 in the stages.
      stem_stride: 4, or 1 for a stem that keeps the resolution (16 times the multiply-adds).
    """

    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    stem_stride: int = 4

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """The maps of images [B, H, W, C], finest first.

        Returns:
          [B, H / s, W / s, widths[i]] with s = stem_stride 2^i.

        Raises:
          UserError: if the stride of the stem is neither 1 nor 4.
        """
        if self.stem_stride not in STEM_STRIDES:
            raise UserError(f"stem_stride must be one of {STEM_STRIDES}, got {self.stem_stride}")
        stride = 2 if self.stem_stride == 4 else 1
        stem = {"size": 3, "stride": stride, "relu": False, **self.common}
        x = nn.gelu(ConvNorm(self.widths[0] // 2, name="stem1", **stem)(images, train=train))
        x = ConvNorm(self.widths[0], name="stem2", **stem)(x, train=train)
        maps = []
        for stage, (features, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            if stage:
                x = Downsample(features=features, name=f"down{stage}", **self.common)(x, train=train)
            for index in range(depth):
                # The last blocks of a deep stage have none: of M1.1's third stage, that is the thirteenth.
                excite = index % 2 == 0 and (index == 0 or index < depth - 1)
                x = RepVitBlock(excite=excite, name=f"stage{stage}_{index}", **self.common)(x, train=train)
            maps.append(x)
        return tuple(maps)


def reparameterize(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a `RepViT` for prediction, where every normalisation is part of a convolution.

    Args:
      variables: ``params`` and ``batch_stats`` of a RepViT or of one of its parts.

    Returns:
      ``params`` for the same module with ``folded=True``; it has no statistics.

    Raises:
      UserError: if there is nothing to fold.
    """
    if not variables.get("batch_stats"):
        raise UserError("reparameterize needs batch_stats: these weights have none, or are folded already")
    return {"params": _folded(variables["params"], variables["batch_stats"])}


def _folded(params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
    if set(params) == {"conv", "norm"}:
        return {"conv": fold(params["conv"]["kernel"], params["norm"], stats["norm"])}
    if set(params) == {"near", "point", "norm"}:
        near = fold(params["near"]["conv"]["kernel"], params["near"]["norm"], stats["near"]["norm"])
        middle = params["point"]["kernel"] + 1  # the identity is a depthwise 1x1 of ones
        kernel = near["kernel"] + jnp.pad(middle, ((1, 1), (1, 1), (0, 0), (0, 0)))
        # The inner bias moves the mean that the outer normalisation takes away.
        outer = {**stats["norm"], "mean": stats["norm"]["mean"] - near["bias"]}
        return {"whole": fold(kernel, params["norm"], outer)}
    return {name: _folded(value, stats[name]) if name in stats else value for name, value in params.items()}
