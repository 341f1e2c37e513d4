"""Where the compiler shall keep a value instead of computing it again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def kept(x: jax.Array) -> jax.Array:
    """The same array [...], written to memory once; the same holds for its gradient.

    XLA's CPU backend computes sums and products anew in every loop that reads them. Where a residual goes through many
    blocks of shifted sums, each block so repeats all blocks before it: RepViT's time then grows with the square of its
    depth. An optimisation barrier does not help, as it is gone before loops are fused; a loop that copies does. Other
    platforms get the array as it is.
    """
    return lax.platform_dependent(x, cpu=_copied, default=lambda value: value)


def _copied(x: jax.Array) -> jax.Array:
    if x.size % 2 or not x.size:
        return x
    # Two parts, by their number: a loop that runs once, or only hands on what it is given, would be taken out.
    parts = x.reshape(2, -1)
    return lax.map(lambda i: lax.dynamic_index_in_dim(parts, i, keepdims=False), jnp.arange(2)).reshape(x.shape)


kept.defvjp(lambda x: (kept(x), None), lambda _, grad: (kept(grad),))
