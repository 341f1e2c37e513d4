"""Scores predictions under any number of protocols.

`evaluate` gives the numbers; `evaluate_images` also keeps the counts of each image, from which come intervals and the
worst images. `count_image` is the whole of the arithmetic on one image, and pure, so it can run in any process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irjax.metrics import inputs, values
from irjax.metrics.accumulators import Counts, fixed_point_iou
from irjax.metrics.bootstrap import bootstrap_intervals
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.metrics.matching import match
from irjax.metrics.protocols import Protocol, protocol
from irjax.ops.regions import find_regions


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One prediction set under one protocol.

    Attributes:
      protocol: the protocol.
      threshold: what replaced the protocol's threshold on maps, or dropped weaker points; None if nothing did.
      names: of the images, n of them.
      rows: n counts, one for each image.
      mask_rules: how many truth masks were read by which rule (`inputs.truth_mask`); empty for point truths.
    """

    protocol: Protocol
    threshold: float | None
    names: tuple[str, ...]
    rows: tuple[Counts, ...]
    mask_rules: Mapping[str, int]

    @property
    def total(self) -> Counts:
        """The counts of all images together."""
        return Counts.total(self.rows)

    def metrics(self) -> dict[str, float | int]:
        """The protocol's metrics; nan where one is undefined."""
        return values.from_counts(self.total, self.protocol)

    def intervals(self, *, samples: int = 1000, level: float = 0.95, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Bootstrap intervals over images (`irjax.metrics.bootstrap_intervals`)."""
        return bootstrap_intervals(self.rows, self.protocol, samples=samples, level=level, seed=seed)

    def worst_first(self) -> list[int]:
        """Indices of the images, most errors (misses and false detections) first.

        Ties go to the image with more misses, then to the one with more wrong pixels, then to the earlier one.
        """

        def badness(index: int) -> tuple[int, ...]:
            row = self.rows[index]
            misses = row.truths - row.matched
            errors = misses + row.predictions - row.matched
            return -errors, -misses, -(row.pixel_fp + row.pixel_fn), index

        return sorted(range(len(self.rows)), key=badness)


def _size(height: int, width: int) -> str:
    return f"{height}x{width}"


def _count_points(spec: Protocol, truth: PointTruth, predicted: np.ndarray) -> tuple[Counts, np.ndarray]:
    """The counts of points [K, 2] against [N, 2], and which predictions were matched [N] bool."""
    matching = match(truth.points, predicted, limit=spec.limit, inclusive=spec.inclusive, method=spec.matching)
    hit = np.zeros(len(predicted), bool)
    hit[matching.predictions] = True
    empty = int(len(truth) == 0) + int(len(predicted) == 0)
    counts = Counts(
        images=1,
        pixels=truth.height * truth.width,
        both_empty=empty == 2,
        one_empty=empty == 1,
        truths=len(truth),
        predictions=len(predicted),
        matched=len(matching),
    )
    return counts, hit


def count_masks(spec: Protocol, predicted: np.ndarray, truth: np.ndarray) -> Counts:
    """Counts of one image from its masks.

    Args:
      spec: the protocol.
      predicted: [H, W] bool.
      truth: [H, W] bool.

    Raises:
      ValueError: if the sizes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(
            f"the prediction is {_size(*predicted.shape)}, the truth {_size(*truth.shape)} (height x width)"
        )
    regions = find_regions(predicted, spec.connectivity)
    counts, hit = _count_points(spec, inputs.mask_centroids(truth, spec.connectivity), regions.centroids)
    positive, true = np.count_nonzero(predicted), np.count_nonzero(truth)
    both = np.count_nonzero(predicted & truth)
    return dataclasses.replace(
        counts,
        pixel_tp=both,
        pixel_fp=positive - both,
        pixel_fn=true - both,
        iou_sum=fixed_point_iou(both, positive + true - both),
        false_region_pixels=regions.areas[~hit].sum(),
    )


def count_image(
    spec: Protocol,
    prediction: Any,
    truth: Any,
    *,
    threshold: float | None = None,
    logits: bool = False,
    scale: int = 255,
) -> tuple[Counts, str | None]:
    """Counts of one image under one protocol.

    Args:
      spec: the protocol.
      prediction: a map [H, W] (`inputs.predicted_mask`) or PointPredictions.
      truth: a mask [H, W] (`inputs.truth_mask`), PointTruth, or an `irjax.types.Example`.
      threshold: replaces the protocol's on maps, and drops points with a lower score. None: the protocol's, all points.
      logits: whether float maps are logits.
      scale: what stands for p = 1 in an integer map.

    Returns:
      The counts, and the rule by which the truth mask was read (None for points).

    Raises:
      ValueError: if the protocol needs maps and gets points, sizes differ, or values are out of range.
    """
    if inputs.is_example(truth):
        truth = inputs.truth_of_example(truth, spec.needs_maps)
    if spec.needs_maps and (inputs.is_points(prediction) or inputs.is_points(truth)):
        raise ValueError(
            f"protocol {spec.name!r} scores pixels: it needs maps [H, W] and masks [H, W], got "
            f"{type(prediction).__name__} and {type(truth).__name__}; protocol 'centroid' takes points"
        )
    rule = None
    if not inputs.is_points(truth):
        truth, rule = inputs.truth_mask(truth)
    if isinstance(prediction, PointPredictions):
        if isinstance(truth, np.ndarray):
            truth = inputs.mask_centroids(truth, spec.connectivity)
        if threshold is not None:
            prediction = prediction.above(threshold)
        return _count_points(spec, truth, prediction.points)[0], rule
    level = spec.threshold if threshold is None else threshold
    predicted = inputs.predicted_mask(prediction, level, logits=logits, scale=scale)
    if isinstance(truth, np.ndarray):
        return count_masks(spec, predicted, truth), rule
    if predicted.shape != (truth.height, truth.width):
        size = _size(truth.height, truth.width)
        raise ValueError(f"the prediction is {_size(*predicted.shape)}, the image {size} (height x width)")
    return _count_points(spec, truth, find_regions(predicted, spec.connectivity).centroids)[0], rule


def as_sequence(items: Any, what: str) -> Sequence[Any]:
    """Predictions or truths as a sequence over images.

    Raises:
      ValueError: for a single image, or something that is not a sequence.
    """
    if all(hasattr(items, name) for name in ("points", "scores", "valid")):
        return inputs.from_detections(items) if items.masks is None else np.asarray(items.masks)
    if inputs.is_points(items) or inputs.is_example(items) or getattr(items, "ndim", 3) == 2:
        raise ValueError(f"{what} must be a sequence over images, got a single one; put it into a list")
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")) or isinstance(items, str | bytes | Mapping):
        raise ValueError(f"{what} must be a sequence over images (a list, or an array [B, H, W]), got {type(items)}")
    return items


def evaluate_images(
    predictions: Any,
    truths: Any,
    protocols: Sequence[str | Protocol] | str | Protocol = ("irjax",),
    *,
    threshold: float | None = None,
    logits: bool = False,
    names: Sequence[str] | None = None,
) -> dict[str, Evaluation]:
    """Scores predictions and keeps the counts of every image.

    Args:
      predictions: over images: maps [H, W] (bool, floats in [0, 1], or integers: 0/1 throughout the set, else 0-255),
        PointPredictions, or one `irjax.types.Detections` with a batch axis. Each image is read once, so a lazy sequence
        that loads files will do.
      truths: over the same images: masks [H, W], PointTruth, or an `irjax.types.Source` or list of Examples.
      protocols: names or `Protocol` records.
      threshold: replaces a protocol's threshold on maps, and drops points with a lower score. None: as the protocol
        says, and all points.
      logits: whether float maps are logits.
      names: of the images, for messages and tables; default: those of the truths' Source, or "0", "1", ...

    Returns:
      {protocol: Evaluation}.

    Raises:
      ValueError: if numbers of images differ, a protocol is unknown, or an image cannot be scored (it is named).
    """
    specs = [protocol(name) for name in ([protocols] if isinstance(protocols, str | Protocol) else protocols)]
    if len({spec.name for spec in specs}) != len(specs):
        raise ValueError(f"protocols need different names, got {[spec.name for spec in specs]}")
    predictions, truths = as_sequence(predictions, "predictions"), as_sequence(truths, "truths")
    if len(predictions) != len(truths):
        raise ValueError(f"{len(predictions)} predictions for {len(truths)} truths")
    if names is None:
        names = getattr(truths, "names", None) or [str(number) for number in range(len(truths))]
    if len(names) != len(truths):
        raise ValueError(f"{len(names)} names for {len(truths)} images")
    rows, rules = _count_all(specs, predictions, truths, names, threshold, logits)
    return {
        spec.name: Evaluation(spec, threshold, tuple(names), tuple(rows[number]), dict(rules))
        for number, spec in enumerate(specs)
    }


def _count_all(specs, predictions, truths, names, threshold, logits) -> tuple[list[list[Counts]], dict[str, int]]:
    scale = inputs.integer_scale(predictions)
    rows: list[list[Counts]] = [[] for _ in specs]
    rules: dict[str, int] = {}
    for name, prediction, truth in zip(names, predictions, truths, strict=True):
        rule = None
        for spec, out in zip(specs, rows, strict=True):
            try:
                counts, rule = count_image(spec, prediction, truth, threshold=threshold, logits=logits, scale=scale)
            except ValueError as error:
                raise ValueError(f"image {name}: {error}") from error
            out.append(counts)
        if rule is not None:
            rules[rule] = rules.get(rule, 0) + 1
    return rows, rules


def evaluate(
    predictions: Any, truths: Any, protocols: Sequence[str | Protocol] | str | Protocol = ("irjax",), **options: Any
) -> dict[str, dict[str, float | int]]:
    """Scores predictions under any number of protocols.

    Example:
      >>> import numpy as np
      >>> truth = np.zeros((1, 32, 32), bool)
      >>> truth[0, 10:13, 10:13] = True
      >>> evaluate(truth, truth)["irjax"]["IoU"]
      1.0

    Args:
      predictions: over images: maps [H, W], PointPredictions, or one `irjax.types.Detections` with a batch axis.
      truths: over the same images: masks [H, W], PointTruth, or an `irjax.types.Source` or list of Examples.
      protocols: names (`irjax.metrics.PROTOCOLS`) or `Protocol` records.
      **options: those of `evaluate_images`: threshold, logits, names.

    Returns:
      {protocol: {metric: value}}. Fa is per pixel. A metric that is undefined is nan: Pd without any target, Precision
      without any prediction.

    Raises:
      ValueError: see `evaluate_images`.
    """
    evaluations = evaluate_images(predictions, truths, protocols, **options)
    return {name: evaluation.metrics() for name, evaluation in evaluations.items()}
