"""Validation of methods that predict points."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from irjax.metrics.curves import centroid_sweep
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.ops.letterbox import from_canvas
from irjax.types import Detections, Example

THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)


def score_points(
    found: Iterable[tuple[Example, Detections]], *, size: int, enlarge: bool = True, threshold: float
) -> dict[str, float]:
    """Scores points under the `centroid` protocol, at a fixed threshold and at the best F1 of a sweep.

    Args:
      found: the images in order, and the detections of each on its canvas: points [1, N, 2], scores [1, N],
        valid [1, N], numpy.
      size: side of the canvas in pixels.
      enlarge: whether smaller images were scaled up to it.
      threshold: lowest score of a detection.

    Returns:
      ``f1``, ``precision``, ``recall``, ``fa`` (false detections per pixel), ``tp``, ``fp``, ``fn`` at the threshold,
      and ``best_f1`` at ``best_threshold``; nan where undefined.
    """
    predictions, truths = [], []
    for example, one in found:
        height, width = example.image.shape
        valid = one.valid[0]
        points = from_canvas(one.points[0, valid], height, width, size, enlarge)
        predictions.append(PointPredictions(points, one.scores[0, valid]))
        truths.append(PointTruth(example.points, height, width))
    thresholds = np.unique(np.append(THRESHOLDS, threshold))
    sweep = centroid_sweep(predictions, truths, thresholds)
    at, best = sweep.at(int(np.searchsorted(thresholds, threshold))), sweep.best()
    return {
        "f1": at.f1,
        "precision": at.precision,
        "recall": at.recall,
        "fa": at.fa,
        "tp": at.tp,
        "fp": at.fp,
        "fn": at.fn,
        "best_f1": best.f1,
        "best_threshold": best.threshold,
    }
