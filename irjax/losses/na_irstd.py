"""The losses of Na-IRSTD: the masks, the relevance of the patches, and how good a selection of patches is.

Source: Na-IRSTD (arXiv 2605.05804), Section III-B: cross-entropy plus Dice (Equations 14 to 16), and cross-entropy with
the relevance of each patch (Equation 12). The weights of Equation 14 are lost in the text at hand; equal ones, what the
cross-entropy is divided by, the loss of the coarse logits and the sum for training in one stage are irjax's own.
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
    """Cross-entropy plus Dice over all pixels, of the final and of the coarse logits, all with weight 1.

    Args:
      outputs: `irjax.models.na_irstd.NaIrstdOutputs`.
      target: [B, H, W] bool; a site of the coarse logits is a target where one of its pixels is.
      cross_entropy: what its sum is divided by: the number of ``pixels``, or that of ``targets``' pixels, at least 32
        (of sites as many as 32 pixels are). With few target pixels the first is next to nothing beside Dice.

    Returns:
      [B] float32. Dice is of each image, with 1 pixel added to both areas.

    Raises:
      UserError: if there is no such divisor.
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
    """Cross-entropy of the patches' scores with their relevance, the mean over the patches (and stages).

    Args:
      outputs: `irjax.models.na_irstd.NaIrstdOutputs`.
      relevance: [B, h, w] in [0, 1], see `irjax.targets.relevance`.

    Returns:
      [B] float32, in nats.

    Raises:
      UserError: if there are no scores, or they are of other patches.
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
    """The loss of training in one stage: that of the masks plus that of the scores.

    Args:
      outputs: `irjax.models.na_irstd.NaIrstdOutputs`.
      target: [B, H, W] bool.
      relevance: [B, h, w] in [0, 1]; None leaves the scores out, as in the second of two stages.
      score_weight: of the scores' loss.
      cross_entropy: as for `mask_loss`.

    Returns:
      [B] float32.

    Raises:
      UserError: as `mask_loss` and `score_loss`.
    """
    loss = mask_loss(outputs, target, cross_entropy=cross_entropy)
    return loss if relevance is None else loss + score_weight * score_loss(outputs, relevance)


def selection_counts(masks: Sequence[jax.Array], target: jax.Array) -> jax.Array:
    """How well selections meet the patches with targets, to be summed over images.

    With the sums (both, selected, true), the paper's coverage is both / selected, which true / selected limits, and
    the recall both / true.

    Args:
      masks: each selection, one or one a stage: [B, h, w], 1 selected.
      target: [B, H, W] bool.

    Returns:
      [B, S, 3] float32 for each selection: selected patches with target pixels, selected ones, and all with target
      pixels.

    Raises:
      UserError: if nothing was selected.
    """
    if not masks:
        raise UserError("counting the selection needs a native branch, and this network has none")
    both, true = jnp.moveaxis(target_patch_recall(masks, target), -1, 0)
    selected = jnp.stack([jnp.sum(mask, axis=(1, 2)) for mask in masks], axis=1)
    return jnp.stack([both, selected, true], axis=-1)
