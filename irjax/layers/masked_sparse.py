"""Convolutions over some patches of a map: the submanifold rule in three forms that share their weights.

A map [B, H, W, C] is a grid of square patches of p x p sites, and a mask says which are kept. Convolutions see zeros at
dropped sites and output zeros there, so that the set of active sites does not change. A stack of convolutions is
written once, against a domain:

    def stack(x, domain):
        x = domain.clear(nn.relu(norm(domain.conv(x, kernel1))))
        return domain.clear(nn.relu(norm(domain.conv(x, kernel2))))

    masked_dense(stack, x, mask)                # computes all sites; gradients reach the mask: training
    gather_sparse(stack, x, indices, patch)     # computes only kept patches; shapes are static: prediction
    dense_literal(stack, x, mask)               # masks only the stack's input: the ablation

The first two agree everywhere, the third agrees where the neighbourhood of a site is kept. To compare them,
normalisations must use their running statistics, because the statistics of a batch differ between all sites and the
kept ones.

Source: ADSNet (doi 10.1109/ACCESS.2024.3373436) convolves densely in training and with submanifold sparse convolutions
(Graham et al., CVPR 2018) in prediction; the static gather and the masks between layers are irjax's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from irjax.errors import UserError
from irjax.layers import cpu
from irjax.layers.conv import conv
from irjax.ops.patches import expand_mask, gather_patches, grid_of, mask_side, rows_of_sites, take_rows

Stack = Callable[[jax.Array, Any], jax.Array]


# --- domains ----------------------------------------------------------------------------------------------------------


# A domain defines the arrays that a stack works on: `enter` converts a map to such an array and `leave` converts it
# back, `restrict` sets dropped sites to zero, and a stack calls `clear` between its layers.


@dataclasses.dataclass(frozen=True)
class WholeMap:
    """All sites of a map: arrays [B, H, W, C].

    Attributes:
      mask: [B, H, W, 1], 1 at kept sites, or None where nothing is dropped.
      literal: mask only the input of a stack, not the values between its layers.
    """

    mask: jax.Array | None = None
    literal: bool = False

    def conv(self, x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
        """Convolves [B, H, W, C] to [B, H, W, D] with a kernel [k, k, C, D], k odd, stride 1 and zero padding."""
        return conv(x, kernel, stride)

    def restrict(self, x: jax.Array) -> jax.Array:
        """Sets dropped sites to zero."""
        return x if self.mask is None else x * self.mask.astype(x.dtype)

    enter = restrict

    def clear(self, x: jax.Array) -> jax.Array:
        """Sets dropped sites, which biases make nonzero, to zero, except in the literal form."""
        return x if self.literal else self.restrict(x)

    def leave(self, x: jax.Array) -> jax.Array:
        """Returns x, already a map; masking it again would remove the mask's gradient at dropped sites."""
        return x

    def fill(self, x: jax.Array, value: float) -> jax.Array:
        """Returns the map with `value` at dropped sites."""
        return x if self.mask is None else self.mask * x + (1 - self.mask) * value


@dataclasses.dataclass(frozen=True)
class KeptPatches:
    """The kept patches of a map: arrays [B, K, p, p, C].

    Attributes:
      indices: [B, K] int32, distinct in each row.
      grid: rows and columns of patches, static.
    """

    indices: jax.Array
    grid: tuple[int, int]

    def conv(self, x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
        """Convolves [B, K, p, p, C] to [B, K, p, p, D] with a kernel [k, k, C, D], k odd; dropped patches are zero.

        Raises:
          UserError: if the stride is not 1.
        """
        if stride != 1:
            raise UserError(f"a convolution of kept patches has stride 1, got {stride}")
        side, reach = x.shape[2], kernel.shape[0] // 2
        if not reach:
            return jnp.einsum("nkhwc,cd->nkhwd", x, kernel[0, 0])
        sites = rows_of_sites(self.indices, self.grid, side)
        rows = gather_patches(sites[..., None], self.indices, side, reach, fill=x.size // x.shape[-1])[..., 0]
        return cpu.by_platform(x, rows, kernel, cpu=cpu.conv_of_rows, default=_conv_of_patches)

    def enter(self, x: jax.Array) -> jax.Array:
        """Returns the kept patches of a map [B, H, W, C]."""
        return gather_patches(x, self.indices, x.shape[1] // self.grid[0])

    def restrict(self, x: jax.Array) -> jax.Array:
        """Returns x unchanged: all patches that it holds are kept."""
        return x

    clear = restrict

    def leave(self, x: jax.Array) -> jax.Array:
        """Returns the map [B, H, W, C] with these patches and zeros elsewhere."""
        return take_rows(x, rows_of_sites(self.indices, self.grid, x.shape[2]))

    def fill(self, x: jax.Array, value: float) -> jax.Array:
        """Returns the map with these patches and `value` elsewhere."""
        return self.leave(x - value) + value


def _conv_of_patches(x: jax.Array, rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves patches [B, K, p, p, C]; `rows` [B, K, p + 2 r, p + 2 r] lists the sites in and around each."""
    wide = take_rows(x, rows.reshape(-1, *rows.shape[2:]))
    y = lax.conv_general_dilated(wide, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y.reshape(*x.shape[:-1], -1)


# --- the three forms --------------------------------------------------------------------------------------------------


def masked_dense(stack: Stack, x: jax.Array, mask: jax.Array) -> jax.Array:
    """Applies a stack of convolutions under a mask, computing all sites.

    Args:
      stack: ``(x, domain) -> y``, see the module's docstring; it calls `domain.clear` last.
      x: [B, H, W, C].
      mask: [B, h, w] of square patches; 1 keeps, 0 drops. Gradients reach it.

    Returns:
      [B, H, W, D], zero at dropped sites.

    Raises:
      ValueError: if the mask's patches do not divide the map into squares.
    """
    return _through(stack, x, WholeMap(expand_mask(mask, mask_side(x, mask))))


def gather_sparse(stack: Stack, x: jax.Array, indices: jax.Array, patch: int) -> jax.Array:
    """Applies a stack of convolutions to the kept patches only, with the result of `masked_dense`.

    Args:
      stack: as for `masked_dense`.
      x: [B, H, W, C].
      indices: [B, K] of kept patches, distinct in each row.
      patch: p, side of a patch in sites.

    Returns:
      [B, H, W, D], zero at dropped sites.

    Raises:
      UserError: if the patches do not divide the map.
    """
    return _through(stack, x, KeptPatches(indices, grid_of(x.shape[1], x.shape[2], patch)))


def dense_literal(stack: Stack, x: jax.Array, mask: jax.Array) -> jax.Array:
    """Applies a stack to the masked map without masks between its layers; arguments as for `masked_dense`.

    Returns:
      [B, H, W, D]; not zero at dropped sites.
    """
    return _through(stack, x, WholeMap(expand_mask(mask, mask_side(x, mask)), literal=True))


def _through(stack: Stack, x: jax.Array, domain: WholeMap | KeptPatches) -> jax.Array:
    return domain.leave(stack(domain.enter(x), domain))


# --- decisions --------------------------------------------------------------------------------------------------------


def gumbel_keep(logits: jax.Array, keys: jax.Array | None, temperature: float = 1.0) -> jax.Array:
    """Makes binary decisions that have the gradient of soft ones: straight-through Gumbel-softmax.

    Args:
      logits: [B, h, w, 2], of keeping and of dropping.
      keys: one key for each image, or None for no noise.
      temperature: temperature of the softmax.

    Returns:
      [B, h, w], exactly 0 or 1.

    Source: Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017.
    """
    logits = logits.astype(jnp.float32)
    if keys is not None:
        logits = logits + jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    soft = jax.nn.softmax(logits / temperature)[..., 0]
    hard = (soft >= 0.5).astype(jnp.float32)
    return hard + (soft - lax.stop_gradient(soft))


def kept_number(cells: int, dropped: float) -> int:
    """Returns how many cells are kept when the fraction `dropped` is dropped.

    Raises:
      UserError: if the fraction is not in [0, 1), or no cell is kept.
    """
    if not 0 <= dropped < 1 or round(cells * (1 - dropped)) < 1:
        raise UserError(f"the fraction of dropped patches must be in [0, 1) and leave one of {cells}, got {dropped}")
    return round(cells * (1 - dropped))


def scores_of(logits: jax.Array, kept: jax.Array | None = None) -> jax.Array:
    """Converts decision logits [B, h, w, 2] to ranking scores [B, h, w]; minus infinity where `kept` is 0."""
    scores = (logits[..., 0] - logits[..., 1]).astype(jnp.float32)
    return scores if kept is None else jnp.where(kept > 0, scores, -np.inf)
