"""What an evaluation adds up: integers only, so that no order, batch size or split over processes changes a result."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence

import numpy as np

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
      pixel_tp: target pixels that were predicted.
      pixel_fp: background pixels that were predicted.
      pixel_fn: target pixels that were not predicted.
      iou_sum: sum over images of the IoU, in units of 1 / `IOU_ONE`; an image with an empty union adds 0.
      both_empty: images with neither truth nor prediction.
      one_empty: images with exactly one of the two.
      truths: true targets.
      predictions: predicted targets.
      matched: matched pairs.
      false_region_pixels: area of the predicted regions that match no target.
    """

    images: int = 0
    pixels: int = 0
    pixel_tp: int = 0
    pixel_fp: int = 0
    pixel_fn: int = 0
    iou_sum: int = 0
    both_empty: int = 0
    one_empty: int = 0
    truths: int = 0
    predictions: int = 0
    matched: int = 0
    false_region_pixels: int = 0

    def __post_init__(self):
        for name in FIELDS:
            # `index` turns NumPy integers into Python's and refuses floats.
            object.__setattr__(self, name, int(operator.index(getattr(self, name))))

    def __add__(self, other: Counts) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(*(getattr(self, name) + getattr(other, name) for name in FIELDS))

    @classmethod
    def total(cls, rows: Iterable[Counts]) -> Counts:
        """The sum of any number of counts; of none, zeros."""
        rows = list(rows)
        return cls(*(sum(getattr(row, name) for row in rows) for name in FIELDS))


FIELDS = tuple(field.name for field in dataclasses.fields(Counts))


def fixed_point_iou(intersection: int, union: int) -> int:
    """``intersection / union`` in units of 1 / `IOU_ONE`, rounded to nearest; 0 for an empty union."""
    intersection, union = operator.index(intersection), operator.index(union)
    return (intersection * IOU_ONE + union // 2) // union if union else 0


def columns(rows: Sequence[Counts]) -> dict[str, np.ndarray]:
    """Counts as arrays, for arithmetic over many of them at once.

    Args:
      rows: n counts.

    Returns:
      For each field an [n] float64 array (exact up to 2^53); `iou_sum` in units of 1.
    """
    table = {name: np.array([getattr(row, name) for row in rows], np.float64) for name in FIELDS if name != "iou_sum"}
    table["iou_sum"] = np.array([row.iou_sum / IOU_ONE for row in rows], np.float64)
    return table
