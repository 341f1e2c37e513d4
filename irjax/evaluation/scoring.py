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
from irjax.io.lists import read_lines
from irjax.io.maps import MapFiles, crop_padding, find_maps, is_map_file, read_rule, resize_bilinear, same_aspect
from irjax.io.names import NameMatch, match_names, name_list
from irjax.io.predictions import in_pixels, read_predictions
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
      relative: whether points are fractions of the image's sides (`irjax.io.predictions`).
      notes: what a report should say about how the set was read.
    """

    title: str
    items: MapFiles | Mapping[str, PointPredictions]
    sizes: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    complete: bool = True
    path: pathlib.Path | None = None
    relative: bool = False
    notes: tuple[str, ...] = ()

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


def holds_maps(path: str | os.PathLike) -> bool:
    """Returns whether predictions are maps: a map file, or a folder that is not one of text files (YOLO)."""
    path = pathlib.Path(path)
    with reading(path):
        if not path.is_dir():
            return is_map_file(path)
        files = [entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    return not any(entry.suffix.lower() == ".txt" for entry in files) or any(map(is_map_file, files))


def open_predictions(
    path: str | os.PathLike,
    *,
    key: str | None = None,
    logits: bool = False,
    scale: str | None = None,
    names: str | os.PathLike | None = None,
) -> PredictionSet:
    """Opens maps (`irjax.io.maps`) or points (`irjax.io.predictions`).

    Args:
      path: a folder of maps, a file with a stack of maps, a .json or .csv file of points, or a folder of YOLO files.
      key: name of the array in .npz and .mat files.
      logits: whether float maps are logits.
      scale: how raw responses become values in [0, 1] (`irjax.io.maps.SCALES`).
      names: for one array of maps a text file with their names, one a line; for a COCO list of results the COCO file
        with the "images" of its ids.

    Raises:
      MissingFileError: if there is nothing at that path.
      UserError: if it is neither, or cannot be read; the message names it.
    """
    path = pathlib.Path(path)
    with reading(path):
        whole, there, folder = path.resolve(), path.exists(), path.is_dir()
    title = whole.name if folder else f"{whole.parent.name}/{whole.name}"
    if not there:
        raise MissingFileError(f"there is no folder or file {path}")
    if holds_maps(path):
        listed = None if names is None else [line for _, line in read_lines(names)]
        maps = find_maps(path, key=key, logits=logits, scale=scale, names=listed)
        notes: tuple[str, ...] = ()
        if maps.left_out:
            notes = (f"{len(maps.left_out)} files beside the maps were left out: {name_list(maps.left_out)}",)
        return PredictionSet(title, maps, path=path, notes=notes)
    if not folder and path.suffix.lower() not in (".json", ".csv"):
        raise UserError(
            f"{path}: predictions are a folder of maps, one array of them, a COCO-keypoint or box .json file, a "
            "name,x,y,score .csv file, or a folder of YOLO .txt files"
        )
    if key is not None or logits or scale is not None:
        raise UserError(f"{path}: --key and --logits are for maps, as is --scale, and these are points")
    if names is not None and path.suffix.lower() != ".json":
        raise UserError(f"{path}: names are for one array of maps, or for the image ids of a COCO list of results")
    content = read_predictions(path, images=names)
    return PredictionSet(
        title, content.predictions, content.sizes, content.lists_images, path, content.relative, content.notes
    )


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


def _match(predictions: PredictionSet, names: Sequence[str]) -> tuple[NameMatch, tuple[str, ...]]:
    """Matches predictions to images; returns the match, and the names of maps that are merely in folders below.

    Maps in folders below are for the images that those in the folder itself leave open.
    """
    nested = [name for name in predictions.names if predictions.is_maps and "/" in name]
    if not nested or len(nested) == len(predictions.names):
        return match_names(predictions.names, names), ()
    first = match_names([name for name in predictions.names if "/" not in name], names)
    more = match_names(nested, first.without_prediction)
    found = {**first.prediction_of, **more.prediction_of}
    return NameMatch(found, more.without_prediction, first.unknown), more.unknown


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
        matched, below = _match(predictions, names)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if matched.unknown and not matched.prediction_of:
        hint = ""
        if predictions.is_maps and len(matched.unknown) == 1 < len(names):
            hint = "; if the file holds several maps, --names FILE gives their names"
        elif not predictions.is_maps and all(name.isdigit() for name in matched.unknown):
            hint = "; --names FILE gives the COCO file with the names of image ids"
        raise UserError(
            f"{where}: none of its {len(matched.unknown)} images is in the data set; it has "
            f"{name_list(matched.unknown)}, the data set {name_list(names)}{hint}"
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
        if matched.unknown and all("/" in name for name in matched.unknown) and predictions.is_maps:
            problems.append("give the folder of the maps itself if there are others")
        raise UserError(f"{where}: {'; '.join(problems)}. allow_missing (--allow-missing) accepts this")
    place = {name: index for index, name in enumerate(predictions.names)}
    found = (matched.prediction_of.get(name) for name in names)
    return Pairs(
        tuple(None if name is None else place[name] for name in found),
        matched.without_prediction,
        (*matched.unknown, *below),
    )


class PairReader:
    """Reads the prediction and the truth of an image; picklable, for worker processes.

    Args:
      predictions: the prediction set.
      truths: the truth.
      pairs: which prediction belongs to which image.
      resize: whether maps of another size, but of the truth's aspect, are resized to it.
      crop: "corner" or "centre", where the image lies in maps that are padded; None if they are not.
      stored: side of the square maps that are returned as they are, whatever the size of the truth; None for none.
    """

    def __init__(
        self,
        predictions: PredictionSet,
        truths: Truths,
        pairs: Pairs,
        *,
        resize: bool = False,
        crop: str | None = None,
        stored: int | None = None,
    ):
        self.predictions, self.truths, self.pairs = predictions, truths, pairs
        self.resize, self.crop, self.stored = resize, crop, stored
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
            points = items[key]
            return in_pixels(points, size) if self.predictions.relative else points, truth
        if place is None:
            return np.zeros(size, bool), truth
        values = items[place]
        if values.shape == tuple(size) or (self.stored is not None and values.shape == (self.stored, self.stored)):
            return values, truth
        if self.crop is not None:
            values = crop_padding(values, size, self.crop)
        if values.shape != tuple(size):
            self._check_resize(items, place, values.shape, size, name)
            values = resize_bilinear(values, *size)
        return values, truth

    def _check_resize(
        self, items: MapFiles, place: int, shape: tuple[int, int], size: tuple[int, int], name: str
    ) -> None:
        """Checks that a map of `shape` may be resized to `size`."""
        stored = items.shape(place)
        found = "the map" if shape == stored else f"the map without its padding ({self.crop})"
        differs = (
            f"{items.paths[place]}: {found} is {shape[0]}x{shape[1]}, the truth of image {name} is {size[0]}x{size[1]} "
            "(height x width)"
        )
        alike = same_aspect(shape, size)
        # A square map was squeezed, cut or padded by its program: which of these, its size does not tell.
        ways = [] if alike else ["--crop corner or centre removes the padding of padded maps"]
        if own := [spec.name for spec in PROTOCOLS.values() if stored[0] == stored[1] and as_stored(spec, stored[0])]:
            ways.append(f"protocols on a canvas of {stored[0]}x{stored[1]} take the map as it is: {', '.join(own)}")
        if not self.resize:
            if alike:
                ways.insert(0, "--resize scales maps to the truth's size")
            raise UserError("; ".join([differs, *ways]))
        if not alike:
            raise UserError("; ".join([f"{differs}, so resizing would change the aspect", *ways]))

    def changed(self) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]], int]:
        """Returns what was done to maps of another size than their truth, from file headers where possible.

        Returns:
          {image name: stored (height, width)} of the maps that were resized; the same of those that were cropped; and
          the number of those that were left as they are.
        """
        resized: dict[str, tuple[int, int]] = {}
        cropped: dict[str, tuple[int, int]] = {}
        kept, items = 0, self.predictions.items
        if not isinstance(items, MapFiles) or not (self.resize or self.crop or self.stored):
            return resized, cropped, kept
        for index, place in enumerate(self.pairs.prediction_of):
            if place is None:
                continue
            name, stored, size = self.truths.names[index], items.shape(place), self.truths.size(index)
            if stored == size:
                continue
            if stored == (self.stored, self.stored):
                kept += 1
                continue
            if self.crop is not None:
                cropped[name] = stored
            if self.crop is None or crop_padding(np.empty(stored, bool), size, self.crop).shape != size:
                resized[name] = stored
        return resized, cropped, kept


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
    for index, place in enumerate(scorer.reader.pairs.prediction_of):
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
