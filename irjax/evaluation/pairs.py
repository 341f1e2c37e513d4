"""Predictions of any program, paired with the images of a data set by name, and read pair by pair."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from irjax.errors import MissingFileError, UserError, reading
from irjax.evaluation.truths import Truths
from irjax.io.lists import read_lines
from irjax.io.maps import MapFiles, find_maps, is_map_file
from irjax.io.names import NameMatch, match_names, name_list
from irjax.io.predictions import in_pixels, read_predictions
from irjax.metrics import PROTOCOLS
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.metrics.protocols import as_stored
from irjax.ops.resize import crop_padding, resize_bilinear, same_aspect

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
