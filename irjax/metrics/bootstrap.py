"""Percentile bootstrap over images: how far a number would move with another draw of the test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irjax.metrics.accumulators import Counts, columns
from irjax.metrics.protocols import Protocol
from irjax.metrics.values import compute

_ELEMENTS = 1 << 22  # of the draws held at a time: 32 MiB


def resampled_sums(rows: Sequence[Counts], *, samples: int, seed: int) -> dict[str, np.ndarray]:
    """Sums of `samples` draws of as many images as there are, with replacement.

    The draws depend only on `seed`, `samples` and the number of images: two prediction sets on the same images are
    resampled alike, so their difference can be taken draw by draw.

    Args:
      rows: n counts, one for each image.
      samples: number of draws R.
      seed: of the draws.

    Returns:
      {field: [R] float64}.
    """
    table = columns(rows)
    stacked = np.stack(list(table.values()), axis=1)
    number = len(rows)
    generator = np.random.default_rng(seed)
    chunk = max(1, _ELEMENTS // number)
    parts = []
    for start in range(0, samples, chunk):
        # How often each image was drawn; one matrix product then sums every draw.
        times = generator.multinomial(number, np.full(number, 1 / number), size=min(chunk, samples - start))
        parts.append(times.astype(np.float64) @ stacked)
    return dict(zip(table, np.concatenate(parts).T, strict=True))


def bootstrap_intervals(
    rows: Sequence[Counts], spec: Protocol, *, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of every metric of a protocol.

    Args:
      rows: counts of each image.
      spec: the protocol.
      samples: number of resamples.
      level: of confidence, in (0, 1).
      seed: the same seed gives the same intervals.

    Returns:
      {metric: (low, high)}. Resamples in which a metric is undefined are left out; (nan, nan) if it is in all.

    Raises:
      ValueError: if there are no images, or `samples` or `level` is out of range.
    """
    if not rows:
        raise ValueError("bootstrap intervals need at least one image, got none")
    if samples < 1 or not 0 < level < 1:
        raise ValueError(f"need samples >= 1 and 0 < level < 1, got samples={samples}, level={level}")
    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name, values in compute(resampled_sums(rows, samples=samples, seed=seed), spec).items():
        values = values[np.isfinite(values)]
        low, high = np.quantile(values, tails) if values.size else (np.nan, np.nan)
        intervals[name] = (float(low), float(high))
    return intervals
