"""Batch normalisation with PyTorch's bookkeeping, synchronised over devices."""

from __future__ import annotations

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
