"""Score histograms of target and background pixels, from which pixel ROCs are computed without keeping the maps.

A histogram counts the scores between consecutive thresholds, so its cumulative sums are the numbers of pixels above
each threshold. These are integers, and histograms merge by addition. With every distinct score as a threshold the ROC
is exact; 256 bins are enough for a plot.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex, cast

import numpy as np

from irjax.errors import UserError
from irjax.metrics import inputs
from irjax.metrics.spec import Curve


def levels_of(bins: int | Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns the rising thresholds between the bins of a histogram.

    Args:
      bins: number of equal bins of [0, 1], at least 1; or T thresholds in [0, 1], rising.

    Returns:
      [T] float64; T = bins - 1 if `bins` is a number.

    Raises:
      UserError: if there are no bins, or thresholds do not rise or lie outside [0, 1].
    """
    if np.ndim(bins) == 0:
        number = operator.index(cast(SupportsIndex, bins))
        if number < 1:
            raise UserError(f"a histogram needs at least one bin, got {number}")
        return np.arange(1, number) / number
    levels = np.asarray(bins, np.float64).reshape(-1)
    if levels.size and not (levels[0] >= 0 and levels[-1] <= 1 and (np.diff(levels) > 0).all()):
        raise UserError(f"thresholds of a histogram must rise within [0, 1], got {levels}")
    return levels


def distinct_scores(maps: Iterable[Any], *, logits: bool = False, scale: int = 255) -> np.ndarray:
    """Returns every score that occurs in maps [H, W], rising, [T] float64; as `bins` they give the exact ROC."""
    each = [np.unique(inputs.probabilities(scores, logits=logits, scale=scale)) for scores in maps]
    return np.unique(np.concatenate(each)).astype(np.float64) if each else np.zeros(0)


def count_scores(scores: np.ndarray, levels: np.ndarray, inclusive: bool = False) -> np.ndarray:
    """Counts the scores between consecutive thresholds.

    Args:
      scores: [N] floats in [0, 1].
      levels: [T] thresholds, rising.
      inclusive: whether a score equal to a threshold counts as above it.

    Returns:
      [T + 1] int64.
    """
    # Compare in the precision of the map: a float32 score of 0.1 is equal to the threshold 0.1, not above it.
    edges = levels.astype(scores.dtype)
    index = np.searchsorted(edges, scores, side="right" if inclusive else "left")
    return np.bincount(index, minlength=len(levels) + 1).astype(np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """Histogram of the scores of target and background pixels; ``a + b`` is the histogram of both sets together.

    Bin k counts the scores p with ``thresholds[k - 1] < p <= thresholds[k]``, or with ``<=`` and ``<`` if `inclusive`;
    the first bin has no lower bound and the last has no upper bound.

    Attributes:
      positive: [T + 1] int64, pixels of the targets.
      negative: [T + 1] int64, pixels of the background.
      thresholds: [T] float64, rising. None (the default) is replaced by those of equal bins of [0, 1].
      inclusive: whether a pixel with a score equal to a threshold counts as above it.

    Raises:
      UserError: if the counts are not one-dimensional non-negative integers, their number does not fit the thresholds,
        or the thresholds do not rise or lie outside [0, 1].
    """

    positive: np.ndarray
    negative: np.ndarray
    thresholds: np.ndarray | None = None
    inclusive: bool = False

    def __post_init__(self):
        for name in ("positive", "negative"):
            array = np.asarray(getattr(self, name))
            if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or (array < 0).any():
                raise UserError(f"{name} must be counts [bins], got {array.dtype} of shape {array.shape}")
            object.__setattr__(self, name, array.astype(np.int64))
        levels = levels_of(len(self.positive) if self.thresholds is None else self.thresholds)
        if not len(self.positive) == len(self.negative) == len(levels) + 1:
            raise UserError(
                f"{len(levels)} thresholds make {len(levels) + 1} bins, got {len(self.positive)} positive and "
                f"{len(self.negative)} negative ones"
            )
        object.__setattr__(self, "thresholds", levels)

    @property
    def bins(self) -> int:
        """Number of bins, T + 1."""
        return len(self.positive)

    def _alike(self, other: ScoreHistogram) -> bool:
        assert self.thresholds is not None and other.thresholds is not None  # set by `__post_init__`
        return self.inclusive == other.inclusive and np.array_equal(self.thresholds, other.thresholds)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoreHistogram):
            return NotImplemented
        counts = ("positive", "negative")
        return self._alike(other) and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in counts)

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        if not isinstance(other, ScoreHistogram):
            return NotImplemented
        if not self._alike(other):
            raise UserError(
                f"histograms of {self.bins} and {other.bins} bins have other thresholds: they do not add up"
            )
        return dataclasses.replace(
            self, positive=self.positive + other.positive, negative=self.negative + other.negative
        )

    @classmethod
    def total(cls, histograms: Iterable[ScoreHistogram]) -> ScoreHistogram:
        """Returns the sum of at least one histogram.

        Raises:
          UserError: if there are no histograms, or their thresholds differ.
        """
        rows = list(histograms)
        if not rows:
            raise UserError("the sum of no histograms has no thresholds; give at least one")
        return sum(rows[1:], rows[0])

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """Computes the pixel ROC along falling thresholds, from (0, 0) to (1, 1).

        Returns:
          False and true positive rate, [T + 2] float64 each; nan without background and without targets respectively.
        """
        tpr, fpr = rates(self.positive, self.negative)
        return _closed(fpr, self.negative.sum())[::-1], _closed(tpr, self.positive.sum())[::-1]

    def auc(self) -> float:
        """Computes the area under `roc` with the trapezoidal rule; nan if undefined."""
        return self.curve().auc

    def curve(self, options: Curve | None = None) -> PixelCurve:
        """Returns the curve at every threshold of this histogram; by default without smoothing, and closed."""
        return PixelCurve(self, Curve.even(1) if options is None else options)


@dataclasses.dataclass(frozen=True)
class PixelCurve:
    """Numbers of pixels above the T thresholds of a histogram, and the rates computed from them.

    Attributes:
      histogram: the counts between the thresholds.
      options: the terms added to denominators, and whether the area is closed.
    """

    histogram: ScoreHistogram
    options: Curve

    @property
    def tp(self) -> np.ndarray:
        """[T] int64, target pixels above each threshold; targets, if the histogram counts targets (`Curve.targets`)."""
        return above(self.histogram.positive)

    @property
    def fp(self) -> np.ndarray:
        """[T] int64, background pixels above each threshold."""
        return above(self.histogram.negative)

    @property
    def positives(self) -> int:
        """Number of target pixels; of targets, if the histogram counts targets."""
        return int(self.histogram.positive.sum())

    @property
    def negatives(self) -> int:
        """Number of background pixels."""
        return int(self.histogram.negative.sum())

    @property
    def tpr(self) -> np.ndarray:
        """[T] float64, true positive rate, which is also recall."""
        return ratio(self.tp, self.positives + self.options.smoothing)

    @property
    def fpr(self) -> np.ndarray:
        """[T] float64, false positive rate: false pixels per background pixel."""
        return ratio(self.fp, self.negatives + self.options.smoothing)

    @property
    def precision(self) -> np.ndarray:
        """[T] float64; nan where no pixel is above the threshold and there is no smoothing."""
        return ratio(self.tp, self.tp + self.fp + self.options.smoothing)

    @property
    def f1(self) -> np.ndarray:
        """[T] float64, the harmonic mean of precision and recall."""
        precision, recall = self.precision, self.tpr
        return ratio(2 * precision * recall, precision + recall + self.options.f1_smoothing)

    @property
    def false_per_pixel(self) -> np.ndarray:
        """[T] float64, false pixels per pixel."""
        return ratio(self.fp, self.positives + self.negatives)

    @property
    def auc(self) -> float:
        """Area under the curve by the trapezoidal rule; nan if undefined."""
        return float(area(self.histogram.positive, self.histogram.negative, self.options))


def ratio(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    """Returns ``numerator / denominator`` in float64 with broadcasting; nan where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def above(counts: np.ndarray) -> np.ndarray:
    """Sums the bins above each threshold: [..., T + 1] to [..., T], same dtype."""
    return np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1][..., 1:]


def rates(positive: np.ndarray, negative: np.ndarray, smoothing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Computes true and false positive rates [..., T] of histograms [..., T + 1], along rising thresholds."""
    tpr, fpr = (ratio(above(c), c.sum(axis=-1, keepdims=True) + smoothing) for c in (positive, negative))
    return tpr, fpr


def _closed(rate: np.ndarray, whole: np.ndarray | int) -> np.ndarray:
    """Extends a rate along rising thresholds with 1 before and 0 after it; nan where `whole` is 0."""
    known = np.where(np.asarray(whole) > 0, 0.0, np.nan)[..., None]
    return np.concatenate([known + 1.0, rate, known], axis=-1)


def area(positive: np.ndarray, negative: np.ndarray, options: Curve) -> np.ndarray:
    """Computes the area under the ROC of histograms [..., T + 1] with the trapezoidal rule.

    Returns:
      [...] float64, nan where undefined.
    """
    tpr, fpr = rates(positive, negative, options.smoothing)
    if options.closed:
        tpr, fpr = _closed(tpr, positive.sum(axis=-1)), _closed(fpr, negative.sum(axis=-1))
    return -np.trapezoid(tpr, fpr, axis=-1)


def score_histogram(
    scores: Any,
    mask: Any,
    bins: int | Sequence[float] | np.ndarray = 256,
    *,
    logits: bool = False,
    scale: int = 255,
    inclusive: bool = False,
) -> ScoreHistogram:
    """Computes the score histogram of one image.

    Args:
      scores: [H, W]: bool; floats in [0, 1], or any finite floats if `logits`; or integers in [0, scale].
      mask: [H, W], as for `inputs.truth_mask`.
      bins: number of equal bins of [0, 1], or the thresholds between bins.
      logits: whether `scores` are logits.
      scale: the value that represents p = 1 in an integer map.
      inclusive: whether a score equal to a threshold counts as above it.

    Returns:
      The histogram.

    Raises:
      UserError: if values are out of range or sizes differ.
    """
    levels = levels_of(bins)
    probabilities = inputs.probabilities(scores, logits=logits, scale=scale)
    truth, _ = inputs.truth_mask(mask)
    inputs.check_sizes(probabilities.shape, truth.shape)
    positive = count_scores(probabilities[truth], levels, inclusive)
    negative = count_scores(probabilities.reshape(-1), levels, inclusive) - positive
    return ScoreHistogram(positive, negative, levels, inclusive)
