"""Square patches of a map: splitting and joining, gathering and replacing some, masks and rankings of patches.

Patches of p x p sites tile a map [B, H, W, C] as a grid of h x w patches in row-major order: patch i lies in row i // w
and column i % w. N = h w is their number, K the number of selected ones.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from irjax.errors import UserError


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Returns the numbers of rows and columns of patches of a map.

    Raises:
      UserError: if the patches do not divide the map.
    """
    if patch < 1 or height % patch or width % patch:
        raise UserError(f"patches of {patch}x{patch} do not divide a map of {height}x{width}")
    return height // patch, width // patch


# --- all patches ------------------------------------------------------------------------------------------------------


def split_patches(x: jax.Array, patch: int) -> jax.Array:
    """Splits a map into all its patches.

    Args:
      x: [B, H, W, C].
      patch: p, side in sites.

    Returns:
      [B, N, p, p, C].

    Raises:
      UserError: if the patches do not divide the map.
    """
    batch, height, width, channels = x.shape
    rows, cols = grid_of(height, width, patch)
    parts = x.reshape(batch, rows, patch, cols, patch, channels).swapaxes(2, 3)
    return parts.reshape(batch, rows * cols, patch, patch, channels)


def join_patches(patches: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Joins all patches into a map; the inverse of `split_patches`.

    Args:
      patches: [B, N, p, p, C].
      grid: rows and columns of patches, static.

    Returns:
      [B, H, W, C].

    Raises:
      ValueError: if N is not the number of patches of the grid, or they are not square.
    """
    batch, number, side, other, channels = patches.shape
    rows, cols = grid
    if number != rows * cols or side != other:
        raise ValueError(f"a map of {rows}x{cols} patches needs [B, {rows * cols}, p, p, C], got {patches.shape}")
    whole = patches.reshape(batch, rows, cols, side, side, channels).swapaxes(2, 3)
    return whole.reshape(batch, rows * side, cols * side, channels)


def split_windows(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Splits a map into the patches of a grid, with the sites of each patch as tokens.

    Args:
      x: [B, H, W, C]; at stride s, a patch of 32 pixels has w = 32 / s sites on a side.
      grid: rows and columns of patches, static.

    Returns:
      [B, N, w w, C], the sites of a window in row-major order.

    Raises:
      ValueError: if the grid does not divide the map into squares.
    """
    windows = split_patches(x, _side_in(x, grid))
    return windows.reshape(*windows.shape[:2], -1, x.shape[-1])


def join_patch_windows(windows: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Joins all windows [B, N, w w, C] into a map [B, H, W, C]; the inverse of `split_windows`.

    Raises:
      ValueError: if the windows are not those of square patches of the grid.
    """
    batch, number, sites, channels = windows.shape
    side = round(sites**0.5)
    if side * side != sites:
        raise ValueError(f"windows must have a square number of sites, got {sites}")
    return join_patches(windows.reshape(batch, number, side, side, channels), grid)


def _side_in(x: jax.Array, grid: tuple[int, int]) -> int:
    side = x.shape[1] // max(grid[0], 1)
    if not side or (grid[0] * side, grid[1] * side) != x.shape[1:3]:
        raise ValueError(
            f"a mask of {grid[0]}x{grid[1]} patches does not divide a map of {x.shape[1]}x{x.shape[2]} into squares"
        )
    return side


def largest_in(values: jax.Array, side: int) -> jax.Array:
    """Computes the maximum of each square of `side` sites: [B, H, W] to [B, H / side, W / side] float32.

    For a target mask it tells whether the square has a target pixel.
    """
    batch, height, width = values.shape
    rows, cols = grid_of(height, width, side)
    return jnp.max(values.reshape(batch, rows, side, cols, side), axis=(2, 4)).astype(jnp.float32)


# --- some of them -----------------------------------------------------------------------------------------------------


def top_patches(scores: jax.Array, number: int) -> jax.Array:
    """Returns the patches with the highest scores.

    Args:
      scores: [B, h, w]; minus infinity excludes a patch as long as enough others are left.
      number: K, static.

    Returns:
      [B, K] int32 row-major indices of the h w patches in ascending order; without gradient.

    Raises:
      UserError: if K is not in 1..h w.
    """
    count = scores.shape[1] * scores.shape[2]
    if not 1 <= number <= count:
        raise UserError(f"the number of kept patches must be in 1..{count}, got {number}")
    flat = lax.stop_gradient(scores).reshape(scores.shape[0], -1)
    return jnp.sort(lax.top_k(flat, number)[1], axis=1)


def take_patches(patches: jax.Array, indices: jax.Array) -> jax.Array:
    """Takes some of the patches: [B, N, ...] and indices [B, K] to [B, K, ...]."""
    return jax.vmap(lambda one, index: one[index])(patches, indices)


def put_patches(patches: jax.Array, indices: jax.Array, values: jax.Array) -> jax.Array:
    """Replaces some of the patches.

    Args:
      patches: [B, N, ...].
      indices: [B, K], distinct in each row.
      values: [B, K, ...], the new patches, of the same dtype.

    Returns:
      [B, N, ...].
    """
    return patches.at[_images_of(indices), indices].set(values, unique_indices=True)


def _images_of(indices: jax.Array) -> jax.Array:
    """Returns the number of the image of each index [B, K], of the same shape."""
    return lax.broadcasted_iota(jnp.int32, indices.shape, 0)


def gather_patches(x: jax.Array, indices: jax.Array, patch: int, halo: int = 0, fill: float = 0) -> jax.Array:
    """Gathers patches of a map together with their surroundings.

    Args:
      x: [B, H, W, C].
      indices: [B, K], row-major indices of patches.
      patch: p, side in sites.
      halo: h, number of sites added on every side.
      fill: value outside the map.

    Returns:
      [B, K, p + 2 h, p + 2 h, C].
    """
    cols = grid_of(x.shape[1], x.shape[2], patch)[1]
    side = patch + 2 * halo
    padded = jnp.pad(x, ((0, 0), (halo, halo), (halo, halo), (0, 0)), constant_values=fill)

    def one(image: jax.Array, index: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (index // cols * patch, index % cols * patch, 0), (side, side, x.shape[-1]))

    return jax.vmap(jax.vmap(one, (None, 0)))(padded, indices)


def rows_of_sites(indices: jax.Array, grid: tuple[int, int], patch: int) -> jax.Array:
    """Returns the row number of each site of a map among the kept patches, [B, K, p, p] viewed as B K p p rows.

    Args:
      indices: [B, K] of patches, distinct in each row.
      grid: rows and columns of patches, static.
      patch: p, side in sites.

    Returns:
      [B, H, W] int32; B K p p, one past the last row, at dropped sites.
    """
    batch, number = indices.shape
    area = patch * patch
    first = (_images_of(indices) * number + lax.broadcasted_iota(jnp.int32, indices.shape, 1)) * area
    none = batch * number * area
    base = jnp.full((batch, grid[0] * grid[1]), none, jnp.int32)
    base = base.at[_images_of(indices), indices].set(first, unique_indices=True)
    inside = jnp.arange(area, dtype=jnp.int32).reshape(1, 1, patch, 1, patch)
    sites = jnp.minimum(base.reshape(batch, grid[0], 1, grid[1], 1) + inside, none)
    return sites.reshape(batch, grid[0] * patch, grid[1] * patch)


def take_rows(x: jax.Array, rows: jax.Array) -> jax.Array:
    """Takes rows of x [..., C] by their numbers, zeros past the last row: [*rows.shape, C]."""
    return x.reshape(-1, x.shape[-1]).at[rows].get(mode="fill", fill_value=0)


# --- masks ------------------------------------------------------------------------------------------------------------


def mask_of(indices: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Returns the mask [B, h, w] float32 of selected patches [B, K]."""
    batch = indices.shape[0]
    empty = jnp.zeros((batch, grid[0] * grid[1]), jnp.float32)
    return put_patches(empty, indices, jnp.ones(indices.shape, jnp.float32)).reshape(batch, *grid)


def expand_mask(mask: jax.Array, patch: int) -> jax.Array:
    """Expands a mask of patches [B, h, w] to every site: [B, h p, w p, 1]."""
    return jnp.repeat(jnp.repeat(mask, patch, axis=1), patch, axis=2)[..., None]


def mask_side(x: jax.Array, mask: jax.Array) -> int:
    """Returns the side in sites of the patches of a mask [B, h, w] over a map [B, H, W, C].

    Raises:
      ValueError: if they do not divide the map into squares.
    """
    return _side_in(x, (mask.shape[1], mask.shape[2]))
