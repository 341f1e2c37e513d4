"""Convolutions over some patches of a map: the submanifold rule in three forms with the same weights.

A map [B, H, W, C] is a grid of square patches of p x p sites, and a mask says which are kept. Convolutions see zeros at
dropped sites, and give zeros there: what is active stays so, and nothing else becomes so. A stack of convolutions is
written once, against a domain:

    def stack(x, domain):
        x = domain.clear(nn.relu(norm(domain.conv(x, kernel1))))
        return domain.clear(nn.relu(norm(domain.conv(x, kernel2))))

    masked_dense(stack, x, mask)                # all sites are computed; gradients reach the mask: training
    gather_sparse(stack, x, indices, patch)     # only kept patches are computed, shapes are static: prediction
    dense_literal(stack, x, mask)               # only the stack's input is masked: the ablation

The first two agree everywhere, the third where the neighbourhood of a site is kept. Normalisations must be those of
prediction in the comparison: a batch's statistics differ between all sites and the kept ones.

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
from irjax.layers.conv import conv
from irjax.ops.patches import expand_mask, gather_patches, grid_of, mask_side, rows_of_sites, take_rows

Stack = Callable[[jax.Array, Any], jax.Array]


# --- domains ----------------------------------------------------------------------------------------------------------


# A domain holds what a stack works on: `enter` takes it from a map, `leave` makes a map of it, `restrict` is zero at
# dropped sites, `clear` is what a stack calls between its layers.


@dataclasses.dataclass(frozen=True)
class WholeMap:
    """All sites of a map: arrays [B, H, W, C].

    Attributes:
      mask: [B, H, W, 1], 1 at kept sites, or None where nothing is dropped.
      literal: mask what enters alone, not between layers.
    """

    mask: jax.Array | None = None
    literal: bool = False

    def conv(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Convolution [B, H, W, C] to [B, H, W, D], kernel [k, k, C, D], k odd, zeros outside the map."""
        return conv(x, kernel)

    def restrict(self, x: jax.Array) -> jax.Array:
        """Zero at dropped sites."""
        return x if self.mask is None else x * self.mask.astype(x.dtype)

    enter = restrict

    def clear(self, x: jax.Array) -> jax.Array:
        """Zero at dropped sites: biases revive them otherwise. The literal form lets them."""
        return x if self.literal else self.restrict(x)

    def leave(self, x: jax.Array) -> jax.Array:
        """The map itself: where it is zero twice, it has no gradient."""
        return x

    def fill(self, x: jax.Array, value: float) -> jax.Array:
        """The map with this value at dropped sites."""
        return x if self.mask is None else self.mask * x + (1 - self.mask) * value


@dataclasses.dataclass(frozen=True)
class KeptPatches:
    """The kept patches of a map: arrays [B, K, p, p, C].

    Attributes:
      indices: [B, K] int32, distinct in a row.
      grid: rows and columns of patches, static.
    """

    indices: jax.Array
    grid: tuple[int, int]

    def conv(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Convolution [B, K, p, p, C] to [B, K, p, p, D], kernel [k, k, C, D], k odd, zeros at dropped patches."""
        side, reach = x.shape[2], kernel.shape[0] // 2
        if not reach:
            return jnp.einsum("nkhwc,cd->nkhwd", x, kernel[0, 0])
        sites = rows_of_sites(self.indices, self.grid, side)
        rows = gather_patches(sites[..., None], self.indices, side, reach, fill=x.size // x.shape[-1])[..., 0]
        return lax.platform_dependent(x, rows, kernel, cpu=_conv_by_rows, default=_conv_of_patches)

    def enter(self, x: jax.Array) -> jax.Array:
        """The kept patches of a map [B, H, W, C]."""
        return gather_patches(x, self.indices, x.shape[1] // self.grid[0])

    def restrict(self, x: jax.Array) -> jax.Array:
        """All there is is kept."""
        return x

    clear = restrict

    def leave(self, x: jax.Array) -> jax.Array:
        """The map [B, H, W, C] with these patches, zero elsewhere."""
        return take_rows(x, rows_of_sites(self.indices, self.grid, x.shape[2]))

    def fill(self, x: jax.Array, value: float) -> jax.Array:
        """The map with these patches, and this value elsewhere."""
        return self.leave(x - value) + value


def _conv_of_patches(x: jax.Array, rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """Patches [B, K, p, p, C], the rows of each with what lies around [B, K, p + 2 r, p + 2 r], and a kernel."""
    wide = take_rows(x, rows.reshape(-1, *rows.shape[2:]))
    y = lax.conv_general_dilated(wide, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y.reshape(*x.shape[:-1], -1)


def _conv_by_rows(x: jax.Array, rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same as products of matrices that fit in cache.

    XLA's CPU convolutions of many tiny images are slow, its gathers of rows fast.
    """
    size, side = kernel.shape[0], x.shape[2]
    taps = [rows[:, :, i : i + side, j : j + side] for i in range(size) for j in range(size)]
    taps = jnp.stack(taps, axis=-1).reshape(-1, size * size)
    chunks = _chunks(taps.shape[0])
    flat = kernel.reshape(-1, kernel.shape[-1])
    product = lambda rows: take_rows(x, rows).reshape(rows.shape[0], -1) @ flat  # noqa: E731
    if chunks == 1:
        return product(taps).reshape(*x.shape[:-1], -1)
    return lax.map(product, taps.reshape(chunks, -1, size * size)).reshape(*x.shape[:-1], -1)


def _chunks(sites: int, most: int = 2048) -> int:
    """Into how many equal parts to cut these sites: parts of at most 2,048, or a little less, or all in one."""
    least = -(-sites // most)
    return next((n for n in range(least, min(4 * least, sites) + 1) if sites % n == 0), 1)


# --- the three forms --------------------------------------------------------------------------------------------------


def masked_dense(stack: Stack, x: jax.Array, mask: jax.Array) -> jax.Array:
    """A stack of convolutions under a mask, all sites computed.

    Args:
      stack: ``(x, domain) -> y``, see the module's docstring; the last thing it does is to clear.
      x: [B, H, W, C].
      mask: [B, h, w] of square patches; 1 keeps, 0 drops. Gradients reach it.

    Returns:
      [B, H, W, D], zero at dropped sites.

    Raises:
      UserError: if the mask's patches do not divide the map into squares.
    """
    return _through(stack, x, WholeMap(expand_mask(mask, mask_side(x, mask))))


def gather_sparse(stack: Stack, x: jax.Array, indices: jax.Array, patch: int) -> jax.Array:
    """The same on the kept patches alone; arguments as for `masked_dense`, but for the patches.

    Args:
      stack: as there.
      x: [B, H, W, C].
      indices: [B, K] of kept patches, distinct in a row.
      patch: p, side of a patch in sites.

    Returns:
      [B, H, W, D], zero at dropped sites.

    Raises:
      UserError: if the patches do not divide the map.
    """
    return _through(stack, x, KeptPatches(indices, grid_of(*x.shape[1:3], patch)))


def dense_literal(stack: Stack, x: jax.Array, mask: jax.Array) -> jax.Array:
    """The stack on the masked map, without masks between its layers; arguments as for `masked_dense`.

    Returns:
      [B, H, W, D]; not zero at dropped sites.
    """
    return _through(stack, x, WholeMap(expand_mask(mask, mask_side(x, mask)), literal=True))


def _through(stack: Stack, x: jax.Array, domain: WholeMap | KeptPatches) -> jax.Array:
    return domain.leave(stack(domain.enter(x), domain))


# --- decisions --------------------------------------------------------------------------------------------------------


def gumbel_keep(logits: jax.Array, keys: jax.Array | None, temperature: float = 1.0) -> jax.Array:
    """Hard decisions with the gradient of soft ones: straight-through Gumbel-softmax.

    Args:
      logits: [B, h, w, 2], of keeping and of dropping.
      keys: one for each image, or None for no noise.
      temperature: of the softmax.

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
    """How many of the cells stay when this fraction is dropped.

    Raises:
      UserError: if the fraction is not in [0, 1), or none stays.
    """
    if not 0 <= dropped < 1 or round(cells * (1 - dropped)) < 1:
        raise UserError(f"the fraction of dropped patches must be in [0, 1) and leave one of {cells}, got {dropped}")
    return round(cells * (1 - dropped))


def scores_of(logits: jax.Array, kept: jax.Array | None = None) -> jax.Array:
    """Decision logits [B, h, w, 2] as scores [B, h, w] to rank patches by; minus infinity where `kept` is 0."""
    scores = (logits[..., 0] - logits[..., 1]).astype(jnp.float32)
    return scores if kept is None else jnp.where(kept > 0, scores, -np.inf)
