"""Losses of Na-IRSTD for the masks and the relevance of patches, and counts of how well patches were selected.

Source: Na-IRSTD (arXiv 2605.05804), Section III-B: cross-entropy plus Dice (Equations 14 to 16), and cross-entropy with
the relevance of each patch (Equation 12). The weights of Equation 14 are missing from the available text. Equal
weights, the divisor of the cross-entropy, the loss of the coarse logits and the sum for training in one stage are
irjax's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.losses.adsnet import target_patch_recall
from irjax.losses.segmentation import FEWEST_PIXELS, binary_cross_entropy, by_positives, dice
from irjax.ops.patches import largest_in

CROSS_ENTROPIES = ("pixels", "targets")


def mask_loss(outputs: Any, target: jax.Array, *, cross_entropy: str = "pixels") -> jax.Array:
    """Computes cross-entropy plus Dice over all pixels, of the final and of the coarse logits, all with weight 1.

    Args:
      outputs: `irjax.models.na_irstd.NaIrstdOutputs`.
      target: [B, H, W] bool; a site of the coarse logits is a target where one of its pixels is.
      cross_entropy: divisor of the summed cross-entropy: the number of ``pixels``, or the number of target pixels
        (``targets``), at least 32 (for sites, the number that covers 32 pixels). With few target pixels the first is
        negligible beside Dice.

    Returns:
      [B] float32. Dice is computed for each image, with 1 pixel added to both areas.

    Raises:
      UserError: if the divisor is unknown.
    """
    if cross_entropy not in CROSS_ENTROPIES:
        raise UserError(f"cross_entropy must be one of {CROSS_ENTROPIES}, got {cross_entropy!r}")
    target = target.astype(jnp.float32)
    stride = target.shape[1] // outputs.coarse.shape[1]

    def loss(logits: jax.Array, wanted: jax.Array, area: int) -> jax.Array:
        entropy = binary_cross_entropy(logits, wanted)
        if cross_entropy == "targets":
            entropy = by_positives(entropy, wanted, least=FEWEST_PIXELS / area)
        return entropy + dice(logits, wanted)

    return loss(outputs.logits, target, 1) + loss(outputs.coarse, largest_in(target, stride), stride**2)


def score_loss(outputs: Any, relevance: jax.Array) -> jax.Array:
    """Computes the cross-entropy of the patches' scores with their relevance, averaged over patches and stages.

    Args:
      outputs: `irjax.models.na_irstd.NaIrstdOutputs`.
      relevance: [B, h, w] in [0, 1], see `irjax.targets.relevance`.

    Returns:
      [B] float32, in nats.

    Raises:
      UserError: if there are no scores, or they belong to other patches.
    """
    if outputs.scores is None:
        raise UserError("the loss of the scores needs a native branch, and this network has none")
    scores = outputs.scores if outputs.scores.ndim == 4 else outputs.scores[:, None]
    return sum(binary_cross_entropy(scores[:, i], relevance) for i in range(scores.shape[1])) / scores.shape[1]


def na_irstd_loss(
    outputs: Any,
    target: jax.Array,
    relevance: jax.Array | None = None,
    *,
    score_weight: float = 1.0,
    cross_entropy: str = "pixels",
) -> jax.Array:
    """Computes the loss of training in one stage: the loss of the masks plus that of the scores.

    Args:
      outputs: `irjax.models.na_irstd.NaIrstdOutputs`.
      target: [B, H, W] bool.
      relevance: [B, h, w] in [0, 1]; None leaves the scores out, as in the second of two stages.
      score_weight: weight of the scores' loss.
      cross_entropy: as for `mask_loss`.

    Returns:
      [B] float32.

    Raises:
      UserError: as `mask_loss` and `score_loss`.
    """
    loss = mask_loss(outputs, target, cross_entropy=cross_entropy)
    return loss if relevance is None else loss + score_weight * score_loss(outputs, relevance)


def selection_counts(selected: Sequence[jax.Array], target: jax.Array) -> jax.Array:
    """Counts how well the selected patches match the patches with targets, to be summed over images.

    With the sums (both, selected, true), the paper's coverage is both / selected, which is at most true / selected, and
    the recall is both / true.

    Args:
      selected: masks [B, h, w] of the selected patches, 1 where selected: one, or one per stage.
      target: [B, H, W] bool.

    Returns:
      [B, S, 3] float32 for each selection: number of selected patches with target pixels, of selected patches, and of
      patches with target pixels.

    Raises:
      UserError: if nothing was selected.
    """
    if not selected:
        raise UserError("counting the selection needs a native branch, and this network has none")
    both, true = jnp.moveaxis(target_patch_recall(selected, target), -1, 0)
    number = jnp.stack([jnp.sum(patches, axis=(1, 2)) for patches in selected], axis=1)
    return jnp.stack([both, number, true], axis=-1)
