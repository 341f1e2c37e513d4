"""Pixel counts and score histograms of batches, on the device inside jit or with NumPy.

Within a batch the device counts in int32, which is exact. The host converts the counts to `Counts` and
`ScoreHistogram`, whose sums are Python integers and int64. No count is ever converted to a float.

Examples:
  >>> step = jax.jit(lambda images, masks: device_pixel_counts(model(images), masks, logits=True))  # doctest: +SKIP
  >>> total += pixel_rows(*jax.device_get(step(images, masks)), pixels=512 * 512)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from irjax.errors import UserError
from irjax.metrics import inputs
from irjax.metrics.accumulators import Counts, fixed_point_iou
from irjax.metrics.histograms import ScoreHistogram, count_scores, levels_of

if TYPE_CHECKING:
    import jax


class PixelCounts(NamedTuple):
    """Pixel counts of the images of a batch, [B] int32 on the device and [B] int64 with NumPy."""

    tp: Any
    fp: Any
    fn: Any


class ScoreCounts(NamedTuple):
    """Counts of the pixels of a batch between T thresholds, [T + 1] int32 on the device and int64 with NumPy."""

    positive: Any
    negative: Any


def device_pixel_counts(
    scores: jax.Array, masks: jax.Array, threshold: float = 0.5, *, logits: bool = False
) -> PixelCounts:
    """Counts the pixels of each image; pure and jit-compatible, with static `threshold` and `logits`.

    Args:
      scores: [B, H, W] floats: probabilities, or logits if `logits`.
      masks: [B, H, W]; nonzero is target.
      threshold: probability; a pixel is a target where p > threshold, as everywhere in irjax.
      logits: whether `scores` are logits. They are compared as logits: a threshold of 0.5 is logit > 0.

    Returns:
      The counts. NaN scores count as background.

    Raises:
      UserError: if shapes differ, or `threshold` is not in [0, 1].
    """
    import jax.numpy as jnp

    _check_batch(scores.shape, masks.shape)
    predicted, truth = scores > inputs.cut_level(threshold, logits=logits), masks != 0
    axes = (1, 2)
    tp, positive, true = (part.sum(axes, dtype=jnp.int32) for part in (predicted & truth, predicted, truth))
    return PixelCounts(tp, positive - tp, true - tp)


def device_score_counts(
    scores: jax.Array, masks: jax.Array, bins: int | Sequence[float] = 256, *, valid: jax.Array | None = None
) -> ScoreCounts:
    """Computes the score histogram of a batch; pure and jit-compatible, with static `bins`.

    Args:
      scores: [B, H, W] floats in [0, 1].
      masks: [B, H, W]; nonzero is target.
      bins: number of equal bins of [0, 1], or the rising thresholds between bins.
      valid: [B] or [B, H, W] bool, which images or pixels count, for padded batches and padded images; None: all.

    Returns:
      The counts. NaN scores are counted in the last bin.

    Raises:
      UserError: if shapes differ, or the batch has 2^31 pixels or more, which int32 cannot count.
    """
    import jax.numpy as jnp

    _check_batch(scores.shape, masks.shape)
    if scores.size >= 1 << 31:
        raise UserError(f"a batch of {scores.size} pixels is too large for int32 counts; split it")
    levels = levels_of(bins)
    index = jnp.searchsorted(jnp.asarray(levels, scores.dtype), scores.reshape(-1), side="left")
    index = index + (len(levels) + 1) * (masks.reshape(-1) != 0)
    weights = None
    if valid is not None:
        each = valid.reshape(valid.shape + (1,) * (scores.ndim - valid.ndim))
        weights = jnp.broadcast_to(each, scores.shape).reshape(-1).astype(jnp.int32)
    counts = jnp.bincount(index, weights, length=2 * (len(levels) + 1)).astype(jnp.int32)
    negative, positive = counts.reshape(2, -1)
    return ScoreCounts(positive, negative)


def pixel_counts(scores: np.ndarray, masks: np.ndarray, threshold: float = 0.5, *, logits: bool = False) -> PixelCounts:
    """Computes `device_pixel_counts` with NumPy; accepts every kind of map that `inputs.predicted_mask` does."""
    _check_batch(np.shape(scores), np.shape(masks))
    rows = []
    for score, mask in zip(scores, masks, strict=True):
        predicted, truth = inputs.predicted_mask(score, threshold, logits=logits), np.asarray(mask) != 0
        tp = np.count_nonzero(predicted & truth)
        rows.append((tp, np.count_nonzero(predicted) - tp, np.count_nonzero(truth) - tp))
    return PixelCounts(*np.array(rows, np.int64).reshape(-1, 3).T)


def score_counts(scores: np.ndarray, masks: np.ndarray, bins: int | Sequence[float] = 256) -> ScoreCounts:
    """Computes `device_score_counts` with NumPy."""
    _check_batch(np.shape(scores), np.shape(masks))
    levels = levels_of(bins)
    positive, negative = np.zeros((2, len(levels) + 1), np.int64)
    for score, mask in zip(scores, masks, strict=True):
        probabilities, truth = inputs.probabilities(score), np.asarray(mask) != 0
        positive += count_scores(probabilities[truth], levels)
        negative += count_scores(probabilities[~truth], levels)
    return ScoreCounts(positive, negative)


def pixel_rows(counts: PixelCounts, pixels: int) -> list[Counts]:
    """Converts pixel counts to one `Counts` for each image, for IoU, nIoU and other metrics that need no regions.

    Args:
      counts: [B] each, on the host or the device.
      pixels: number of pixels of one image.
    """
    rows = []
    for tp, fp, fn in zip(*(np.asarray(part).tolist() for part in counts), strict=True):
        empty = int(tp + fn == 0) + int(tp + fp == 0)
        rows.append(
            Counts(
                images=1,
                pixels=pixels,
                pixel_tp=tp,
                pixel_fp=fp,
                pixel_fn=fn,
                pixel_labelled=tp + fn,
                iou_sum=fixed_point_iou(tp, tp + fp + fn),
                both_empty=empty == 2,
                one_empty=empty == 1,
            )
        )
    return rows


def as_histogram(counts: ScoreCounts, bins: int | Sequence[float] = 256) -> ScoreHistogram:
    """Converts score counts, on the host or the device, to a histogram that adds up exactly over batches."""
    return ScoreHistogram(np.asarray(counts.positive), np.asarray(counts.negative), levels_of(bins))


def _check_batch(scores: tuple[int, ...], masks: tuple[int, ...]) -> None:
    if len(scores) != 3 or scores != masks:
        raise UserError(f"scores and masks must be [B, H, W] and alike, got {scores} and {masks}")
