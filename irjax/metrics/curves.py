"""Threshold sweeps that repeat the matching at each threshold.

A published program matches once at the lowest threshold and keeps those pairs. A weak detection can then take a target
from a strong one: at a higher threshold the weak detection is gone, and the target counts as missed although the strong
one is near it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from irjax.errors import UserError
from irjax.metrics import inputs
from irjax.metrics.accumulators import columns
from irjax.metrics.counting import ImageWork, kept_points
from irjax.metrics.evaluation import as_sequence, evaluate_images
from irjax.metrics.histograms import ratio
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.metrics.matching import match, optimal_gains, pairwise_distances, within
from irjax.metrics.protocols import Protocol, protocol
from irjax.metrics.values import fa_pixels, false_alarms


@dataclasses.dataclass(frozen=True)
class SweepPoint:
    """Counts and metrics at one threshold; a metric is nan if undefined.

    Attributes:
      threshold: the threshold.
      tp: matched pairs.
      fp: unmatched predictions.
      fn: unmatched targets.
      precision: tp / (tp + fp).
      recall: tp / (tp + fn), which is also Pd.
      f1: harmonic mean of precision and recall.
      fa: false alarms per pixel.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    fa: float


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Counts at T thresholds.

    Attributes:
      thresholds: [T] float64, rising.
      matched: [T] int64, matched pairs.
      predictions: [T] int64, predictions that pass the threshold.
      false_alarms: [T] int64, numerator of Fa: unmatched predictions, or pixels (`Protocol.false_alarm`).
      truths: number of targets.
      pixels: number of pixels that Fa is divided by.
      average_precision: sum, along falling thresholds, of precision times the gain in recall, without interpolation;
        nan without targets. `centroid_sweep`, which `sweep` uses for points if it can, computes it over all scores of
        the points; otherwise it is computed over `thresholds`.
    """

    thresholds: np.ndarray
    matched: np.ndarray
    predictions: np.ndarray
    false_alarms: np.ndarray
    truths: int
    pixels: int
    average_precision: float

    @property
    def precision(self) -> np.ndarray:
        """[T] float64; nan where nothing is predicted."""
        return ratio(self.matched, self.predictions)

    @property
    def recall(self) -> np.ndarray:
        """[T] float64, which is also Pd; nan without targets."""
        return ratio(self.matched, np.full_like(self.matched, self.truths))

    @property
    def f1(self) -> np.ndarray:
        """[T] float64; nan with neither targets nor predictions."""
        return ratio(2 * self.matched, self.predictions + self.truths)

    @property
    def fa(self) -> np.ndarray:
        """[T] float64, false alarms per pixel."""
        return ratio(self.false_alarms, np.full_like(self.false_alarms, self.pixels))

    def __len__(self) -> int:
        return len(self.thresholds)

    def at(self, index: int) -> SweepPoint:
        """Returns the counts and metrics at ``thresholds[index]``."""
        matched, predictions = int(self.matched[index]), int(self.predictions[index])
        return SweepPoint(
            threshold=float(self.thresholds[index]),
            tp=matched,
            fp=predictions - matched,
            fn=self.truths - matched,
            precision=float(self.precision[index]),
            recall=float(self.recall[index]),
            f1=float(self.f1[index]),
            fa=float(self.fa[index]),
        )

    def best(self) -> SweepPoint:
        """Returns the point of highest F1; ties go to the highest threshold, which has the fewest false alarms."""
        f1 = np.nan_to_num(self.f1, nan=-1.0)
        return self.at(len(f1) - 1 - int(np.argmax(f1[::-1])))


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Computes the sum of precision times the gain in recall, along falling thresholds and without interpolation.

    Args:
      recall: [T] in order of falling threshold.
      precision: [T]; nan (nothing predicted) counts as 0, so the gain in recall there adds nothing.

    Returns:
      The average precision; nan if any recall is undefined.
    """
    recall = np.asarray(recall, np.float64)
    if np.isnan(recall).any():
        return float("nan")
    gains = np.diff(recall, prepend=0.0)
    return float(np.sum(gains * np.nan_to_num(np.asarray(precision, np.float64))))


def _checked_thresholds(thresholds: Any) -> np.ndarray:
    array = np.asarray(thresholds, np.float64).reshape(-1)
    if array.size == 0 or not np.isfinite(array).all() or (np.diff(array) <= 0).any():
        raise UserError(f"thresholds must be finite and rising, at least one; got {thresholds}")
    return array


def centroid_sweep(
    predictions: Sequence[PointPredictions],
    truths: Sequence[PointTruth],
    thresholds: Any = None,
    limit: float = 5.0,
    *,
    inclusive: bool = True,
) -> Sweep:
    """Matches points optimally at every threshold, in one pass over the images.

    In order of falling score, each prediction either adds a pair to the optimal matching of the predictions before it
    or adds a false alarm (`matching.optimal_gains`), so the counts at all thresholds are running sums. This takes
    milliseconds for hundreds of images, which is fast enough for every validation.

    Args:
      predictions: points and scores of each image.
      truths: true points and size of each image.
      thresholds: [T] rising; a prediction passes with ``score >= threshold``. None uses every distinct score, which
        gives the whole precision-recall curve.
      limit: largest distance of a match in pixels.
      inclusive: whether a distance of exactly `limit` matches.

    Returns:
      The sweep; `false_alarms` counts unmatched points.

    Raises:
      UserError: if the numbers of images differ or thresholds are not rising.
    """
    if len(predictions) != len(truths):
        raise UserError(f"{len(predictions)} predictions for {len(truths)} truths")
    scores, gains = [np.zeros(0)], [np.zeros(0, bool)]
    for prediction, truth in zip(predictions, truths, strict=True):
        if len(prediction) == 0:
            continue
        assert prediction.scores is not None  # set by `PointPredictions`
        order = np.argsort(-prediction.scores, kind="stable")
        scores.append(prediction.scores[order])
        if len(truth):
            distances = pairwise_distances(truth.points, prediction.points[order])
            gains.append(optimal_gains(within(distances, limit, inclusive)))
        else:
            gains.append(np.zeros(len(prediction), bool))
    score, gain = np.concatenate(scores), np.concatenate(gains)
    order = np.argsort(score, kind="stable")
    score, gain = score[order], gain[order]
    # Entry i is the number of pairs that remain without the i lowest scores.
    remaining = np.concatenate([np.cumsum(gain[::-1])[::-1], [0]]).astype(np.int64)
    targets = sum(len(truth) for truth in truths)

    def at(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = np.searchsorted(score, levels, side="left")
        return remaining[first], len(score) - first

    every = np.unique(score)
    matched, passed = at(every)
    recall = ratio(matched, np.full_like(matched, targets))[::-1]
    area = average_precision(recall, ratio(matched, passed)[::-1]) if targets else float("nan")
    if thresholds is None:
        levels = every if every.size else np.array([0.5])
    else:
        levels = _checked_thresholds(thresholds)
    matched, passed = at(levels)
    pixels = sum(truth.height * truth.width for truth in truths)
    return Sweep(levels, matched, passed, passed - matched, targets, pixels, area)


def sweep(
    predictions: Any,
    truths: Any,
    thresholds: Any,
    spec: str | Protocol = "irjax",
    *,
    logits: bool = False,
    processes: int | None = None,
) -> Sweep:
    """Sweeps thresholds under any protocol; maps are thresholded, labelled and matched again at each threshold.

    A protocol whose `sweep` is not "again" follows its published program: it matches everything once and applies the
    thresholds to the scores afterwards.

    Args:
      predictions: as for `irjax.metrics.evaluate`.
      truths: as for `irjax.metrics.evaluate`.
      thresholds: [T] rising. A pixel passes with p > threshold, a point with ``score >= threshold``.
      spec: the protocol.
      logits: whether float maps are logits.
      processes: as for `irjax.metrics.evaluate_images`.

    Returns:
      The sweep; `false_alarms` and `pixels` are the numerator and denominator of the protocol's Fa.

    Raises:
      UserError: see `irjax.metrics.evaluate_images`.
    """
    spec, levels = protocol(spec), _checked_thresholds(thresholds)
    predictions, truths = as_sequence(predictions, "predictions"), as_sequence(truths, "truths")
    if len(predictions) != len(truths):
        raise UserError(f"{len(predictions)} predictions for {len(truths)} truths")
    if spec.sweep != "again":
        return _sweep_once(predictions, truths, levels, spec, logits)
    points = len(predictions) > 0 and isinstance(predictions[0], PointPredictions)
    if points and not spec.needs_maps and spec.matching == "optimal" and _plain_points(predictions, spec):
        targets = [_point_truth(truth, spec) for truth in truths]
        return centroid_sweep(predictions, targets, levels, spec.limit, inclusive=spec.inclusive)
    options: dict[str, Any] = {"logits": logits, "processes": processes}
    # The ROC does not depend on the threshold, so it is not computed at each of them.
    bare = dataclasses.replace(spec, curve=None, metrics=tuple(name for name in spec.metrics if name != "AUC"))
    if points:
        each = [evaluate_images(predictions, truths, bare, threshold=float(t), **options)[bare.name] for t in levels]
    else:
        # With one protocol for each threshold, each image is read and its truth labelled only once.
        cuts = [dataclasses.replace(bare, name=str(t), threshold=float(t)) for t in levels]
        each = list(evaluate_images(predictions, truths, cuts, **options).values())
    sums = columns([evaluation.total for evaluation in each])
    matched, predicted = sums["matched"].astype(np.int64), sums["predictions"].astype(np.int64)
    alarms, pixels = false_alarms(sums, spec).astype(np.int64), int(fa_pixels(sums, spec)[0])
    return _sweep_of(levels, matched, predicted, alarms, int(sums["truths"][0]), pixels)


def _sweep_of(levels, matched, predicted, alarms, truths: int, pixels: int) -> Sweep:
    recall = ratio(matched, np.full_like(matched, truths))[::-1]
    precision = average_precision(recall, ratio(matched, predicted)[::-1])
    return Sweep(levels, matched, predicted, alarms, truths, pixels, precision)


def _plain_points(predictions: Sequence[Any], spec: Protocol) -> bool:
    return spec.dropped_points == "none" and all(isinstance(item, PointPredictions) for item in predictions)


def _sweep_once(predictions, truths, levels: np.ndarray, spec: Protocol, logits: bool) -> Sweep:
    scale = inputs.integer_scale(predictions)
    hits, scores, targets, pixels = [np.zeros(0, bool)], [np.zeros(0)], 0, 0
    for number, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        try:
            true, found, score, size = ImageWork(prediction, truth, logits=logits, scale=scale).scored_points(spec)
        except UserError as error:
            raise UserError(f"image {number}: {error}") from error
        targets, pixels = targets + len(true), pixels + size
        kept = kept_points(spec, found)
        matching = match(true, found[kept], limit=spec.limit, inclusive=spec.inclusive, method=spec.matching)
        # The program behind "once_shifted" uses indices into the kept points as indices into all points.
        listed = score if spec.sweep == "once_shifted" else score[kept]
        hit = np.zeros(len(listed), bool)
        hit[matching.predictions] = True
        hits.append(hit)
        scores.append(listed)
    hit, score = np.concatenate(hits), np.concatenate(scores)
    passed = score[None, :] >= levels[:, None]
    predicted, matched = passed.sum(axis=1), (passed & hit).sum(axis=1)
    return _sweep_of(levels, matched, predicted, predicted - matched, targets, pixels)


def _point_truth(truth: Any, spec: Protocol) -> PointTruth:
    if isinstance(truth, PointTruth):
        return truth
    if inputs.is_example(truth):
        return inputs.truth_of_example(truth, needs_mask=False)
    return inputs.mask_centroids(inputs.truth_mask(truth)[0], spec.connectivity)
