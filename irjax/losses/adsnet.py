"""The losses of ADSNet: where targets are, how well they are segmented, their pixels, and which patches to keep.

Source: "ADSNet" (doi 10.1109/ACCESS.2024.3373436), Section III-C, Equation 7: L = L_cls + L_IoU + L_seg. L_cls and
L_seg are RetinaNet's focal loss, L_IoU is a binary cross-entropy. The equation has no term for the masks; the two here
are irjax's own, the first after DynamicViT (Rao et al., NeurIPS 2021). So are the other terms that L_seg can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.losses.segmentation import FEWEST_PIXELS, binary_cross_entropy, by_positives, focal, soft_iou
from irjax.ops.patches import largest_in


def _focal(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Over the number of positives, at least 1: [B, h, w] twice to [B]."""
    return by_positives(focal(logits, target), target)


def _cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    return by_positives(binary_cross_entropy(logits, target), target, least=FEWEST_PIXELS)


# The terms that L_seg can have; the paper's is the focal loss.
SEGMENTATION = {"focal": _focal, "cross_entropy": _cross_entropy, "soft_iou": soft_iou}


def check_segmentation(terms: Sequence[str], name: str = "segmentation") -> None:
    """Raises UserError unless these are different ones of `SEGMENTATION`, at least one."""
    if isinstance(terms, str) or not terms or not set(terms) <= set(SEGMENTATION) or len(set(terms)) < len(terms):
        raise UserError(f"{name} must have one or several different ones of {tuple(SEGMENTATION)}, got {terms!r}")


def dilated(cells: jax.Array) -> jax.Array:
    """The largest value of each cell and its eight neighbours: [B, h, w] to the same."""
    return jax.lax.reduce_window(cells, -jnp.inf, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")


def neighbourhood_iou(logits: jax.Array, target: jax.Array, cell: int) -> tuple[jax.Array, jax.Array]:
    """What the IoU score of each cell should say.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in {0, 1}.
      cell: side of a cell in pixels.

    Returns:
      The soft IoU of prediction and target in each cell and its eight neighbours, [B, h, w] without gradient, and where
      it is defined: in cells whose neighbourhood has a target pixel or half a pixel of prediction.
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
    """The loss of each image.

    Args:
      outputs: `irjax.models.adsnet.AdsnetOutputs` with what the heads say.
      target: [B, H, W] bool.
      cell: side of a patch in pixels.
      dropped: fractions of the patches that levels 3 and 2 should drop.
      segmentation: the terms whose sum is L_seg. "focal": over the number of target pixels, at least 1. irjax's own are
        "cross_entropy", over that number, at least 32, and "soft_iou".
      sparsity_weight: of the squared difference between kept and wanted fraction.
      recall_weight: of the cross-entropy between decisions and the cells that have a target nearby.

    Returns:
      [B] float32.

    Raises:
      UserError: if the heads said nothing, or L_seg has no term, one twice, or an unknown one.

    Note:
      The paper names the focal loss alone for L_seg; how it is normalised it does not say, nor what the target of L_cls
      is: here, as in RetinaNet, the number of positives, and whether a site has a target pixel, the mean over the
      levels. The shipped weights `adsnet-sirst` had ("focal", "soft_iou") in their first three trainings and
      ("cross_entropy", "soft_iou") in the last.
    """
    check_segmentation(segmentation)
    if not outputs.classes:
        raise UserError("the loss needs the heads: ADSNet in training, or with heads=True")
    target = target.astype(jnp.float32)
    side = lambda values: target.shape[1] // values.shape[1]  # noqa: E731
    sites = [(site, largest_in(target, side(site))) for site in outputs.classes]
    loss = sum(_focal(*site) for site in sites) / len(sites)
    if outputs.scores is not None:
        wanted, defined = neighbourhood_iou(outputs.logits, target, cell)
        loss += sum(_score_loss(score, wanted, defined) for score in outputs.scores) / len(outputs.scores)
    loss += sum(SEGMENTATION[term](outputs.logits, target) for term in segmentation)
    occupied = dilated(largest_in(target, cell))
    for decision, mask, fraction in zip(outputs.decisions, outputs.masks, dropped, strict=True):
        if decision is not None:
            loss += sparsity_weight * (jnp.mean(mask, axis=(1, 2)) - (1 - fraction)) ** 2
            loss += recall_weight * binary_cross_entropy(decision[..., 0] - decision[..., 1], occupied)
    return loss


def _score_loss(scores: jax.Array, wanted: jax.Array, defined: jax.Array) -> jax.Array:
    """Cross-entropy of IoU scores [B, h', w'] with what cells [B, h, w] should say, the mean where that is defined."""
    times = scores.shape[1] // wanted.shape[1]
    if times:
        wanted, defined = (jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2) for x in (wanted, defined))
    else:  # cells finer than the sites
        finer = wanted.shape[1] // scores.shape[1]
        wanted, defined = largest_in(wanted, finer), largest_in(defined, finer) > 0
    value = -wanted * jax.nn.log_sigmoid(scores) - (1 - wanted) * jax.nn.log_sigmoid(-scores)
    return jnp.sum(value * defined, axis=(1, 2)) / jnp.maximum(jnp.sum(defined, axis=(1, 2)), 1)


def target_patch_recall(masks: Sequence[jax.Array], target: jax.Array) -> jax.Array:
    """Which part of the patches with target pixels each mask keeps.

    Args:
      masks: of the levels, each [B, h, w], 1 kept.
      target: [B, H, W] bool.

    Returns:
      [B, L, 2] float32: kept patches with targets, and all with targets, to be summed over images.
    """

    def counts(mask: jax.Array) -> jax.Array:
        occupied = largest_in(target, target.shape[1] // mask.shape[1])
        return jnp.stack([jnp.sum(occupied * (mask > 0), axis=(1, 2)), jnp.sum(occupied, axis=(1, 2))], axis=-1)

    return jnp.stack([counts(mask) for mask in masks], axis=1)
