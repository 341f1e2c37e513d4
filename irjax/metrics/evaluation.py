"""Scores predictions under any number of protocols.

`evaluate` returns the metrics; `evaluate_images` also keeps the counts of each image, which are needed for intervals
and for finding the worst images. `irjax.metrics.counting` computes the counts of one image.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from irjax.errors import UserError
from irjax.metrics import inputs, values
from irjax.metrics.accumulators import Counts
from irjax.metrics.bootstrap import bootstrap_intervals
from irjax.metrics.counting import count_image, count_masks
from irjax.metrics.histograms import PixelCurve
from irjax.metrics.parallel import Job, count_all
from irjax.metrics.protocols import Protocol, protocol

__all__ = ["Evaluation", "as_sequence", "count_image", "count_masks", "evaluate", "evaluate_images"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One prediction set under one protocol.

    Attributes:
      protocol: the protocol.
      threshold: the threshold that replaced the protocol's on maps and below which points were dropped; None if no
        threshold was given.
      names: names of the n images.
      rows: n counts, one for each image.
      mask_rules: number of truth masks read by each rule (`inputs.truth_mask`); empty for point truths.
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
        """Computes the protocol's metrics; a metric is nan if undefined."""
        return values.from_counts(self.total, self.protocol)

    def curve(self) -> PixelCurve:
        """Returns the pixel ROC of a protocol that has a `curve`.

        Raises:
          UserError: if the protocol has no curve, or there are no images.
        """
        scores = self.total.scores
        if scores is None:
            known = "there are no images" if self.protocol.curve else "it has no `curve`"
            raise UserError(f"protocol {self.protocol.name!r} draws no ROC here: {known}")
        return scores.curve(self.protocol.curve)

    def intervals(self, *, samples: int = 1000, level: float = 0.95, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Computes bootstrap intervals over images (`irjax.metrics.bootstrap_intervals`)."""
        return bootstrap_intervals(self.rows, self.protocol, samples=samples, level=level, seed=seed)

    def worst_first(self) -> list[int]:
        """Returns the indices of the images, those with most errors (misses and false detections) first.

        Ties go to the image with more misses, then to the one with more wrong pixels, then to the lower index.
        """

        def badness(index: int) -> tuple[int, ...]:
            row = self.rows[index]
            misses = row.truths - row.matched
            errors = misses + row.predictions - row.matched
            return -errors, -misses, -(row.pixel_fp + row.pixel_fn), index

        return sorted(range(len(self.rows)), key=badness)


def as_sequence(items: Any, what: str) -> Sequence[Any]:
    """Returns predictions or truths as a sequence over images.

    Raises:
      UserError: if `items` is a single image or not a sequence.
    """
    if all(hasattr(items, name) for name in ("points", "scores", "valid")):
        # An array is not a `Sequence` to a type checker, but supports every operation that is needed.
        return inputs.from_detections(items) if items.masks is None else cast(Sequence[Any], np.asarray(items.masks))
    if inputs.is_points(items) or inputs.is_example(items) or getattr(items, "ndim", 3) == 2:
        raise UserError(f"{what} must be a sequence over images, got a single one; put it into a list")
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")) or isinstance(items, str | bytes | Mapping):
        raise UserError(f"{what} must be a sequence over images (a list, or an array [B, H, W]), got {type(items)}")
    return items


def evaluate_images(
    predictions: Any,
    truths: Any,
    protocols: Sequence[str | Protocol] | str | Protocol = ("irjax",),
    *,
    threshold: float | None = None,
    logits: bool = False,
    names: Sequence[str] | None = None,
    processes: int | None = None,
) -> dict[str, Evaluation]:
    """Scores predictions and keeps the counts of every image.

    Args:
      predictions: a sequence over images of maps [H, W] (bool, floats in [0, 1], or integers, which are 0/1 if no map
        of the set exceeds 1 and 0-255 otherwise) or PointPredictions; or one `irjax.types.Detections` with a batch
        axis. Images are accessed one at a time, so the sequence may load files lazily; if it can be pickled, the worker
        processes read it.
      truths: over the same images: masks [H, W], PointTruth, or an `irjax.types.Source` or list of Examples.
      protocols: names or `Protocol` records.
      threshold: replaces a protocol's threshold on maps and drops points with a lower score. None uses the protocol's
        threshold on maps and all points.
      logits: whether float maps are logits.
      names: names of the images, for messages and tables; default: those of the truths' Source, or "0", "1", ...
      processes: number of processes; 1 uses only this process. None uses one for each processor for large sets of maps,
        and only this process for small ones. The result does not depend on it.

    Returns:
      {protocol: Evaluation}.

    Raises:
      UserError: if the numbers of images differ, a protocol is unknown, or an image cannot be scored (the message
        names it).
    """
    specs = [protocol(name) for name in ([protocols] if isinstance(protocols, str | Protocol) else protocols)]
    if len({spec.name for spec in specs}) != len(specs):
        raise UserError(f"protocols need different names, got {[spec.name for spec in specs]}")
    predictions, truths = as_sequence(predictions, "predictions"), as_sequence(truths, "truths")
    if len(predictions) != len(truths):
        raise UserError(f"{len(predictions)} predictions for {len(truths)} truths")
    if names is None:
        names = getattr(truths, "names", None) or [str(number) for number in range(len(truths))]
    if len(names) != len(truths):
        raise UserError(f"{len(names)} names for {len(truths)} images")
    job = Job(tuple(specs), threshold, logits)
    scored = count_all(job, predictions, truths, list(names), processes)
    found = {}
    for number, spec in enumerate(specs):
        applied = (image.rules[number] for image in scored)
        rules = collections.Counter(rule for rule in applied if rule is not None)
        rows = tuple(image.rows[number] for image in scored)
        found[spec.name] = Evaluation(spec, threshold, tuple(names), rows, dict(rules))
    return found


def evaluate(
    predictions: Any, truths: Any, protocols: Sequence[str | Protocol] | str | Protocol = ("irjax",), **options: Any
) -> dict[str, dict[str, float | int]]:
    """Scores predictions under any number of protocols.

    Examples:
      >>> import numpy as np
      >>> truth = np.zeros((1, 32, 32), bool)
      >>> truth[0, 10:13, 10:13] = True
      >>> evaluate(truth, truth)["irjax"]["IoU"]
      1.0

    Args:
      predictions: maps [H, W] or PointPredictions over images, or one `irjax.types.Detections` with a batch axis.
      truths: over the same images: masks [H, W], PointTruth, or an `irjax.types.Source` or list of Examples.
      protocols: names (`irjax.metrics.PROTOCOLS`) or `Protocol` records.
      **options: options of `evaluate_images`: threshold, logits, names, processes.

    Returns:
      {protocol: {metric: value}}. Fa is per pixel. An undefined metric is nan, for example Pd without any target or
      Precision without any prediction.

    Raises:
      UserError: see `evaluate_images`.
    """
    evaluations = evaluate_images(predictions, truths, protocols, **options)
    return {name: evaluation.metrics() for name, evaluation in evaluations.items()}
