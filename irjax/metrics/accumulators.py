"""The counts that an evaluation accumulates.

All counts are integers, so the result does not depend on the order of the images, the batch size or the number of
processes.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from irjax.errors import UserError
from irjax.metrics.histograms import ScoreHistogram

# An IoU is stored as a fixed-point integer in units of 2**-60. This is finer than a double, and sums are exact.
IOU_ONE = 1 << 60


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts summed over any number of images; ``a + b`` gives the counts of both sets together.

    All fields are Python integers, so they cannot overflow (float32 sums are exact only up to 2^24). Point predictions
    leave the pixel fields at zero; a protocol reports only the metrics that its inputs support.

    Attributes:
      images: number of images.
      pixels: number of pixels, at the size at which they were evaluated.
      pixel_tp: target pixels that were predicted. This and the next two are in units of 1 / `Protocol.pixel_unit`.
      pixel_fp: background pixels that were predicted.
      pixel_fn: target pixels that were not predicted.
      pixel_labelled: truth pixels that pixAcc divides by; in binary masks these are the target pixels.
      iou_sum: sum of the IoU over images, in units of 1 / `IOU_ONE`; an image with an empty union adds 0.
      both_empty: images with neither truth nor prediction.
      one_empty: images with exactly one of the two.
      truths: true targets.
      predictions: predicted targets.
      matched: matched pairs.
      overlapped: true targets with at least one predicted pixel.
      false_region_pixels: total area of the predicted regions that match no target.
      area_set_pixels: total area of the predicted regions whose area differs from that of every matched region in the
        same image.
      scores: histogram of the scores if the protocol draws a curve; None adds nothing.
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
            # `index` converts NumPy integers to Python integers and rejects floats.
            object.__setattr__(self, name, int(operator.index(getattr(self, name))))

    def __add__(self, other: Counts) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts.total((self, other))

    @classmethod
    def total(cls, rows: Iterable[Counts]) -> Counts:
        """Returns the sum of any number of counts; all zeros if there are none."""
        rows = list(rows)
        histograms = [row.scores for row in rows if row.scores is not None]
        sums = {name: sum(getattr(row, name) for row in rows) for name in FIELDS}
        return cls(**sums, scores=ScoreHistogram.total(histograms) if histograms else None)


FIELDS = tuple(field.name for field in dataclasses.fields(Counts) if field.name != "scores")  # integer fields


def fixed_point_iou(intersection: int, union: int, epsilon: float = 0.0) -> int:
    """Returns ``intersection / (union + epsilon)`` in units of 1 / `IOU_ONE`, rounded to nearest; 0 if union is 0."""
    intersection, union = operator.index(intersection), operator.index(union)
    if not union:
        return 0
    if not epsilon:
        return (intersection * IOU_ONE + union // 2) // union
    return round(intersection * IOU_ONE / (union + Fraction(epsilon)))


def columns(rows: Sequence[Counts]) -> dict[str, np.ndarray]:
    """Converts counts to arrays, for vectorised arithmetic.

    Args:
      rows: n counts.

    Returns:
      An [n] float64 array for each integer field (exact up to 2^53), with `iou_sum` in units of 1; if there are
      histograms of B bins, also "positive" and "negative", [n, B] float64.

    Raises:
      UserError: if the histograms differ in their number of bins.
    """
    table = {name: np.array([getattr(row, name) for row in rows], np.float64) for name in FIELDS if name != "iou_sum"}
    table["iou_sum"] = np.array([row.iou_sum / IOU_ONE for row in rows], np.float64)
    bins = {row.scores.bins for row in rows if row.scores is not None}
    if len(bins) > 1:
        raise UserError(f"histograms of {sorted(bins)} bins do not go into one table")
    for name in ("positive", "negative") if bins else ():
        none = np.zeros(next(iter(bins)))
        each = [none if row.scores is None else getattr(row.scores, name) for row in rows]
        table[name] = np.array(each, np.float64)
    return table
