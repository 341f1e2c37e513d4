"""Counts of one image under any protocol.

All counting is done here, by pure code that can run in any process. `ImageWork` caches the steps that protocols share:
a mask is read and its regions are found once for all protocols that do so in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

from irjax.errors import UserError
from irjax.metrics import inputs
from irjax.metrics.accumulators import Counts, fixed_point_iou
from irjax.metrics.blobs import Blobs, equal_level_blobs, find_blobs
from irjax.metrics.histograms import ScoreHistogram, count_scores
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.metrics.matching import Matching, match
from irjax.metrics.spec import Protocol
from irjax.ops.resize import resize_mask, resize_square

_T = TypeVar("_T")

_RULES = {
    "exact": "gray, = 255",
    "mixed": "gray, = 255, >= 128 or > 0",
    "peak": "gray, = maximum",
    "positive": "gray, > 0",
    "graded": "gray, in parts",
}


@dataclasses.dataclass(frozen=True)
class _Truth:
    """A truth mask as a protocol reads it.

    Attributes:
      shape: (H, W) of the mask.
      index: [N] int64, indices of the target pixels in the flattened mask.
      owner: [N] int64, index of the region that each target pixel belongs to.
      blobs: the target regions.
      area: number of target pixels, in units of 1 / `Protocol.pixel_unit`.
      labelled: number of truth pixels that pixAcc divides by, in the same units.
      parts: [H, W] uint8, gray levels of a mask whose pixels count in parts; None for all other masks.
    """

    shape: tuple[int, int]
    index: np.ndarray
    owner: np.ndarray
    blobs: Blobs
    area: int
    labelled: int
    parts: np.ndarray | None = None


class ImageWork:
    """One image, with a cache of the steps that protocols share.

    Args:
      prediction: a map [H, W] (`inputs.predicted_mask`) or PointPredictions.
      truth: a mask [H, W] (`inputs.truth_mask`), PointTruth, or an `irjax.types.Example`.
      logits: whether float maps are logits.
      scale: the value that represents p = 1 in an integer map.
    """

    def __init__(self, prediction: Any, truth: Any, *, logits: bool = False, scale: int = 255):
        self.prediction = prediction
        self.truth = truth
        self._options: dict[str, Any] = {"logits": logits, "scale": scale}
        self._known: dict[Hashable, Any] = {}

    def _once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def count(self, spec: Protocol, threshold: float | None = None) -> tuple[Counts, str | None]:
        """Computes the counts under one protocol; see `count_image`."""
        prediction, truth, rule = self.prediction, self._truth_input(spec), None
        if spec.needs_maps and (inputs.is_points(prediction) or inputs.is_points(truth)):
            raise UserError(
                f"protocol {spec.name!r} scores pixels: it needs maps [H, W] and masks [H, W], got "
                f"{type(prediction).__name__} and {type(truth).__name__}; protocol 'centroid' takes points"
            )
        if not inputs.is_points(truth):
            rule = self._rule(spec)
        level = self._level(spec) if threshold is None else threshold
        if isinstance(prediction, PointPredictions) or isinstance(truth, PointTruth):
            points, size = self._true_points(spec)
            if isinstance(prediction, PointPredictions):
                passed = prediction if threshold is None else prediction.above(threshold)
                found = passed.points[kept_points(spec, passed.points)]
            else:
                found = self._blobs(spec, level).points
            return count_points(spec, points, found, size[0] * size[1])[0], rule
        return self._count_maps(spec, level), rule

    def scored_points(self, spec: Protocol) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Returns the points and scores for a protocol that matches once and applies thresholds afterwards.

        Returns:
          True points [K, 2], predicted points [N, 2] and scores [N], both including points that the protocol drops, and
          the number of pixels.

        Raises:
          UserError: as `count_image`.
        """
        truth, size = self._true_points(spec)
        if isinstance(self.prediction, PointPredictions):
            assert self.prediction.scores is not None  # set by `PointPredictions`
            return truth, self.prediction.points, self.prediction.scores, size[0] * size[1]
        if not isinstance(self._truth_input(spec), PointTruth):
            self._check_sizes(spec)
        blobs = self._all_blobs(spec, self._level(spec))
        return truth, blobs.points, blobs.peaks(self._probabilities(spec)), size[0] * size[1]

    # The truth.

    def _truth_input(self, spec: Protocol) -> Any:
        if not inputs.is_example(self.truth):
            return self.truth
        return self._once(("example", spec.needs_maps), lambda: inputs.truth_of_example(self.truth, spec.needs_maps))

    def _true_points(self, spec: Protocol) -> tuple[np.ndarray, tuple[int, int]]:
        truth = self._truth_input(spec)
        if isinstance(truth, PointTruth):
            if not inputs.is_points(self.prediction):
                shape = inputs.map_shape(self.prediction)
                if shape != (truth.height, truth.width):
                    size = inputs.size_text((truth.height, truth.width))
                    raise UserError(f"the prediction is {inputs.size_text(shape)}, the image {size} (height x width)")
            return truth.points, (truth.height, truth.width)
        read = self._read_truth(spec)
        return read.blobs.points, read.shape

    def _levels(self, spec: Protocol) -> tuple[np.ndarray, bool]:
        levels, two = self._once("levels", lambda: inputs.gray_levels(self._truth_input(spec)))
        if spec.canvas != "resize":
            return levels, two
        return self._once(("levels", spec.canvas_size), lambda: (resize_mask(levels, _side(spec)), two))

    def _rule(self, spec: Protocol) -> str:
        if spec.truth == "split":
            return self._once("rule", lambda: inputs.truth_mask(self._truth_input(spec))[1])
        return "two levels" if self._levels(spec)[1] else _RULES[spec.truth]

    def _read_truth(self, spec: Protocol) -> _Truth:
        levels, two = self._levels(spec)
        canvas = spec.canvas_size if spec.canvas == "resize" else None
        # Binary masks give the same result under every rule, apart from the unit of "graded".
        kind = "two levels" if two and spec.pixel_unit == 1 else spec.truth
        weighted = spec.centroid == "weighted" and not two
        key = ("truth", kind, canvas, spec.connectivity, weighted)
        return self._once(key, lambda: _read(levels, two, spec, weighted))

    # The prediction.

    def _probabilities(self, spec: Protocol) -> np.ndarray:
        canvas = spec.canvas_size if spec.canvas == "resize" else None
        return self._once(
            ("p", canvas, spec.peak_normalised, spec.eight_bit),
            lambda: _prepared(inputs.probabilities(self.prediction, **self._options), self.prediction, spec),
        )

    def _level(self, spec: Protocol) -> float:
        if spec.deviations is None or inputs.is_points(self.prediction):
            return spec.threshold
        return inputs.adaptive_level(self._probabilities(spec), spec.deviations)

    def _mask(self, spec: Protocol, level: float) -> np.ndarray:
        plain = not (spec.peak_normalised or spec.eight_bit or spec.canvas == "resize")
        if plain:
            return self._once(("mask", level), lambda: inputs.predicted_mask(self.prediction, level, **self._options))
        level = inputs.cut_level(level)
        key = ("mask", level, spec.peak_normalised, spec.eight_bit, spec.canvas == "resize" and spec.canvas_size)
        return self._once(key, lambda: self._probabilities(spec) > level)

    def _all_blobs(self, spec: Protocol, level: float) -> Blobs:
        mask = self._mask(spec, level)
        weighted = spec.centroid == "weighted"
        canvas = spec.canvas_size if spec.canvas == "resize" else None
        key = ("blobs", level, spec.peak_normalised, spec.eight_bit, canvas, spec.connectivity, weighted)
        weights = self._probabilities(spec) if weighted else None
        return self._once(key, lambda: find_blobs(mask, spec.connectivity, weights))

    def _blobs(self, spec: Protocol, level: float) -> Blobs:
        blobs = self._all_blobs(spec, level)
        kept = kept_points(spec, blobs.points)
        return blobs if kept.all() else blobs.only(kept)

    # Prediction and truth together.

    def _check_sizes(self, spec: Protocol) -> None:
        predicted, true = inputs.map_shape(self.prediction), inputs.map_shape(self._truth_input(spec))
        if spec.canvas == "resize" and predicted == (spec.canvas_size,) * 2:
            return
        inputs.check_sizes(predicted, true)
        if spec.canvas == "pad" and max(true) > _side(spec):
            raise UserError(
                f"an image of {inputs.size_text(true)} does not lie on the canvas of {spec.canvas_size}x"
                f"{spec.canvas_size} of protocol {spec.name!r}"
            )

    def _count_maps(self, spec: Protocol, level: float) -> Counts:
        mask = self._mask(spec, level)
        self._check_sizes(spec)
        truth, blobs = self._read_truth(spec), self._blobs(spec, level)
        if spec.skip_without_truth and not len(truth.blobs):
            return Counts()
        counts, matching = count_points(
            spec, truth.blobs.points, blobs.points, _side(spec) ** 2 if spec.canvas == "pad" else mask.size
        )
        hit = np.zeros(len(blobs), bool)
        hit[matching.predictions] = True
        as_matched = np.isin(blobs.areas, blobs.areas[hit])
        return dataclasses.replace(
            counts,
            **_count_pixels(spec, mask, truth),
            false_region_pixels=blobs.areas[~hit].sum(),
            area_set_pixels=blobs.areas[~as_matched].sum(),
            scores=None if spec.curve is None else self._histogram(spec, truth),
        )

    def _histogram(self, spec: Protocol, truth: _Truth) -> ScoreHistogram:
        assert spec.curve is not None  # checked by `_count_maps`
        scores, levels = self._probabilities(spec), np.array(spec.curve.thresholds)
        inclusive, targets = spec.curve.inclusive, scores.reshape(-1)[truth.index]
        positive = count_scores(targets, levels, inclusive)
        negative = count_scores(scores.reshape(-1), levels, inclusive) - positive
        if spec.curve.targets:
            # A target has a pixel above a threshold exactly if its highest pixel is above it.
            positive = count_scores(truth.blobs.peaks(scores), levels, inclusive)
        return ScoreHistogram(positive, negative, levels, inclusive)


def _side(spec: Protocol) -> int:
    """Returns the side of the canvas; `Protocol` rejects a canvas without one."""
    assert spec.canvas_size is not None
    return spec.canvas_size


def _read(levels: np.ndarray, two: bool, spec: Protocol, weighted: bool) -> _Truth:
    if two:
        on = levels
        area = labelled = int(np.count_nonzero(on))
    else:
        on = {
            "split": lambda: levels >= inputs.MASK_LEVEL,
            "peak": lambda: (levels == levels.max()) & (levels > 0),  # resizing to a small canvas can remove the target
            "exact": lambda: levels == 255,
            "mixed": lambda: levels == 255,
        }.get(spec.truth, lambda: levels > 0)()
        area = labelled = int(np.count_nonzero(on))
        if spec.truth == "mixed":
            area, labelled = int(np.count_nonzero(levels >= inputs.MASK_LEVEL)), int(np.count_nonzero(levels))
    parts = None
    if spec.truth == "graded":
        parts = None if two else levels
        area = labelled = 255 * area if two else int(levels.sum(dtype=np.int64))
    if parts is not None:
        blobs = equal_level_blobs(levels, spec.connectivity)
    else:
        blobs = find_blobs(on, spec.connectivity, levels if weighted else None)
    return _Truth(on.shape, blobs.index, blobs.owner, blobs, area, labelled, parts)


def _count_pixels(spec: Protocol, mask: np.ndarray, truth: _Truth) -> dict[str, int]:
    found = mask.reshape(-1)[truth.index]
    both, positive, unit = int(np.count_nonzero(found)), int(np.count_nonzero(mask)), spec.pixel_unit
    if truth.parts is not None:
        both = int(truth.parts[mask].sum(dtype=np.int64))
        positive, union = positive * unit, positive * unit + truth.area - both
    else:
        both, positive = both * unit, positive * unit
        union = positive + len(truth.index) * unit - both
    return {
        "pixel_tp": both,
        "pixel_fp": positive - both,
        "pixel_fn": truth.area - both,
        "pixel_labelled": truth.labelled,
        "iou_sum": fixed_point_iou(both, union, spec.iou_epsilon * unit),
        "overlapped": len(np.unique(truth.owner[found])),
    }


def _prepared(p: np.ndarray, given: Any, spec: Protocol) -> np.ndarray:
    if spec.canvas == "resize" and p.shape != (spec.canvas_size,) * 2:
        on = p == 1
        # A map of two levels is a mask already. It is resized as the truth is, so that a perfect one stays perfect.
        two = (on | (p == 0)).all()
        side = _side(spec)
        p = resize_mask(on, side).astype(p.dtype) if two else np.clip(resize_square(p, side), 0, 1)
    if spec.peak_normalised and (peak := p.max()) > 0:
        p = p / peak
    if spec.eight_bit and not np.issubdtype(np.asarray(given).dtype, np.integer):
        p = np.floor(p * 255) / 255
    return p


def kept_points(spec: Protocol, points: np.ndarray) -> np.ndarray:
    """Returns which predicted points [N, 2] count under a protocol: [N] bool."""
    if spec.dropped_points == "origin":
        return (points != 0).any(axis=1)
    return (points != 0).all(axis=1) if spec.dropped_points == "axes" else np.ones(len(points), bool)


def count_points(spec: Protocol, truth: np.ndarray, predicted: np.ndarray, pixels: int) -> tuple[Counts, Matching]:
    """Matches true points [K, 2] to predicted points [N, 2]; returns their counts and the matching.

    Args:
      spec: the protocol.
      truth: [K, 2] (x, y) in pixels.
      predicted: [N, 2] (x, y) in pixels.
      pixels: number of pixels of the image.
    """
    matching = match(truth, predicted, limit=spec.limit, inclusive=spec.inclusive, method=spec.matching)
    if spec.skip_without_truth and not len(truth):
        return Counts(), matching
    empty = int(len(truth) == 0) + int(len(predicted) == 0)
    counts = Counts(
        images=1,
        pixels=pixels,
        both_empty=empty == 2,
        one_empty=empty == 1,
        truths=len(truth),
        predictions=len(predicted),
        matched=len(matching),
    )
    return counts, matching


def count_image(
    spec: Protocol,
    prediction: Any,
    truth: Any,
    *,
    threshold: float | None = None,
    logits: bool = False,
    scale: int = 255,
) -> tuple[Counts, str | None]:
    """Computes the counts of one image under one protocol.

    Args:
      spec: the protocol.
      prediction: a map [H, W] (`inputs.predicted_mask`) or PointPredictions.
      truth: a mask [H, W] (`inputs.truth_mask`; floats between 0 and 1 are accepted if the protocol's `truth` is not
        "split"), PointTruth, or an `irjax.types.Example`.
      threshold: replaces the protocol's threshold on maps and drops points with a lower score. None uses the protocol's
        threshold on maps and all points.
      logits: whether float maps are logits.
      scale: the value that represents p = 1 in an integer map.

    Returns:
      The counts, and the rule by which the truth mask was read (None for points).

    Raises:
      UserError: if the protocol needs maps and gets points, sizes differ, or values are out of range.
    """
    return ImageWork(prediction, truth, logits=logits, scale=scale).count(spec, threshold)


def count_masks(spec: Protocol, predicted: np.ndarray, truth: np.ndarray) -> Counts:
    """Computes the counts of one image from its masks.

    Args:
      spec: the protocol.
      predicted: [H, W] bool.
      truth: [H, W] bool.

    Raises:
      UserError: if the sizes differ.
    """
    return ImageWork(predicted, truth).count(spec)[0]
