"""Paired comparison of two prediction sets on the same images."""

from __future__ import annotations

import dataclasses

import numpy as np

from irjax.errors import UserError
from irjax.metrics.bootstrap import check_resampling, interval, resampled_sums
from irjax.metrics.evaluation import Evaluation
from irjax.metrics.spec import Protocol
from irjax.metrics.values import compute


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of two prediction sets, a and b.

    Attributes:
      a: value of the first set; nan if undefined.
      b: value of the second set; nan if undefined.
      difference: a - b.
      low: lower end of the percentile bootstrap interval of the difference; nan if it is undefined in every resample.
      high: upper end of that interval; nan in the same case.
      a_higher: fraction of the resamples in which a is strictly higher; nan in the same case.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    a_higher: float


def compare(
    a: Evaluation, b: Evaluation, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Comparison]:
    """Compares two prediction sets with a paired bootstrap over images.

    Both sets use the same resamples, so the variation that is due to the images alone cancels in the difference.

    Args:
      a: the first prediction set under a protocol.
      b: the second, under the same protocol on the same images in the same order. Thresholds may differ.
      samples: number of resamples.
      level: confidence level, in (0, 1).
      seed: the same seed gives the same result.

    Returns:
      {metric: Comparison}. Resamples in which either value is undefined are ignored.

    Raises:
      UserError: if protocols or images differ, there are no images, or `samples` or `level` is out of range.
    """
    if _at_any_threshold(a.protocol) != _at_any_threshold(b.protocol):
        raise UserError(
            f"only numbers of one protocol can be compared, got {a.protocol.name!r} and {b.protocol.name!r}"
            + (" with other settings" if a.protocol.name == b.protocol.name else "")
        )
    if a.names != b.names:
        raise UserError(
            f"a paired comparison needs the same images in the same order; {_other_names(a.names, b.names)}"
        )
    check_resampling(a.rows, samples, level)
    first, second = a.metrics(), b.metrics()
    drawn = [
        compute(resampled_sums(evaluation.rows, samples=samples, seed=seed), evaluation.protocol)
        for evaluation in (a, b)
    ]
    table = {}
    for name in first:
        pairs = np.stack([values[name] for values in drawn])
        differences = np.subtract(*pairs[:, np.isfinite(pairs).all(axis=0)])
        low, high = interval(differences, level)
        higher = float(np.mean(differences > 0)) if differences.size else float("nan")
        table[name] = Comparison(first[name], second[name], first[name] - second[name], low, high, higher)
    return table


def _other_names(a: tuple[str, ...], b: tuple[str, ...]) -> str:
    only_a, only_b = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    if not (only_a or only_b):
        return "they are the same, ordered or repeated otherwise"
    parts = []
    for which, names in (("first", only_a), ("second", only_b)):
        some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        parts.append(f"{len(names)} only in the {which}" + (f" ({some})" if names else ""))
    return " and ".join(parts)


def _at_any_threshold(spec: Protocol) -> Protocol:
    return dataclasses.replace(spec, threshold=0.5, deviations=None)
