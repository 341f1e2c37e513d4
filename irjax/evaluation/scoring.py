"""Scores a prediction set against its truth in one pass, reading every file once.

Each pair of a prediction and a truth (`irjax.evaluation.pairs`) is scored under every protocol and, for the curves,
under one protocol at every threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from irjax.bars import bar
from irjax.errors import UsageError, UserError
from irjax.evaluation.pairs import PairReader, Pairs, PredictionSet
from irjax.evaluation.truths import Truths
from irjax.io.maps import MapFiles, read_rule
from irjax.metrics import PROTOCOLS, Curve, Evaluation, Protocol, centroid_sweep, evaluate_images, inputs, protocol
from irjax.metrics.clutter import MARGIN, Clutter, clutter
from irjax.metrics.curves import Sweep, average_precision
from irjax.metrics.histograms import ScoreHistogram, ratio
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.metrics.protocols import as_stored, on_canvas
from irjax.ops.regions import find_regions
from irjax.ops.resize import resize_mask, resize_square
from irjax.reports.html import View

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
BINS = 256  # of the pixel histograms; exact for 8-bit maps


@dataclasses.dataclass(frozen=True)
class _Column:
    """The predictions (0) or the truths (1) of a reader as a sequence."""

    reader: PairReader
    which: int

    def __len__(self) -> int:
        return len(self.reader.truths.names)

    def __getitem__(self, index: int):
        if index >= len(self):  # ends a loop over the sequence
            raise IndexError(index)
        return self.reader.read(index)[self.which]


@dataclasses.dataclass(frozen=True)
class Scorer:
    """What is scored and how.

    Attributes:
      reader: reads predictions and truths.
      specs: the protocols of the table.
      reference: the protocol of curves, per-image results and overlays (`reference_protocol`).
      threshold: replaces the protocols' threshold on maps (p > threshold) and drops points with a lower score; None
        keeps the protocols' threshold and all points.
      levels: thresholds of the curves, in increasing order; empty for no curves.
      deviations: K of the threshold mean + K standard deviations of each map, in place of the protocols'; None for
        none.
      stored: reads the maps at the size of a canvas, for the protocols that take them as they are; None if there are
        none. The reference is among these if it has a canvas.
      clutter_margin: width in pixels of a target's background in signal-to-clutter ratios.
    """

    reader: PairReader
    specs: tuple[Protocol, ...]
    reference: Protocol
    threshold: float | None = None
    levels: tuple[float, ...] = THRESHOLDS
    deviations: float | None = None
    stored: PairReader | None = None
    clutter_margin: int = MARGIN

    @property
    def predictions(self) -> PredictionSet:
        """The prediction set."""
        return self.reader.predictions

    @property
    def names(self) -> Sequence[str]:
        """The names of the images."""
        return self.reader.truths.names

    @property
    def logits(self) -> bool:
        """Whether the maps are logits."""
        return isinstance(self.predictions.items, MapFiles) and self.predictions.items.logits

    def at_threshold(self, spec: Protocol) -> Protocol:
        """Returns the protocol with the threshold in use."""
        if self.deviations is not None:
            return dataclasses.replace(spec, deviations=self.deviations)
        if self.threshold is None or not self.predictions.is_maps:
            return spec
        return dataclasses.replace(spec, threshold=self.threshold)

    def reader_of(self, spec: Protocol) -> PairReader:
        """Returns the reader of the maps that a protocol of the table, or the reference, is given."""
        canvas = spec.canvas == "resize" and self.stored is not None and spec.canvas_size == self.stored.stored
        return self.stored if canvas and self.stored is not None else self.reader

    def view(self, index: int) -> View:
        """Reads an image again and returns what is drawn of it, at the canvas of the reference if it has one."""
        prediction, truth = self.reader_of(self.reference).read(index)
        spec, image = self.at_threshold(self.reference), self.reader.truths.image(index)
        if spec.canvas == "resize" and spec.canvas_size is not None and isinstance(truth, np.ndarray):
            truth = resize_mask(truth, spec.canvas_size)
            image = None if image is None else resize_square(image, spec.canvas_size)
            if not isinstance(prediction, PointPredictions) and prediction.shape != truth.shape:
                prediction = resize_square(prediction, spec.canvas_size)
        mask: np.ndarray | None = None
        if isinstance(truth, PointTruth):
            points = truth
        else:
            mask = inputs.truth_mask(truth)[0]
            points = inputs.mask_centroids(mask, spec.connectivity)
        if isinstance(prediction, PointPredictions):
            kept = prediction if self.threshold is None else prediction.above(self.threshold)
            picture, pictured = (image, "image") if image is not None else (mask, "true mask")
            assert picture is not None  # a truth without masks has images
            return View(picture, kept, points, None, mask, None, pictured)
        response = inputs.probabilities(prediction, logits=self.logits)
        level = spec.threshold if spec.deviations is None else inputs.adaptive_level(response, spec.deviations)
        predicted = inputs.predicted_mask(prediction, level, logits=self.logits)
        regions = find_regions(predicted, spec.connectivity)
        found = PointPredictions(regions.centroids, regions.peaks(response))
        picture, pictured = (image, "image") if image is not None else (response, "predicted map")
        return View(picture, found, points, response, mask, predicted, pictured)


@dataclasses.dataclass(frozen=True)
class Scores:
    """All numbers of one prediction set.

    Attributes:
      evaluations: {protocol: Evaluation} of the table.
      reference: the evaluation that curves, per-image results and overlays belong to.
      grid: the reference's sweep over `Scorer.levels`; None without curves.
      curve: for maps the same sweep, for points the sweep over every distinct score; None if `grid` is None.
      histogram: scores of target and background pixels; None for points and without curves.
      map_rule: description of how maps were read; None for points.
      resized: {image name: stored (height, width)} of the maps that were resized.
      cropped: the same of the maps whose padding was removed.
      clipped: names of the maps whose values were outside of [0, 1] by a rounding error, and clipped.
      clutter: (image name, figures of a target) for every target, where there are curves, and images beside the maps;
        else None.
      at_canvas: number of the maps of another size than the truth that protocols took as they are.
      outside: names of the images with predicted points outside the image.
    """

    evaluations: Mapping[str, Evaluation]
    reference: Evaluation
    grid: Sweep | None
    curve: Sweep | None
    histogram: ScoreHistogram | None
    map_rule: str | None = None
    resized: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    outside: tuple[str, ...] = ()
    cropped: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    clipped: tuple[str, ...] = ()
    at_canvas: int = 0
    clutter: tuple[tuple[str, Clutter], ...] | None = None


def reference_protocol(specs: Sequence[Protocol], *, maps: bool, masks: bool) -> Protocol:
    """Returns the protocol of curves and overlays.

    It is the first of `specs` that applies to these predictions, scores at native size, matches optimally and has no
    known flaw; if there is none, it is `irjax` for maps scored on masks, else `centroid`.

    Args:
      specs: the requested protocols.
      maps: whether predictions are maps.
      masks: whether the truth has masks.
    """
    for spec in specs:
        if spec.matching == "optimal" and not spec.flaws and spec.canvas == "native" and (maps or not spec.needs_maps):
            return spec
    return PROTOCOLS["irjax" if maps and masks else "centroid"]


def stored_side(predictions: PredictionSet, truths: Truths, pairs: Pairs, specs: Sequence[Protocol]) -> int | None:
    """Returns the side of the canvas at which maps were saved, if a protocol takes such maps as they are, else None.

    The first map whose size is not that of its truth decides. Sizes are read from file headers where possible, and
    only if a protocol has a canvas.
    """
    items = predictions.items
    sides = {side for spec in specs for side in (spec.canvas_size, spec.program_size) if side and as_stored(spec, side)}
    if sides and isinstance(items, MapFiles):
        for index, place in enumerate(pairs.prediction_of):
            if place is not None and (shape := items.shape(place)) != tuple(truths.size(index)):
                return shape[0] if shape[0] == shape[1] and shape[0] in sides else None
    return None


def canvas_reference(side: int) -> Protocol:
    """Returns the protocol of curves and overlays for maps that are only scored at a canvas: `irjax` on it."""
    return dataclasses.replace(
        PROTOCOLS["irjax"],
        name=f"irjax at {side}x{side}",
        summary=f"irjax, on the canvas of {side}x{side} of the maps",
        canvas="resize",
        canvas_size=side,
    )


def deviations_of(rule: str | None) -> float | None:
    """Returns K of the threshold rule "adaptive:K"; None for no rule.

    Raises:
      UsageError: for another rule.
    """
    if rule is None:
        return None
    name, _, text = rule.partition(":")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if name != "adaptive" or not 0 <= value < float("inf"):
        raise UsageError(
            "the threshold rule must be adaptive:K, mean + K standard deviations of each map, with K of at least 0; "
            f"got {rule!r}"
        )
    return value


def check_protocols(
    names: Sequence[str | Protocol] | None,
    *,
    maps: bool,
    masks: bool,
    canvas: str | None = None,
    canvas_size: int | None = None,
) -> tuple[Protocol, ...]:
    """Looks up protocols and checks that they can be scored.

    Args:
      names: names or `Protocol` records; if empty, `irjax` for maps scored on masks, else `centroid`.
      maps: whether predictions are maps.
      masks: whether the truth has masks.
      canvas: "pad" or "resize", for protocols that do not score at native size; None keeps the protocol's setting.
      canvas_size: side of that canvas in pixels; None keeps the protocol's setting.

    Raises:
      UserError: if a protocol is unknown, named twice, or scores pixels where there are only points; or if a canvas is
        given and every protocol scores at native size.
    """
    if not names:
        names = ["irjax" if maps and masks else "centroid"]
    specs = tuple(map(protocol, names))
    if canvas is not None or canvas_size is not None:
        if all(spec.canvas == "native" for spec in specs):
            resizing = ", ".join(spec.name for spec in PROTOCOLS.values() if spec.canvas != "native")
            raise UsageError(f"a canvas is for protocols that resize: {resizing}")
        specs = tuple(on_canvas(spec, canvas, canvas_size) for spec in specs)
    for spec in specs:
        if sum(spec.name == other.name for other in specs) > 1:
            raise UsageError(f"protocol {spec.name!r} is named twice")
        if spec.needs_maps and not (maps and masks):
            lacking = "the predictions are points" if not maps else "the data set has points and no masks"
            raise UserError(
                f"protocol {spec.name!r} cannot score points, and {lacking}: wanted one that takes points, such as "
                "'centroid'"
            )
    return specs


def score_all(scorer: Scorer, *, processes: int | None = None) -> Scores:
    """Scores every image.

    Args:
      scorer: what is scored and how.
      processes: number of processes, as for `irjax.metrics.evaluate_images`.

    Raises:
      UserError: if a file cannot be read or scored; the message names it.
    """
    return _score_maps(scorer, processes) if scorer.predictions.is_maps else _score_points(scorer)


def _score_maps(scorer: Scorer, processes: int | None) -> Scores:
    specs = [scorer.at_threshold(spec) for spec in scorer.specs]
    items = scorer.predictions.items
    assert isinstance(items, MapFiles)
    rule = read_rule(items)
    # Each threshold is one more protocol, so that all share one reading of the image and one search for true regions.
    reference, extra = scorer.at_threshold(scorer.reference), "reference"
    steps = [
        dataclasses.replace(reference, name=f"{extra} {level:g}", threshold=level, deviations=None)
        for level in scorer.levels
    ]
    reference = dataclasses.replace(
        reference, name=extra, curve=Curve.even(BINS) if scorer.levels and reference.needs_maps else None
    )
    found: dict[str, Evaluation] = {}
    for reader in filter(None, (scorer.reader, scorer.stored)):
        if own := [spec for spec in (*specs, reference, *steps) if scorer.reader_of(spec) is reader]:
            found |= evaluate_images(
                _Column(reader, 0), _Column(reader, 1), own,
                logits=scorer.logits, names=scorer.names, processes=processes,
            )  # fmt: skip
    native = any(scorer.reader_of(spec) is scorer.reader for spec in (*specs, reference))
    resized, cropped, _ = scorer.reader.changed() if native else ({}, {}, 0)
    grid = _sweep_of([found[step.name] for step in steps]) if steps else None
    return Scores(
        {spec.name: found[spec.name] for spec in specs},
        dataclasses.replace(found[extra], protocol=scorer.at_threshold(scorer.reference)),
        grid,
        grid,
        found[extra].total.scores if steps else None,
        rule,
        resized,
        cropped=cropped,
        clipped=tuple(items.clipped()),
        at_canvas=0 if scorer.stored is None else scorer.stored.changed()[2],
        clutter=_clutter(scorer) if steps and scorer.reader_of(reference) is scorer.reader else None,
    )


def _clutter(scorer: Scorer) -> tuple[tuple[str, Clutter], ...] | None:
    """Returns the figures of every target of the images with a map; None without images or masks."""
    found: list[tuple[str, Clutter]] = []
    for index, place in enumerate(bar(scorer.reader.pairs.prediction_of, "clutter")):
        if place is None:
            continue
        image = scorer.reader.truths.image(index)
        prediction, truth = scorer.reader.read(index)
        if image is None or not isinstance(truth, np.ndarray) or isinstance(prediction, PointPredictions):
            return None
        response = inputs.probabilities(prediction, logits=scorer.logits)
        rows = clutter(image, response, inputs.truth_mask(truth)[0], margin=scorer.clutter_margin)
        found += [(scorer.names[index], row) for row in rows]
    return tuple(found) or None


def _score_points(scorer: Scorer) -> Scores:
    pairs = [scorer.reader.read(index) for index in bar(range(len(scorer.names)), "reading")]
    spec = scorer.reference
    found, truths = [cast("PointPredictions", prediction) for prediction, _ in pairs], [truth for _, truth in pairs]
    points = [
        t if isinstance(t, PointTruth) else inputs.mask_centroids(inputs.truth_mask(t)[0], spec.connectivity)
        for t in truths
    ]
    specs = scorer.specs if spec in scorer.specs else (*scorer.specs, spec)
    evaluations = evaluate_images(found, truths, specs, threshold=scorer.threshold, names=scorer.names, processes=1)
    grid, curve = (
        centroid_sweep(found, points, levels, spec.limit, inclusive=spec.inclusive)
        for levels in (scorer.levels or THRESHOLDS, None)
    )
    outside = []
    for name, prediction, truth in zip(scorer.names, found, points, strict=True):
        edge = np.array([truth.width, truth.height]) - 0.5  # a pixel extends half a pixel beyond its centre
        if ((prediction.points < -0.5) | (prediction.points >= edge)).any():
            outside.append(name)
    table = {spec.name: evaluations[spec.name] for spec in scorer.specs}
    return Scores(table, evaluations[spec.name], grid, curve, None, outside=tuple(outside))


def _sweep_of(steps: Sequence[Evaluation]) -> Sweep:
    """Returns the sweep over the thresholds of the evaluations' protocols."""
    totals, spec = [step.total for step in steps], steps[0].protocol
    matched, predicted, areas = (
        np.array([getattr(total, name) for total in totals], np.int64)
        for name in ("matched", "predictions", "false_region_pixels")
    )
    recall = ratio(matched, np.full_like(matched, totals[0].truths))[::-1]
    return Sweep(
        np.array([step.protocol.threshold for step in steps]),
        matched,
        predicted,
        areas if spec.false_alarm == "area" else predicted - matched,
        totals[0].truths,
        totals[0].pixels,
        average_precision(recall, ratio(matched, predicted)[::-1]),
    )
