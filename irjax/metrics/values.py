"""Metrics as formulas over summed counts.

The same formulas work for one image, a whole set or many bootstrap resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from irjax.metrics.accumulators import Counts, columns
from irjax.metrics.histograms import area, ratio
from irjax.metrics.protocols import Protocol

Sums = Mapping[str, np.ndarray]


def _iou(sums: Sums, spec: Protocol) -> np.ndarray:
    return ratio(sums["pixel_tp"], sums["pixel_tp"] + sums["pixel_fp"] + sums["pixel_fn"])


def _niou(sums: Sums, spec: Protocol) -> np.ndarray:
    if spec.empty == "skip":
        return ratio(sums["iou_sum"], sums["images"] - sums["both_empty"])
    return ratio(sums["iou_sum"] + (sums["both_empty"] if spec.empty == "one" else 0), sums["images"])


def _precision(sums: Sums, spec: Protocol) -> np.ndarray:
    return ratio(sums["matched"], sums["predictions"])


def _recall(sums: Sums, spec: Protocol) -> np.ndarray:
    return ratio(sums["matched"], sums["truths"])


def _f1(sums: Sums, spec: Protocol) -> np.ndarray:
    return ratio(2 * sums["matched"], sums["predictions"] + sums["truths"])


def false_alarms(sums: Sums, spec: Protocol) -> np.ndarray:
    """Returns the numerator of Fa under a protocol, for sums of any shape."""
    if spec.false_alarm == "count":
        return sums["predictions"] - sums["matched"]
    if spec.false_alarm == "pixels":
        return sums["pixel_fp"] / spec.pixel_unit
    return sums["area_set_pixels" if spec.false_alarm == "area_set" else "false_region_pixels"]


def fa_pixels(sums: Sums, spec: Protocol) -> np.ndarray:
    """Returns the denominator of Fa under a protocol, for sums of any shape."""
    if spec.false_alarm_per == "background":
        return sums["pixels"] - (sums["pixel_tp"] + sums["pixel_fn"]) / spec.pixel_unit
    return sums["pixels"]


def _auc(sums: Sums, spec: Protocol) -> np.ndarray:
    if "positive" not in sums:
        return np.full(np.shape(sums["images"]), np.nan)
    assert spec.curve is not None  # a protocol with AUC has a curve
    return area(sums["positive"], sums["negative"], spec.curve)


def _pixel_precision(sums: Sums, spec: Protocol) -> np.ndarray:
    return ratio(sums["pixel_tp"], sums["pixel_tp"] + sums["pixel_fp"])


def _pixel_recall(sums: Sums, spec: Protocol) -> np.ndarray:
    return ratio(sums["pixel_tp"], sums["pixel_tp"] + sums["pixel_fn"])


def _pixel_f1(sums: Sums, spec: Protocol) -> np.ndarray:
    if spec.curve is not None and spec.curve.f1_smoothing:
        smoothing = spec.curve.smoothing
        precision = sums["pixel_tp"] / (sums["pixel_tp"] + sums["pixel_fp"] + smoothing)
        recall = sums["pixel_tp"] / (sums["pixel_tp"] + sums["pixel_fn"] + smoothing)
        return ratio(2 * precision * recall, precision + recall + spec.curve.f1_smoothing)
    return ratio(2 * sums["pixel_tp"], 2 * sums["pixel_tp"] + sums["pixel_fp"] + sums["pixel_fn"])


METRICS: Mapping[str, Callable[[Sums, Protocol], np.ndarray]] = MappingProxyType(
    {
        "IoU": _iou,
        "nIoU": _niou,
        "pixAcc": lambda sums, spec: ratio(sums["pixel_tp"], sums["pixel_labelled"]),
        "PixelPrecision": _pixel_precision,
        "PixelRecall": _pixel_recall,
        "PixelF1": _pixel_f1,
        "Precision": _precision,
        "Recall": _recall,
        "Pd": _recall,
        "OverlapPd": lambda sums, spec: ratio(sums["overlapped"], sums["truths"]),
        "F1": _f1,
        "Fa": lambda sums, spec: ratio(false_alarms(sums, spec), fa_pixels(sums, spec)),
        "FalsePerImage": lambda sums, spec: ratio(sums["predictions"] - sums["matched"], sums["images"]),
        "AUC": _auc,
        "TP": lambda sums, spec: sums["matched"],
        "FP": lambda sums, spec: sums["predictions"] - sums["matched"],
        "FN": lambda sums, spec: sums["truths"] - sums["matched"],
    }
)

COUNTED = frozenset({"TP", "FP", "FN"})  # metrics that are integers


def compute(sums: Sums, spec: Protocol) -> dict[str, np.ndarray]:
    """Computes the protocol's metrics from sums of any shape; nan where a metric is undefined.

    Args:
      sums: float64 arrays of the same shape; histograms have one more axis (`accumulators.columns`).
      spec: the protocol.

    Returns:
      {metric: float64 array of that shape}.
    """
    return {name: METRICS[name](sums, spec) for name in spec.metrics}


def from_counts(counts: Counts, spec: Protocol) -> dict[str, float | int]:
    """Computes the protocol's metrics of one set: floats (nan if undefined), and integers for TP, FP and FN."""
    values = compute(columns([counts]), spec)
    return {name: int(value[0]) if name in COUNTED else float(value[0]) for name, value in values.items()}
