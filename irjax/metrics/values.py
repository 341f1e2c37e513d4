"""From counts to numbers: every metric is a formula over sums, so it works on one set, one image or 1,000 resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from irjax.metrics.accumulators import Counts, columns
from irjax.metrics.protocols import Protocol

Sums = Mapping[str, np.ndarray]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """``numerator / denominator``, nan where the denominator is 0. Float64, broadcast."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


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


def _fa(sums: Sums, spec: Protocol) -> np.ndarray:
    by_area = spec.false_alarm == "area"
    return ratio(sums["false_region_pixels"] if by_area else sums["predictions"] - sums["matched"], sums["pixels"])


METRICS: Mapping[str, Callable[[Sums, Protocol], np.ndarray]] = MappingProxyType(
    {
        "IoU": _iou,
        "nIoU": _niou,
        "Precision": _precision,
        "Recall": _recall,
        "Pd": _recall,
        "F1": _f1,
        "Fa": _fa,
        "TP": lambda sums, spec: sums["matched"],
        "FP": lambda sums, spec: sums["predictions"] - sums["matched"],
        "FN": lambda sums, spec: sums["truths"] - sums["matched"],
    }
)

COUNTED = frozenset({"TP", "FP", "FN"})  # integers


def compute(sums: Sums, spec: Protocol) -> dict[str, np.ndarray]:
    """The protocol's metrics from sums of any shape; nan where a metric is undefined.

    Args:
      sums: a float64 array for each field of `Counts`, all of one shape (`accumulators.columns`).
      spec: the protocol.

    Returns:
      {metric: float64 array of that shape}.
    """
    return {name: METRICS[name](sums, spec) for name in spec.metrics}


def from_counts(counts: Counts, spec: Protocol) -> dict[str, float | int]:
    """The protocol's metrics of one set: floats (nan where undefined), and integers for TP, FP and FN."""
    values = compute(columns([counts]), spec)
    return {name: int(value[0]) if name in COUNTED else float(value[0]) for name, value in values.items()}
