"""What an evaluation adds up: integers only, so that no order, batch size or split over processes changes a result."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from irjax.errors import UserError
from irjax.metrics.histograms import ScoreHistogram

# An IoU is kept as a fixed-point integer in units of 2**-60: finer than a double, and its sum is exact.
IOU_ONE = 1 << 60


@dataclasses.dataclass(frozen=True)
class Counts:
    """Sums over any number of images; ``a + b`` is the counts of both sets together.

    Python integers, hence without overflow (float32 sums are exact only up to 2^24). Point predictions leave the pixel
    fields at zero, and a protocol reports only what its inputs can give.

    Attributes:
      images: number of images.
      pixels: number of pixels, at the size they were evaluated.
      pixel_tp: target pixels that were predicted. This and the next two in units of 1 / `Protocol.pixel_unit`.
      pixel_fp: background pixels that were predicted.
      pixel_fn: target pixels that were not predicted.
      pixel_labelled: truth pixels that pixAcc divides by; in masks of two levels those of the targets.
      iou_sum: sum over images of the IoU, in units of 1 / `IOU_ONE`; an image with an empty union adds 0.
      both_empty: images with neither truth nor prediction.
      one_empty: images with exactly one of the two.
      truths: true targets.
      predictions: predicted targets.
      matched: matched pairs.
      overlapped: true targets with at least one predicted pixel.
      false_region_pixels: area of the predicted regions that match no target.
      area_set_pixels: area of the predicted regions that are as large as no matched one of their image.
      scores: histogram of the scores, where the protocol draws a curve; None adds nothing.
    """

    images: int = 0
    pixels: int = 0
    pixel_tp: int = 0
    pixel_fp: int = 0
    pixel_fn: int = 0
    pixel_labelled: int = 0
    iou_sum: int = 0
    both_empty: int = 0
    one_empty: int = 0
    truths: int = 0
    predictions: int = 0
    matched: int = 0
    overlapped: int = 0
    false_region_pixels: int = 0
    area_set_pixels: int = 0
    scores: ScoreHistogram | None = None

    def __post_init__(self):
        for name in FIELDS:
            # `index` turns NumPy integers into Python's and refuses floats.
            object.__setattr__(self, name, int(operator.index(getattr(self, name))))

    def __add__(self, other: Counts) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts.total((self, other))

    @classmethod
    def total(cls, rows: Iterable[Counts]) -> Counts:
        """The sum of any number of counts; of none, zeros."""
        rows = list(rows)
        histograms = [row.scores for row in rows if row.scores is not None]
        sums = {name: sum(getattr(row, name) for row in rows) for name in FIELDS}
        return cls(**sums, scores=ScoreHistogram.total(histograms) if histograms else None)


FIELDS = tuple(field.name for field in dataclasses.fields(Counts) if field.name != "scores")  # the integers


def fixed_point_iou(intersection: int, union: int, epsilon: float = 0.0) -> int:
    """``intersection / (union + epsilon)`` in units of 1 / `IOU_ONE`, rounded to nearest; 0 for an empty union."""
    intersection, union = operator.index(intersection), operator.index(union)
    if not union:
        return 0
    if not epsilon:
        return (intersection * IOU_ONE + union // 2) // union
    return round(intersection * IOU_ONE / (union + Fraction(epsilon)))


def columns(rows: Sequence[Counts]) -> dict[str, np.ndarray]:
    """Counts as arrays, for arithmetic over many of them at once.

    Args:
      rows: n counts.

    Returns:
      For each field of integers an [n] float64 array (exact up to 2^53), `iou_sum` in units of 1; and where there are
      histograms of B bins, "positive" and "negative" [n, B] float64.
    """
    table = {name: np.array([getattr(row, name) for row in rows], np.float64) for name in FIELDS if name != "iou_sum"}
    table["iou_sum"] = np.array([row.iou_sum / IOU_ONE for row in rows], np.float64)
    bins = {row.scores.bins for row in rows if row.scores is not None}
    if len(bins) > 1:
        raise UserError(f"histograms of {sorted(bins)} bins do not go into one table")
    for name in ("positive", "negative") if bins else ():
        none = np.zeros(*bins)
        each = [none if row.scores is None else getattr(row.scores, name) for row in rows]
        table[name] = np.array(each, np.float64)
    return table
