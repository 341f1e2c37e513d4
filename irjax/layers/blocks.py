"""Blocks that several networks have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
      scale_init: initializer of the normalisation's scale.
      folded: the normalisation is part of the kernel and a bias, for prediction: see `fold`.
    """

    features: int
    size: int = 1
    stride: int = 1
    relu: bool = True
    depthwise: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    folded: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, order: Sequence[int] | None = None) -> jax.Array:
        """Applies the block to x [B, H, W, C], whose channels are in this `order` (not for a depthwise one)."""
        common = {"use_bias": self.folded, "dtype": self.dtype, "name": "conv"}
        if self.depthwise:
            x = DepthwiseConv(self.size, self.stride, **common)(x)
        else:
            x = Conv(self.features, self.size, self.stride, **common)(x, order=order)
        if not self.folded:
            x = BatchNorm(axis_name=self.axis_name, scale_init=self.scale_init, name="norm")(x, train=train)
        return nn.relu(x) if self.relu else x


def fold(kernel: jax.Array, norm: Mapping[str, jax.Array], stats: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """A convolution without bias and the batch normalisation after it, in prediction, as one convolution.

    Args:
      kernel: [k, k, C, D].
      norm: ``scale`` and ``bias`` [D].
      stats: running ``mean`` and ``var`` [D].

    Returns:
      The ``kernel`` and ``bias`` of the same function.
    """
    factor = norm["scale"] * jax.lax.rsqrt(stats["var"] + BatchNorm.epsilon)
    return {"kernel": kernel * factor, "bias": norm["bias"] - stats["mean"] * factor}


def fold_batch_norm(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Moves the scale of every batch normalisation into the convolution before it, for inference.

    The structure stays, so the same module takes the result: each norm is left with its shift alone.

    Args:
      variables: ``{"params": ..., "batch_stats": ...}`` in which a convolution ``conv`` stands beside its ``norm``.

    Returns:
      New variables with equal outputs (to rounding) for ``train=False``; not meant for training.
    """

    def fold_all(params: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        new_params, new_stats = dict(params), dict(stats)
        if "conv" in params and "norm" in params:
            whole = fold(params["conv"]["kernel"], params["norm"], stats["norm"])
            ones = jnp.ones_like(whole["bias"])
            new_params["conv"] = {**params["conv"], "kernel": whole["kernel"]}
            new_params["norm"] = {"scale": ones, "bias": whole["bias"]}
            new_stats["norm"] = {"mean": jnp.zeros_like(ones), "var": ones - BatchNorm.epsilon}
        for name in params:
            if name not in ("conv", "norm") and name in stats:
                new_params[name], new_stats[name] = fold_all(params[name], stats[name])
        return new_params, new_stats

    params, stats = fold_all(variables["params"], variables["batch_stats"])
    return {**variables, "params": params, "batch_stats": stats}


class SqueezeExcitation(nn.Module):
    """Channel gates from the global mean: two 1x1 layers, ReLU and sigmoid.

    Attributes:
      reduction: factor by which the inner layer is narrower; it has at least one channel.
      use_bias: of both layers.
      dtype: of the result; the gates are computed in float32.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    reduction: int = 4
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales the channels of x [B, H, W, C]."""
        gate = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
        gate = nn.relu(Conv(max(x.shape[-1] // self.reduction, 1), use_bias=self.use_bias, name="squeeze")(gate))
        gate = nn.sigmoid(Conv(x.shape[-1], use_bias=self.use_bias, name="excite")(gate))
        return (x * gate).astype(self.dtype)
