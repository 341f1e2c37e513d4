"""Losses of ADSNet: classification of sites, IoU scores, segmentation, and the decisions to keep patches.

Source: "ADSNet" (doi 10.1109/ACCESS.2024.3373436), Section III-C, Equation 7: L = L_cls + L_IoU + L_seg. L_cls and
L_seg are RetinaNet's focal loss, L_IoU is a binary cross-entropy. The equation has no term for the masks; the two terms
here are irjax's own, the first after DynamicViT (Rao et al., NeurIPS 2021). The other terms that L_seg can have are
irjax's own as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.losses.segmentation import FEWEST_PIXELS, binary_cross_entropy, by_positives, focal, soft_iou
from irjax.ops.patches import largest_in


def _focal(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the focal loss over the number of positives, at least 1: [B, h, w] twice to [B]."""
    return by_positives(focal(logits, target), target)


def _cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    return by_positives(binary_cross_entropy(logits, target), target, least=FEWEST_PIXELS)


# The possible terms of L_seg; the paper has only the focal loss.
SEGMENTATION = {"focal": _focal, "cross_entropy": _cross_entropy, "soft_iou": soft_iou}


def check_segmentation(terms: Sequence[str], name: str = "segmentation") -> None:
    """Raises UserError unless `terms` are one or several different terms of `SEGMENTATION`."""
    if isinstance(terms, str) or not terms or not set(terms) <= set(SEGMENTATION) or len(set(terms)) < len(terms):
        raise UserError(f"{name} must have one or several different ones of {tuple(SEGMENTATION)}, got {terms!r}")


def dilated(cells: jax.Array) -> jax.Array:
    """Returns the maximum of each cell and its eight neighbours: [B, h, w] to the same shape."""
    return jax.lax.reduce_window(cells, -jnp.inf, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")


def neighbourhood_iou(logits: jax.Array, target: jax.Array, cell: int) -> tuple[jax.Array, jax.Array]:
    """Computes the target of each cell's IoU score.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in {0, 1}.
      cell: side of a cell in pixels.

    Returns:
      The soft IoU of prediction and target in each cell and its eight neighbours, [B, h, w] without gradient, and a
      mask of where it is defined: in cells whose neighbourhood has a target pixel or more than half a pixel of
      prediction.
    """
    p = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
    batch, height, width = p.shape

    def around(value: jax.Array) -> jax.Array:
        sums = jnp.sum(value.reshape(batch, height // cell, cell, width // cell, cell), axis=(2, 4))
        return jax.lax.reduce_window(sums, 0.0, jax.lax.add, (1, 3, 3), (1, 1, 1), "SAME")

    both, predicted, true = around(p * target), around(p), around(target)
    union = predicted + true - both
    return both / jnp.maximum(union, 1e-6), (true > 0) | (predicted > 0.5)


def adsnet_loss(
    outputs: Any,
    target: jax.Array,
    *,
    cell: int = 16,
    dropped: Sequence[float | None] = (0.25, 0.5),
    segmentation: Sequence[str] = ("focal",),
    sparsity_weight: float = 2.0,
    recall_weight: float = 0.5,
) -> jax.Array:
    """Computes the loss of each image.

    Args:
      outputs: `irjax.models.adsnet.AdsnetOutputs` with class and IoU scores.
      target: [B, H, W] bool.
      cell: side of a patch in pixels.
      dropped: fractions of the patches that levels 3 and 2 should drop.
      segmentation: terms whose sum is L_seg. "focal" is divided by the number of target pixels, at least 1. irjax's own
        terms are "cross_entropy", divided by that number, at least 32, and "soft_iou".
      sparsity_weight: weight of the squared difference between the kept and the required fraction of patches.
      recall_weight: weight of the cross-entropy between decisions and the cells that have a target nearby.

    Returns:
      [B] float32.

    Raises:
      UserError: if there are no class scores, or L_seg has no term, a repeated one, or an unknown one.

    Note:
      For L_seg the paper names only the focal loss. It states neither the normalisation nor the target of L_cls. Here,
      as in RetinaNet, the loss is divided by the number of positives; a site is positive if it has a target pixel, and
      L_cls is the mean over the levels. The shipped weights `adsnet-sirst` were trained with ("focal", "soft_iou") in
      the first three trainings and with ("cross_entropy", "soft_iou") in the last.
    """
    check_segmentation(segmentation)
    if not outputs.classes:
        raise UserError("the loss needs the heads: ADSNet in training, or with heads=True")
    target = target.astype(jnp.float32)
    side = lambda values: target.shape[1] // values.shape[1]  # noqa: E731
    sites = [(site, largest_in(target, side(site))) for site in outputs.classes]
    loss = cast(jax.Array, sum(_focal(*site) for site in sites)) / len(sites)
    if outputs.scores is not None:
        wanted, defined = neighbourhood_iou(outputs.logits, target, cell)
        loss += sum(_score_loss(score, wanted, defined) for score in outputs.scores) / len(outputs.scores)
    loss += sum(SEGMENTATION[term](outputs.logits, target) for term in segmentation)
    occupied = dilated(largest_in(target, cell))
    for decision, mask, fraction in zip(outputs.decisions, outputs.kept, dropped, strict=True):
        if decision is not None:
            # A level has decisions only if a fraction is dropped there.
            loss += sparsity_weight * (jnp.mean(mask, axis=(1, 2)) - (1 - cast(float, fraction))) ** 2
            loss += recall_weight * binary_cross_entropy(decision[..., 0] - decision[..., 1], occupied)
    return loss


def _score_loss(scores: jax.Array, wanted: jax.Array, defined: jax.Array) -> jax.Array:
    """Returns the cross-entropy of IoU scores [B, h', w'] with cells' targets [B, h, w], averaged where defined."""
    times = scores.shape[1] // wanted.shape[1]
    if times:
        wanted, defined = (jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2) for x in (wanted, defined))
    else:  # cells finer than the sites
        finer = wanted.shape[1] // scores.shape[1]
        wanted, defined = largest_in(wanted, finer), largest_in(defined, finer) > 0
    value = -wanted * jax.nn.log_sigmoid(scores) - (1 - wanted) * jax.nn.log_sigmoid(-scores)
    return jnp.sum(value * defined, axis=(1, 2)) / jnp.maximum(jnp.sum(defined, axis=(1, 2)), 1)


def target_patch_recall(kept: Sequence[jax.Array], target: jax.Array) -> jax.Array:
    """Counts the patches with target pixels that each mask keeps.

    Args:
      kept: masks [B, h, w] of the levels, 1 where kept.
      target: [B, H, W] bool.

    Returns:
      [B, L, 2] float32: number of kept patches with targets and of all patches with targets, to be summed over images;
      the recall is their ratio.
    """

    def counts(mask: jax.Array) -> jax.Array:
        occupied = largest_in(target, target.shape[1] // mask.shape[1])
        return jnp.stack([jnp.sum(occupied * (mask > 0), axis=(1, 2)), jnp.sum(occupied, axis=(1, 2))], axis=-1)

    return jnp.stack([counts(patches) for patches in kept], axis=1)
