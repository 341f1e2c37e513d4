"""Batch normalisation with PyTorch's bookkeeping, synchronised over devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalisation over [B, H, W] of [B, H, W, C]; statistics and running averages are float32.

    It differs from `flax.linen.BatchNorm` in one point: as in PyTorch, the running average collects the *unbiased*
    variance, while the batch is normalised with the biased one. Parameters ``scale``, ``bias`` [C]; collection
    ``batch_stats`` holds ``mean``, ``var`` [C].

    Attributes:
      momentum: share of the old running average (PyTorch's ``1 - momentum``).
      epsilon: added to the variance.
      axis_name: name of a mapped device axis to synchronise over, or None.
      scale_init: initializer of the scale.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises x [B, H, W, C] with the batch's statistics (train) or the running ones."""
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if train:
            wide = x.astype(jnp.float32)
            moments = jnp.stack([jnp.mean(wide, (0, 1, 2)), jnp.mean(wide * wide, (0, 1, 2))])
            count = x.size // x.shape[-1]
            if self.axis_name is not None and not self.is_initializing():
                moments = jax.lax.pmean(moments, self.axis_name)
                count *= jax.lax.axis_size(self.axis_name)
            mean, var = moments[0], jnp.maximum(moments[1] - moments[0] ** 2, 0.0)
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * var * (count / max(count - 1, 1))
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)


def fold_batch_norm(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Moves the scale of every batch normalisation into the convolution before it, for inference.

    The structure stays, so the same module takes the result: each norm is left with its shift alone.

    Args:
      variables: ``{"params": ..., "batch_stats": ...}`` in which a convolution ``conv`` stands beside its ``norm``.

    Returns:
      New variables with equal outputs (to rounding) for ``train=False``; not meant for training.
    """

    def fold(params: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        new_params, new_stats = dict(params), dict(stats)
        if "conv" in params and "norm" in params:
            norm, running = params["norm"], stats["norm"]
            factor = norm["scale"] / jnp.sqrt(running["var"] + BatchNorm.epsilon)
            ones = jnp.ones_like(factor)
            new_params["conv"] = {**params["conv"], "kernel": params["conv"]["kernel"] * factor}
            new_params["norm"] = {"scale": ones, "bias": norm["bias"] - running["mean"] * factor}
            new_stats["norm"] = {"mean": jnp.zeros_like(factor), "var": ones - BatchNorm.epsilon}
        for name in params:
            if name not in ("conv", "norm") and name in stats:
                new_params[name], new_stats[name] = fold(params[name], stats[name])
        return new_params, new_stats

    params, stats = fold(variables["params"], variables["batch_stats"])
    return {**variables, "params": params, "batch_stats": stats}
