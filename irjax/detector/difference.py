"""How far an exported program is from its detector."""

from __future__ import annotations

import dataclasses

import numpy as np

from irjax.types import Detections


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far an exported program is from its detector, on some images of one size.

    Attributes:
      maps: largest difference of a probability of the masks, or of a score where there are no masks.
      points: largest distance in pixels from a point to the nearest one of the other, over the images compared.
      compared: number of images without a value close to the threshold, whose points must be the same.
      same: whether each of these has as many points in both.
    """

    maps: float
    points: float
    compared: int
    same: bool

    def __str__(self) -> str:
        points = f"points {self.points:.1g} px ({self.compared} images)" if self.same else "other points"
        return f"maps {self.maps:.1g}, {points}"


_CLOSE = 1e-3  # to the threshold: rounding may decide whether it is passed


def difference(found: Detections, wanted: Detections, threshold: float) -> Difference:
    """Compares the detections of an exported program with those of its detector.

    Args:
      found: of the program; masks [B, H, W] or None.
      wanted: of the detector, for the same images.
      threshold: of both.
    """
    one, other = (np.asarray(x.scores if x.masks is None else x.masks) for x in (found, wanted))
    clear = ~np.any(np.abs(other.reshape(len(other), -1) - threshold) < _CLOSE, axis=1)
    # Not by their rank: rounding may exchange points of nearly equal scores.
    pairs = [
        [np.asarray(x.points)[index][np.asarray(x.valid)[index]] for x in (found, wanted)]
        for index in np.flatnonzero(clear)
    ]
    same = [pair for pair in pairs if len(pair[0]) == len(pair[1])]
    distances = [np.linalg.norm(pair[0][:, None] - pair[1], axis=-1) for pair in same if len(pair[0])]
    return Difference(
        maps=float(np.max(np.abs(one - other))),
        points=max((float(max(d.min(0).max(), d.min(1).max())) for d in distances), default=0.0),
        compared=len(pairs),
        same=len(same) == len(pairs),
    )
