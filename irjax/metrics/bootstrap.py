"""Percentile bootstrap over images: how much a metric would vary with another sample of test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irjax.errors import UserError
from irjax.metrics.accumulators import Counts, columns
from irjax.metrics.protocols import Protocol
from irjax.metrics.values import compute

_ELEMENTS = 1 << 22  # elements of the draws held in memory at a time (32 MiB)


def resampled_sums(rows: Sequence[Counts], *, samples: int, seed: int) -> dict[str, np.ndarray]:
    """Computes the summed counts of `samples` bootstrap resamples of the images.

    Each resample draws n images with replacement. The draws depend only on `seed`, `samples` and n, so two prediction
    sets on the same images get the same resamples and their difference can be computed for each resample.

    Args:
      rows: n counts, one for each image.
      samples: number of resamples R.
      seed: seed of the draws.

    Returns:
      {field: [R] float64}, and [R, B] for histograms of B bins, with the names of `accumulators.columns`.
    """
    table = columns(rows)
    stacked = np.concatenate([column.reshape(len(rows), -1) for column in table.values()], axis=1)
    number = len(rows)
    generator = np.random.default_rng(seed)
    chunk = max(1, _ELEMENTS // number)
    parts = []
    for start in range(0, samples, chunk):
        # The number of times each image was drawn; one matrix product then sums all resamples.
        times = generator.multinomial(number, np.full(number, 1 / number), size=min(chunk, samples - start))
        parts.append(times.astype(np.float64) @ stacked)
    sums, start, drawn = {}, 0, np.concatenate(parts)
    for name, column in table.items():
        width = column[0].size
        sums[name] = drawn[:, start : start + width].reshape(samples, *column.shape[1:])
        start += width
    return sums


def bootstrap_intervals(
    rows: Sequence[Counts], spec: Protocol, *, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Computes percentile bootstrap intervals of every metric of a protocol.

    Args:
      rows: counts of each image.
      spec: the protocol.
      samples: number of resamples.
      level: confidence level, in (0, 1).
      seed: the same seed gives the same intervals.

    Returns:
      {metric: (low, high)}. Resamples in which a metric is undefined are ignored; if it is undefined in all of them,
      the interval is (nan, nan).

    Raises:
      UserError: if there are no images, or `samples` or `level` is out of range.
    """
    check_resampling(rows, samples, level)
    drawn = compute(resampled_sums(rows, samples=samples, seed=seed), spec)
    return {name: interval(values[np.isfinite(values)], level) for name, values in drawn.items()}


def check_resampling(rows: Sequence[Counts], samples: int, level: float) -> None:
    """Checks the arguments of a bootstrap.

    Raises:
      UserError: if there are no images, or `samples` or `level` is out of range.
    """
    if not rows:
        raise UserError("bootstrap intervals need at least one image, got none")
    if samples < 1 or not 0 < level < 1:
        raise UserError(f"need samples >= 1 and 0 < level < 1, got samples={samples}, level={level}")


def interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Returns the percentile interval of resampled values [R] without nan; (nan, nan) if there are no values."""
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
