"""Scores a prediction set against its truth in one pass, reading every file once.

Predictions, maps or points, are paired with truths by name. Each pair is scored under every protocol and, for the
curves, under one protocol at every threshold.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from irjax.errors import MissingFileError, UsageError, UserError, reading
from irjax.evaluation.truths import Truths
from irjax.io.maps import MapFiles, find_maps, map_file_shape, read_rule, resize_bilinear
from irjax.io.names import match_names, name_list
from irjax.io.predictions import read_predictions
from irjax.metrics import PROTOCOLS, Curve, Evaluation, Protocol, centroid_sweep, evaluate_images, inputs, protocol
from irjax.metrics.curves import Sweep, average_precision
from irjax.metrics.histograms import ScoreHistogram, ratio
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.metrics.protocols import on_canvas
from irjax.ops.regions import find_regions
from irjax.reports.html import View

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
BINS = 256  # of the pixel histograms; exact for 8-bit maps
_NO_POINTS = PointPredictions(np.zeros((0, 2)))


@dataclasses.dataclass(frozen=True)
class PredictionSet:
    """The predictions of one program, not yet paired with images.

    Attributes:
      title: name of the set in reports.
      items: map files, or {name: points and scores}.
      sizes: {name: (height, width)} that points were made for, where known.
      complete: whether every image should be listed. If so, an unlisted image was left out; otherwise it has no
        detections.
      path: file or folder of the set; None for a set held in memory.
    """

    title: str
    items: MapFiles | Mapping[str, PointPredictions]
    sizes: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    complete: bool = True
    path: pathlib.Path | None = None

    @property
    def is_maps(self) -> bool:
        """Whether the set holds maps rather than points."""
        return isinstance(self.items, MapFiles)

    @property
    def where(self) -> str:
        """Name of the set in messages."""
        return str(self.path or self.title)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the predictions, in order."""
        return self.items.names if isinstance(self.items, MapFiles) else tuple(self.items)


def open_predictions(path: str | os.PathLike, *, key: str | None = None, logits: bool = False) -> PredictionSet:
    """Opens a folder of maps (`irjax.io.maps`) or a COCO-keypoint file (`irjax.io.predictions`).

    Raises:
      MissingFileError: if there is nothing at that path.
      UserError: if it is neither, or cannot be read; the message names it.
    """
    path = pathlib.Path(path)
    with reading(path):
        whole, there = path.resolve(), path.exists()
    title = whole.name if path.is_dir() else f"{whole.parent.name}/{whole.name}"
    if path.is_dir():
        return PredictionSet(title, find_maps(path, key=key, logits=logits), path=path)
    if not there:
        raise MissingFileError(f"there is no folder or file {path}")
    if path.suffix.lower() != ".json":
        raise UserError(f"{path}: predictions are a folder of maps or a COCO-keypoint .json file")
    if key is not None or logits:
        raise UserError(f"{path}: --key and --logits are for maps, and this is a file of points")
    content = read_predictions(path)
    return PredictionSet(title, content.predictions, content.sizes, content.lists_images, path)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Assignment of predictions to images.

    Attributes:
      prediction_of: for each image, the index of its prediction in the set, or None.
      missing: names of the images without a prediction; all their targets count as missed.
      unknown: names of the predictions without an image; they are ignored.
    """

    prediction_of: tuple[int | None, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def pair(predictions: PredictionSet, names: Sequence[str], *, allow_missing: bool = False) -> Pairs:
    """Pairs predictions with images by name (`irjax.io.names`).

    Raises:
      UserError: if there are no images, names are ambiguous or not unique, no name matches, or, unless
        `allow_missing`, a name is on one side only.
    """
    where = predictions.where
    if not names:
        raise UserError("the truth is empty: there is nothing to score against")
    if len(set(names)) != len(names):
        twice = sorted(name for name, number in collections.Counter(names).items() if number > 1)
        raise UserError(f"predictions go by name, but the data set has names that are not unique: {name_list(twice)}")
    try:
        matched = match_names(predictions.names, names)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if matched.unknown and not matched.prediction_of:
        raise UserError(
            f"{where}: none of its {len(matched.unknown)} images is in the data set; it has "
            f"{name_list(matched.unknown)}, the data set {name_list(names)}"
        )
    problems = []
    if matched.unknown:
        problems.append(
            f"{len(matched.unknown)} predictions are of no image of the data set: {name_list(matched.unknown)}"
        )
    if matched.without_prediction and predictions.complete:
        problems.append(
            f"{len(matched.without_prediction)} images of the data set have no prediction: "
            f"{name_list(matched.without_prediction)}"
        )
    if problems and not allow_missing:
        raise UserError(f"{where}: {'; '.join(problems)}. allow_missing (--allow-missing) accepts this")
    place = {name: index for index, name in enumerate(predictions.names)}
    found = (matched.prediction_of.get(name) for name in names)
    return Pairs(
        tuple(None if name is None else place[name] for name in found), matched.without_prediction, matched.unknown
    )


class PairReader:
    """Reads the prediction and the truth of an image; picklable, for worker processes."""

    def __init__(self, predictions: PredictionSet, truths: Truths, pairs: Pairs, *, resize: bool = False):
        self.predictions, self.truths, self.pairs, self.resize = predictions, truths, pairs, resize
        self._last: tuple[int, tuple] | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_last": None}

    def read(self, index: int) -> tuple[np.ndarray | PointPredictions, np.ndarray | PointTruth]:
        """Returns the prediction and the truth of an image.

        The last pair is kept: callers ask for the prediction and the truth separately, and each file is read once.

        Raises:
          UserError: if one cannot be read, or sizes differ and maps may not be resized; the message names the file.
        """
        if self._last is None or self._last[0] != index:
            self._last = index, self._read(index)
        return self._last[1]

    def _read(self, index: int) -> tuple[np.ndarray | PointPredictions, np.ndarray | PointTruth]:
        truth = self.truths.read(index)
        size = truth.shape if isinstance(truth, np.ndarray) else (truth.height, truth.width)
        place, name, items = self.pairs.prediction_of[index], self.truths.names[index], self.predictions.items
        if not isinstance(items, MapFiles):
            if place is None:
                return _NO_POINTS, truth
            key = self.predictions.names[place]
            stated = self.predictions.sizes.get(key)
            if stated is not None and tuple(stated) != tuple(size):
                raise UserError(
                    f"{self.predictions.where}, image {name}: the predictions are for "
                    f"{stated[0]}x{stated[1]}, the data set's image is {size[0]}x{size[1]} (height x width)"
                )
            return items[key], truth
        if place is None:
            return np.zeros(size, bool), truth
        values = items[place]
        if values.shape != tuple(size):
            if not self.resize:
                raise UserError(
                    f"{items.paths[place]}: the map is {values.shape[0]}x{values.shape[1]}, the truth of image {name} "
                    f"is {size[0]}x{size[1]} (height x width); --resize scales maps to the truth's size"
                )
            values = resize_bilinear(values, *size)
        return values, truth

    def resized(self) -> dict[str, tuple[int, int]]:
        """Returns {image name: stored (height, width)} of the resized maps, from file headers where possible."""
        sizes, items = {}, self.predictions.items
        if self.resize and isinstance(items, MapFiles):
            for index, place in enumerate(self.pairs.prediction_of):
                if place is not None:
                    size = map_file_shape(items.paths[place], items.key)
                    if size != self.truths.size(index):
                        sizes[self.truths.names[index]] = size
        return sizes


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
    """

    reader: PairReader
    specs: tuple[Protocol, ...]
    reference: Protocol
    threshold: float | None = None
    levels: tuple[float, ...] = THRESHOLDS

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
        if self.threshold is None or not self.predictions.is_maps:
            return spec
        return dataclasses.replace(spec, threshold=self.threshold)

    def view(self, index: int) -> View:
        """Reads an image again and returns what is drawn of it."""
        prediction, truth = self.reader.read(index)
        spec, image = self.at_threshold(self.reference), self.reader.truths.image(index)
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
        predicted = inputs.predicted_mask(prediction, spec.threshold, logits=self.logits)
        response = inputs.probabilities(prediction, logits=self.logits)
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
    assert isinstance(scorer.predictions.items, MapFiles)
    rule = read_rule(scorer.predictions.items)
    # Each threshold is one more protocol, so that all share one reading of the image and one search for true regions.
    reference, extra = scorer.at_threshold(scorer.reference), "reference"
    steps = [dataclasses.replace(reference, name=f"{extra} {level:g}", threshold=level) for level in scorer.levels]
    reference = dataclasses.replace(
        reference, name=extra, curve=Curve.even(BINS) if scorer.levels and reference.needs_maps else None
    )
    found = evaluate_images(
        _Column(scorer.reader, 0), _Column(scorer.reader, 1), [*specs, reference, *steps],
        logits=scorer.logits, names=scorer.names, processes=processes,
    )  # fmt: skip
    grid = _sweep_of([found[step.name] for step in steps]) if steps else None
    return Scores(
        {spec.name: found[spec.name] for spec in specs},
        dataclasses.replace(found[extra], protocol=scorer.at_threshold(scorer.reference)),
        grid,
        grid,
        found[extra].total.scores if steps else None,
        rule,
        scorer.reader.resized(),
    )


def _score_points(scorer: Scorer) -> Scores:
    pairs = [scorer.reader.read(index) for index in range(len(scorer.names))]
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
