"""Blocks shared by several networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.layers.conv import Conv, DepthwiseConv, conv
from irjax.layers.norm import BatchNorm

# Constructor of a layer. Blocks take the constructors of their layers, with a network's common options bound.
ModuleDef = Callable[..., Any]


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and optional ReLU: [B, H, W, C] to [B, H', W', features].

    Attributes:
      features: number of output channels.
      size: side of the kernel, odd.
      stride: stride of the convolution.
      relu: whether a ReLU follows.
      depthwise: use a depthwise convolution; `features` must then equal C.
      axis_name: device axis over which the batch statistics are synchronised.
      dtype: dtype of the computation.
      scale_init: initializer of the normalisation's scale.
      folded: the normalisation is part of the kernel and a bias, for prediction; see `fold_norm`.
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
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        order: Sequence[int] | None = None,
        conv: Callable[[jax.Array, jax.Array, int], jax.Array] = conv,
    ) -> jax.Array:
        """Applies the block to x [B, H, W, C]; `order` and `conv` are those of `Conv`, not for a depthwise one."""
        common: dict[str, Any] = {"use_bias": self.folded, "dtype": self.dtype, "name": "conv"}
        if self.depthwise:
            x = DepthwiseConv(self.size, self.stride, **common)(x)
        else:
            x = Conv(self.features, self.size, self.stride, **common)(x, order=order, conv=conv)
        if not self.folded:
            x = BatchNorm(axis_name=self.axis_name, scale_init=self.scale_init, name="norm")(x, train=train)
        return nn.relu(x) if self.relu else x


def fold_norm(kernel: jax.Array, norm: Mapping[str, jax.Array], stats: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Merges a convolution without bias and the batch normalisation after it into one convolution, for prediction.

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

    The structure is preserved, so the same module accepts the result; each normalisation is left with only its shift.

    Args:
      variables: ``{"params": ..., "batch_stats": ...}`` in which each convolution ``conv`` is a sibling of its
        ``norm``.

    Returns:
      New variables with equal outputs (up to rounding) for ``train=False``; not meant for training.
    """

    def fold_all(params: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        new_params, new_stats = dict(params), dict(stats)
        if "conv" in params and "norm" in params:
            whole = fold_norm(params["conv"]["kernel"], params["norm"], stats["norm"])
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
    """Scales channels by gates from the global mean: two 1x1 layers with ReLU and sigmoid.

    The gates are computed in float32; the result has the dtype of x.

    Attributes:
      reduction: ratio of the input channels to the inner layer's channels, of which there is at least one.
      use_bias: whether both layers have a bias.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    reduction: int = 4
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales the channels of x [B, H, W, C]."""
        gate = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
        gate = nn.relu(Conv(max(x.shape[-1] // self.reduction, 1), use_bias=self.use_bias, name="squeeze")(gate))
        gate = nn.sigmoid(Conv(x.shape[-1], use_bias=self.use_bias, name="excite")(gate))
        return (x * gate).astype(x.dtype)
