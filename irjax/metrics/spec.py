"""The fields of a protocol, which `irjax.metrics.counting` interprets. `protocols` defines the known protocols."""

from __future__ import annotations

import dataclasses
from typing import Any

from irjax.errors import UsageError, UserError
from irjax.metrics.matching import METHODS

_CHOICES = {
    "connectivity": (4, 8),
    "matching": tuple(METHODS),
    "false_alarm": ("area", "area_set", "count", "pixels"),
    "false_alarm_per": ("pixels", "background"),
    "empty": ("skip", "zero", "one"),
    "canvas": ("native", "pad", "resize"),
    "truth": ("split", "exact", "mixed", "peak", "positive", "graded"),
    "centroid": ("geometric", "weighted"),
    "dropped_points": ("none", "origin", "axes"),
    "sweep": ("again", "once", "once_shifted"),
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """How a protocol computes its ROC from score histograms.

    Attributes:
      thresholds: thresholds in [0, 1], rising; each gives one point of the curve.
      inclusive: whether a pixel with a score equal to a threshold counts as above it.
      targets: whether the true positive rate is the fraction of targets with any pixel above the threshold, instead of
        the fraction of target pixels.
      closed: whether the curve is extended to (0, 0) and (1, 1) for the area under it.
      smoothing: added to the denominators of the rates: the numbers of positives, negatives and predictions.
      f1_smoothing: added to precision + recall, the denominator of F1.
    """

    thresholds: tuple[float, ...]
    inclusive: bool = False
    targets: bool = False
    closed: bool = True
    smoothing: float = 0.0
    f1_smoothing: float = 0.0

    def __post_init__(self):
        rising = all(a < b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False))
        if not self.thresholds or not rising or self.thresholds[0] < 0 or self.thresholds[-1] > 1:
            raise UserError(f"a curve needs thresholds that rise within [0, 1], got {self.thresholds}")
        if self.smoothing < 0 or self.f1_smoothing < 0:
            raise UserError(f"smoothing is at least 0, got {self.smoothing} and {self.f1_smoothing}")

    @classmethod
    def even(cls, bins: int, **options: Any) -> Curve:
        """Returns a curve with thresholds 0, 1 / bins, ..., 1; `options` are the other fields."""
        return cls(tuple(k / bins for k in range(bins + 1)), **options)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How predictions are scored.

    Attributes:
      name: name in tables.
      summary: one-line description for tables and help.
      metrics: the metrics it reports, in order; names from `irjax.metrics.values.METRICS`.
      needs_maps: whether it counts pixels and so needs maps [H, W] and masks [H, W]. Otherwise points are accepted too,
        and the regions of a map are represented by their centroids.
      threshold: a pixel of a map is a target where p > threshold; p equal to it is background.
      connectivity: connectivity of predicted and true regions, 8 or 4.
      matching: "optimal", "first" or "nearest_in_order" (`irjax.metrics.matching`).
      limit: largest distance in pixels between matched centroids.
      inclusive: whether a distance of exactly `limit` counts.
      false_alarm: what Fa counts: "area" (pixels of unmatched predicted regions), "area_set" (pixels of predicted
        regions whose area in pixels differs from that of every matched region of the image), "count" (unmatched
        predictions) or "pixels" (predicted background pixels).
      false_alarm_per: denominator of Fa: all "pixels" of the images or canvases, or only those of the "background".
      empty: how nIoU treats an image without truth and prediction: "skip", "zero" or "one".
      fa_unit: unit in which Fa is printed; values are always returned per pixel.
      flaws: known errors of the protocol, printed beside its results.
      canvas: where pixels are counted: at "native" size; on a square with the image in its top left corner ("pad"),
        which changes only the number of pixels; or on a square to which map and mask are resized ("resize"), the map
        bilinearly and the mask by nearest neighbour, both with Pillow, as the published loaders resize images and
        masks. (These programs run the network on the resized image and so resize no map.) A map that contains only 0
        and 1 is resized like a mask, and a map that already has the size of the canvas is not resized.
      canvas_size: side of the square in pixels; required unless the canvas is "native".
      peak_normalised: whether each map is first divided by its own maximum.
      eight_bit: whether each map is first quantised to floor(255 p) / 255, as when it is saved as an image.
      truth: how a gray level v in 0..255 of a truth mask is read. A pixel is a target from v = 128 on ("split"), only
        at v = 255 ("exact"), at the maximum of the mask ("peak") or for v > 0 ("positive"). "mixed": intersections and
        regions use v = 255, unions v >= 128 and pixAcc v > 0. "graded": a pixel counts as v / 255, and a region
        consists of pixels of one level. Binary masks give the same result under every rule.
      centroid: centroid of a region: "geometric", or "weighted" by p for predictions and by gray level for truth.
      dropped_points: predicted points that do not count: "none", those at the "origin" (0, 0), or those on the "axes"
        (x = 0 or y = 0).
      skip_without_truth: whether images without targets are ignored, including their false alarms.
      iou_epsilon: added to the union in the IoU of each image.
      curve: how the ROC is computed; None if the protocol has none.
      deviations: if given, replaces `threshold` by mean + `deviations` * standard deviation of each map
        (`inputs.adaptive_level`), after `peak_normalised`, `eight_bit` and the resizing to a canvas.
      program_size: side of the square to which the published program brings images and masks before it counts, if the
        protocol counts at "native" size. Maps of that size can be scored as they are (`protocols.as_stored`).
      sweep: whether a threshold sweep matches "again" at each threshold or "once" at the lowest; "once_shifted" also
        matches once, and looks up the scores as if no point had been dropped.
    """

    name: str
    summary: str
    metrics: tuple[str, ...]
    needs_maps: bool = True
    threshold: float = 0.5
    connectivity: int = 8
    matching: str = "optimal"
    limit: float = 3.0
    inclusive: bool = False
    false_alarm: str = "area"
    empty: str = "skip"
    fa_unit: float = 1e-6
    flaws: tuple[str, ...] = ()
    false_alarm_per: str = "pixels"
    canvas: str = "native"
    canvas_size: int | None = None
    peak_normalised: bool = False
    eight_bit: bool = False
    truth: str = "split"
    centroid: str = "geometric"
    dropped_points: str = "none"
    skip_without_truth: bool = False
    iou_epsilon: float = 0.0
    curve: Curve | None = None
    sweep: str = "again"
    deviations: float | None = None
    program_size: int | None = None

    def __post_init__(self):
        for field, allowed in _CHOICES.items():
            if getattr(self, field) not in allowed:
                raise self._error(f"{field} must be one of {allowed}, got {getattr(self, field)!r}")
        if not 0 <= self.threshold <= 1:
            raise self._error(f"threshold is a probability in [0, 1], got {self.threshold}")
        if self.deviations is not None and not 0 <= self.deviations < float("inf"):
            raise self._error(f"deviations is a number of standard deviations of at least 0, got {self.deviations}")
        if not self.limit > 0:
            raise self._error(f"limit is a distance above 0 pixels, got {self.limit}")
        if not self.iou_epsilon >= 0:
            raise self._error(f"iou_epsilon is at least 0, got {self.iou_epsilon}")
        if self.false_alarm != "count" and not self.needs_maps:
            raise self._error("points have no area, so its Fa must be by 'count'")
        by_pixels = self.false_alarm == "pixels" or self.false_alarm_per == "background"
        if by_pixels and self.truth == "graded":
            raise self._error("graded truth has parts of pixels, so its Fa must be by regions and all pixels")
        if self.canvas != "native" and not (self.canvas_size and self.canvas_size > 0):
            raise self._error(f"canvas {self.canvas!r} needs canvas_size, its side in pixels; got {self.canvas_size}")
        if "AUC" in self.metrics and self.curve is None:
            raise self._error("AUC needs a curve")
        if self.curve is not None and not self.needs_maps:
            raise self._error("points have no pixels, so it cannot have a curve")

    def _error(self, text: str) -> UserError:
        return UsageError(f"protocol {self.name!r}: {text}")

    @property
    def rule(self) -> str:
        """Description of the matching rule, such as "optimal one-to-one, <= 5 px"."""
        return f"{self.matching.replace('_', ' ')} one-to-one, {'<=' if self.inclusive else '<'} {self.limit:g} px"

    @property
    def pixel_unit(self) -> int:
        """Number of units that a pixel has in the pixel counts: 255 for "graded" truth, else 1."""
        return 255 if self.truth == "graded" else 1
