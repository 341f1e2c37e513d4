"""Layer and group normalisation, and batch normalisation with PyTorch's running statistics across devices."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

# By default flax computes the variance as E[x^2] - E[x]^2, which has no correct digit at |mean| / deviation = 1,000.
LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)
GroupNorm = functools.partial(nn.GroupNorm, use_fast_variance=False)


class BatchNorm(nn.Module):
    """Batch normalisation over [B, H, W] of [B, H, W, C]; statistics and running averages are float32.

    It differs from `flax.linen.BatchNorm` in one point: as in PyTorch, the running average collects the *unbiased*
    variance, while the batch is normalised with the biased one. Parameters ``scale``, ``bias`` [C]; collection
    ``batch_stats`` holds ``mean``, ``var`` [C].

    Attributes:
      momentum: weight of the old running average (PyTorch's ``1 - momentum``).
      epsilon: added to the variance.
      axis_name: name of the mapped device axis over which the statistics are synchronised, or None.
      scale_init: initializer of the scale.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises x [B, H, W, C] with the batch's statistics if `train`, else with the running ones."""
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if train:
            mean, var = _moments(x)
            count = x.size // x.shape[-1]
            if self.axis_name is not None and not self.is_initializing():
                means, variances = jax.lax.all_gather(jnp.stack([mean, var]), self.axis_name, axis=1)
                mean, var = jnp.mean(means, 0), jnp.mean(variances, 0) + jnp.var(means, 0)
                count *= len(means)
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * var * (count / max(count - 1, 1))
        else:
            mean, var = running_mean.value, running_var.value
        return _normalize(x, mean, var + self.epsilon, scale, bias)


@jax.jit  # layers of equal shapes are traced once
def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the biased variance [C] of x [B, H, W, C], in float32."""
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, (0, 1, 2))
    # Of squares of values far from zero little would be left. Its derivative with respect to the mean is zero.
    from_mean = wide - jax.lax.stop_gradient(mean)
    return mean, jnp.mean(from_mean * from_mean, (0, 1, 2))


@jax.jit
def _normalize(x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    # Float32 until the end: rounding scale and shift to the dtype of x would add a constant error everywhere.
    factor = scale * jax.lax.rsqrt(var)
    return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(x.dtype)
