"""RepViT-M1.1, a convolutional backbone whose parallel depthwise kernels are merged into one for prediction.

Source: Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", CVPR 2024, Figure 6 and Table 7 for the sizes
of M1.1. The weights are initialised at random (none are downloaded).

Note:
  The depthwise 1x1 has no bias, because the normalisation after it would cancel it. GELU is its tanh approximation,
  whose gradient takes a sixth of the time on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.blocks import ConvNorm, ModuleDef, SqueezeExcitation, fold_norm
from irjax.layers.conv import DepthwiseConv
from irjax.layers.cpu import materialize
from irjax.layers.norm import BatchNorm

WIDTHS = (64, 128, 256, 512)
DEPTHS = (3, 3, 13, 2)
STEM_STRIDES = (1, 4)


class TokenMixer(nn.Module):
    """norm(norm(depthwise 3x3) + depthwise 1x1 + identity) of [B, H, W, C]; one depthwise 3x3 if folded.

    Attributes:
      block: constructor of convolutions with normalisation.
      norm: constructor of normalisations; None if folded.
    """

    block: ModuleDef = ConvNorm
    norm: ModuleDef | None = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Mixes the sites of x [B, H, W, C]."""
        # In training the batch's statistics already materialise it.
        x = x if train else materialize(x)
        if self.norm is None:
            return DepthwiseConv(3, use_bias=True, dtype=x.dtype, name="whole")(x)
        near = self.block(x.shape[-1], 3, relu=False, depthwise=True, name="near")(x, train=train)
        point = DepthwiseConv(1, dtype=x.dtype, name="point")(x)
        return self.norm(name="norm")(near + point + x, train=train)


class ChannelMixer(nn.Module):
    """x + (1x1 to 2 C, GELU, 1x1 to C), both 1x1 normalised; the identity at initialisation.

    Attributes:
      block: constructor of convolutions with normalisation.
    """

    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Mixes the channels of x [B, H, W, C]."""
        width, zero = x.shape[-1], nn.initializers.zeros_init()
        y = nn.gelu(self.block(2 * width, relu=False, name="expand")(x, train=train))
        return x + self.block(width, relu=False, scale_init=zero, name="project")(y, train=train)


class RepVitBlock(nn.Module):
    """Block with stride 1: token mixer, optional squeeze-and-excitation, channel mixer.

    Attributes:
      excite: whether to use squeeze-and-excitation.
      block: constructor of convolutions with normalisation.
      norm: constructor of normalisations for `TokenMixer`; None if folded.
    """

    excite: bool = False
    block: ModuleDef = ConvNorm
    norm: ModuleDef | None = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]; preserves the shape."""
        x = TokenMixer(self.block, self.norm, name="tokens")(x, train=train)
        if self.excite:
            x = SqueezeExcitation(use_bias=True, name="gate")(x)
        return ChannelMixer(self.block, name="channels")(x, train=train)


class Downsample(nn.Module):
    """Block with stride 2: depthwise 3x3, 1x1 to the new number of channels, channel mixer.

    Attributes:
      features: number of output channels.
      block: constructor of convolutions with normalisation.
    """

    features: int = 128
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Downsamples [B, H, W, C] to [B, H / 2, W / 2, features]."""
        x = self.block(x.shape[-1], 3, 2, relu=False, depthwise=True, name="near")(x, train=train)
        x = self.block(self.features, relu=False, name="point")(x, train=train)
        return ChannelMixer(self.block, name="channels")(x, train=train)


class RepViT(nn.Module):
    """Maps images [B, H, W, C] to the feature maps of four stages.

    Attributes:
      widths: channels of the stages; tests use smaller ones.
      depths: number of blocks with stride 1 in each stage.
      stem_stride: stride of the stem: 4, or 1 to keep the resolution (16 times the multiply-adds).
      folded: use weights folded by `reparameterize_backbone`.
      axis_name: device axis over which the batch statistics are synchronised.
      dtype: dtype of the computation.
    """

    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    stem_stride: int = 4
    folded: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Computes the feature maps of images [B, H, W, C], finest first.

        Returns:
          [B, H / s, W / s, widths[i]] with s = stem_stride 2^i.

        Raises:
          UserError: if the stride of the stem is neither 1 nor 4.
        """
        if self.stem_stride not in STEM_STRIDES:
            raise UserError(f"stem_stride must be one of {STEM_STRIDES}, got {self.stem_stride}")
        stride = 2 if self.stem_stride == 4 else 1
        block = functools.partial(ConvNorm, folded=self.folded, axis_name=self.axis_name, dtype=self.dtype)
        norm = None if self.folded else functools.partial(BatchNorm, axis_name=self.axis_name)
        x = nn.gelu(block(self.widths[0] // 2, 3, stride, relu=False, name="stem1")(images, train=train))
        x = block(self.widths[0], 3, stride, relu=False, name="stem2")(x, train=train)
        maps = []
        for stage, (features, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            if stage:
                x = Downsample(features, block, name=f"down{stage}")(x, train=train)
            for index in range(depth):
                # The last block of a deep stage has none; in M1.1's third stage that is the thirteenth.
                excite = index % 2 == 0 and (index == 0 or index < depth - 1)
                x = RepVitBlock(excite, block, norm, name=f"stage{stage}_{index}")(x, train=train)
            maps.append(x)
        return tuple(maps)


def reparameterize_backbone(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Folds the weights of a `RepViT` for prediction, merging every normalisation into a convolution.

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
        return {"conv": fold_norm(params["conv"]["kernel"], params["norm"], stats["norm"])}
    if set(params) == {"near", "point", "norm"}:
        near = fold_norm(params["near"]["conv"]["kernel"], params["near"]["norm"], stats["near"]["norm"])
        middle = params["point"]["kernel"] + 1  # the identity is a depthwise 1x1 of ones
        kernel = near["kernel"] + jnp.pad(middle, ((1, 1), (1, 1), (0, 0), (0, 0)))
        # The inner bias shifts the mean that the outer normalisation subtracts.
        outer = {**stats["norm"], "mean": stats["norm"]["mean"] - near["bias"]}
        return {"whole": fold_norm(kernel, params["norm"], outer)}
    return {name: _folded(value, stats[name]) if name in stats else value for name, value in params.items()}
