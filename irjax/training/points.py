"""Validation of methods that predict points."""

from __future__ import annotations

import numpy as np

from irjax.metrics.curves import centroid_sweep
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.ops.letterbox import from_canvas
from irjax.training.data import Split
from irjax.types import Detections

THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)


def to_original(
    detections: Detections, sizes: tuple[tuple[int, int], ...], size: int, enlarge: bool = True
) -> list[PointPredictions]:
    """Canvas detections of N images as points in the pixels of each original image.

    Args:
      detections: points [N, D, 2], scores [N, D], valid [N, D], numpy, on a canvas of side `size`.
      sizes: (height, width) of each image.
      size: side of the canvas in pixels.
      enlarge: whether smaller images were scaled up to it.
    """
    found = []
    for points, scores, valid, (height, width) in zip(
        detections.points, detections.scores, detections.valid, sizes, strict=True
    ):
        found.append(PointPredictions(from_canvas(points[valid], height, width, size, enlarge), scores[valid]))
    return found


def score_points(detections: Detections, split: Split, *, size: int, threshold: float) -> dict[str, float]:
    """The `centroid` protocol on a split: at the fixed threshold, and the best F1 of a sweep."""
    predictions = to_original(detections, split.sizes, size, split.enlarge)
    truths = [PointTruth(points, *shape) for points, shape in zip(split.points, split.sizes, strict=True)]
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
