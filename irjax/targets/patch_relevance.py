"""Patch relevance, the target of Na-IRSTD's scorer: the proximity of each patch of an image to the targets.

Source: Na-IRSTD (arXiv 2605.05804), Section III-B2: a weight that falls with the distance to the nearest target
(Equation 10), averaged over a patch (Equation 11). The formula of Equation 10 is missing from the available text, which
speaks of "proximity to target centers" and a "spatial decay rate". The exponential, its decay, and the division by the
value of a centred target are irjax's own.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import UserError
from irjax.ops.components import decode_mask
from irjax.ops.patches import grid_of, largest_in
from irjax.types import Array

LABELS = ("soft", "hard")


def centred_relevance(patch: int = 32, decay: float = 0.1) -> float:
    """Returns the mean weight over a patch with one target at its centre: 0.327 for 32 pixels and decay 0.1."""
    offset = np.arange(patch) - (patch - 1) / 2
    return float(np.mean(np.exp(-decay * np.hypot(offset[:, None], offset[None]))))


@functools.partial(jax.jit, static_argnames=("form", "patch", "decay", "max_targets", "scaled"))
def relevance(
    target: Array,
    *,
    form: str = "soft",
    patch: int = 32,
    decay: float = 0.1,
    max_targets: int = 64,
    scaled: bool = True,
) -> jax.Array:
    """Computes the relevance of every patch of target masks.

    Args:
      target: [B, H, W] bool or in {0, 1}; H and W multiples of `patch`.
      form: ``soft``: the mean over the patch's pixels u of exp(-decay min_c |u - c|), where c are the centroids of the
        8-connected regions, and 0 without any region; ``hard``: 1 where the patch has a target pixel, else 0.
      patch: side of a patch in pixels.
      decay: decay of the weight per pixel of distance.
      max_targets: regions beyond this number are ignored.
      scaled: divide ``soft`` by the value of a centred target and clip at 1.

    Returns:
      [B, H / patch, W / patch] float32 in [0, 1].

    Raises:
      UserError: if the mask is not [B, H, W], the patches do not divide it, the form is unknown, or the decay or the
        number of targets is not positive.
    """
    if form not in LABELS:
        raise UserError(f"the form of relevance must be one of {LABELS}, got {form!r}")
    if target.ndim != 3:
        raise UserError(f"target must be [B, H, W], got shape {target.shape}")
    if not decay > 0 or max_targets < 1:
        raise UserError(f"decay and max_targets must be positive, got {decay} and {max_targets}")
    height, width = target.shape[1:]
    rows, cols = grid_of(height, width, patch)
    target = jnp.asarray(target) > 0
    if form == "hard":
        return largest_in(target, patch)
    limit = min(max_targets, height * width)
    found = decode_mask(target.astype(jnp.float32), threshold=0.5, max_detections=limit)
    number = jnp.sum(found.valid, axis=1)
    squares = jax.vmap(functools.partial(_square_distance, height, width))(found.points, number)
    weight = jnp.where((number > 0)[:, None, None], jnp.exp(-decay * jnp.sqrt(squares)), 0.0)
    value = jnp.mean(weight.reshape(-1, rows, patch, cols, patch), axis=(2, 4))
    return jnp.minimum(value / centred_relevance(patch, decay), 1.0) if scaled else value


def _square_distance(height: int, width: int, points: jax.Array, number: jax.Array) -> jax.Array:
    """Returns the squared distance [H, W] to the nearest of the first `number` points [N, 2], or infinity."""
    y = jnp.arange(height, dtype=jnp.float32)[:, None]
    x = jnp.arange(width, dtype=jnp.float32)

    def nearer(index: jax.Array, least: jax.Array) -> jax.Array:
        return jnp.minimum(least, (x - points[index, 0]) ** 2 + (y - points[index, 1]) ** 2)

    # Most images have few targets, and the loop ends with the last one.
    return jax.lax.fori_loop(0, number, nearer, jnp.full((height, width), jnp.inf, jnp.float32))
