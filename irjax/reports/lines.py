"""What lies between the points of a ROC or a precision-recall curve: the same in tables, pictures and pages."""

from __future__ import annotations

import math

import numpy as np

Points = tuple[np.ndarray, np.ndarray]

_PER_DECADE = 64  # points of a line on a logarithmic axis


def roc_line(false: np.ndarray, true: np.ndarray, level: str) -> Points:
    """Returns the line of a ROC on linear axes.

    Targets: steps, the highest detection rate that is reached with at most so many false alarms; nothing is
    interpolated between two thresholds, as in the average precision. Pixels: straight between the points, as the
    trapezoidal rule of the AUC has it.

    Args:
      false: [T] false alarm rates, in any order; points that are not finite are left out.
      true: [T] detection rates.
      level: `target` or `pixel`.

    Returns:
      x and y of the line's corners, [N] float64 each; x rises, and where it stays y rises.
    """
    false, true = np.asarray(false, np.float64), np.asarray(true, np.float64)
    known = np.isfinite(false) & np.isfinite(true)
    false, true = false[known], true[known]
    order = np.lexsort((true, false))
    false, true = false[order], true[order]
    if level != "target" or not len(false):
        return false, true
    best = np.maximum.accumulate(true)
    rises = np.concatenate([[True], np.diff(best) > 0])
    x, y = false[rises], best[rises]
    # The rate remains beyond the last point, where a detector can be used just as well.
    return np.append(np.repeat(x, 2)[1:], math.inf), np.repeat(y, 2)


def detection_rates(line: Points, rates: np.ndarray) -> np.ndarray:
    """Returns y of a line from `roc_line` at false alarm rates, [N] float64; nan before its first and after its end."""
    x, y = line
    if not len(x):
        return np.full(np.shape(rates), np.nan)
    rates = np.asarray(rates, np.float64)
    end = float(np.max(rates, initial=0.0, where=np.isfinite(rates))) + 1
    return np.interp(rates, np.where(np.isinf(x), max(end, x[0]), x), y, left=np.nan, right=np.nan)


def on_log_axis(line: Points, low: float, high: float) -> Points:
    """Returns the part of a line from `roc_line` between two positive limits, with so many corners that it is right.

    What is straight on linear axes is bent on a logarithmic one. A line that begins at 0 begins at `low`.
    """
    x, y = line
    between = np.geomspace(low, high, round(_PER_DECADE * math.log10(high / low)) + 1)
    between[[0, -1]] = low, high
    inside = (x >= low) & (x <= high)
    x = np.concatenate([x[inside], between])
    y = np.concatenate([y[inside], detection_rates(line, between)])
    order = np.lexsort((y, x))
    order = order[np.isfinite(y[order])]
    return x[order], y[order]


def precision_recall_line(recall: np.ndarray, precision: np.ndarray) -> Points:
    """Returns the steps of a precision-recall curve, under which the area is the average precision.

    A gain in recall counts with the precision at its end.

    Args:
      recall: [T] along rising thresholds, as in `irjax.metrics.Sweep`; points that are not finite are left out.
      precision: [T].

    Returns:
      x and y of the line's corners, [2 T] float64 each at most, from recall 0.
    """
    known = np.isfinite(recall) & np.isfinite(precision)
    recall, precision = np.asarray(recall)[known][::-1], np.asarray(precision)[known][::-1]
    return np.repeat(np.concatenate([[0.0], recall]), 2)[1:-1], np.repeat(precision, 2)


def decades(values: np.ndarray, high: float | None = None) -> tuple[float, float]:
    """Returns the limits of whole decades, at least one, that hold all positive values and `high`."""
    values = np.asarray(values, np.float64)
    positive = values[np.isfinite(values) & (values > 0)]
    top = high if high is not None else float(positive.max(initial=0.0)) or 1.0
    last = math.ceil(math.log10(top) - 1e-9)
    first = min(math.floor(math.log10(positive.min(initial=top)) + 1e-9), last - 1)
    return 10.0**first, 10.0**last
