"""Detection in image files and output of the results, for `irjax predict`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from irjax.bars import bar
from irjax.errors import MissingFileError, UsageError, UserError, note, reading
from irjax.io.files import whole_folder, write_text
from irjax.io.images import AS_STORED, IMAGE_SUFFIXES, Depth, Frame, check_depth, read_image
from irjax.io.lists import files_among
from irjax.io.maps import write_map
from irjax.io.names import file_of, flat, image_names, posix
from irjax.io.predictions import write_predictions
from irjax.io.sequences import Place, expand, places, readable
from irjax.io.video import frame_rate, is_video
from irjax.metrics import PointPredictions, from_detections
from irjax.reports.overlays import draw_overlay
from irjax.reports.tables import csv_table
from irjax.reports.videos import annotated_video

_logger = logging.getLogger(__name__)

_CHUNK = 16  # images in memory at a time
_ENTRIES = ("predictions.json", "predictions.csv", "masks", "overlays")  # what may be written

Detect = Callable[[list[np.ndarray]], Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results for a set of image files.

    Attributes:
      predictions: {name: points and scores} of every image that was read.
      sizes: {name: (height, width)} of the same images.
      failures: {name: reason why it could not be read}; the reason names the file.
      files: the written files, except masks.
      places: {name: its place}, of the images that are frames of sequences.
      masks: the target probabilities of each image, 8-bit PNG, for methods that predict them.
    """

    predictions: Mapping[str, PointPredictions]
    sizes: Mapping[str, tuple[int, int]]
    failures: Mapping[str, str]
    files: tuple[pathlib.Path, ...]
    masks: tuple[pathlib.Path, ...] = ()
    places: Mapping[str, Place] = dataclasses.field(default_factory=dict)


def find_images(
    paths: Sequence[str | os.PathLike], *, recursive: bool = False, key: str | None = None
) -> dict[str, pathlib.Path | Frame]:
    """Finds the image files among files and folders and gives each a unique name.

    A name is the file's path below the folder that was given, or the name of a file that was given itself. Where two
    would be equal, all names have as many parent folders as distinguish them.

    Args:
      paths: files, with any extension, and folders, of which every image file is taken.
      recursive: whether folders below a folder are included.
      key: name of the variable in MATLAB files; None for the only array.

    Returns:
      {name: file or frame}, folder by folder in the order given, sorted within each.

    Raises:
      MissingFileError: if a path does not exist.
      UserError: if no path is given, a folder holds no image file, or there is a key and no MATLAB file.
    """
    if not paths:
        raise UsageError("no image file or folder was given")
    # absolute path, with the page's number -> file; a file given twice counts once
    files: dict[str, pathlib.Path | Frame] = {}
    names: dict[str, str] = {}
    for path in map(pathlib.Path, paths):
        with reading(path):  # fails if a name is too long
            there = path.exists()
        if not there:
            raise MissingFileError(f"there is no file or folder {path}")
        found = _images_in(path, recursive) if path.is_dir() else [path]
        for file in found:
            absolute = os.path.abspath(file)
            start = len(absolute) - len(str(file.relative_to(path)) if path.is_dir() else file.name)
            for place, content in expand(pathlib.Path(file), absolute, key).items():
                names.setdefault(place, posix(place[start:]))
                files.setdefault(place, content)
    if key and not any(place.lower().endswith(".mat") for place in files):
        raise UsageError(f"--key {key} names a variable of .mat files, and none was given")
    chosen = list(names.values()) if len({*names.values()}) == len(names) else _names(list(files))
    return dict(zip(chosen, files.values(), strict=True))


def _images_in(folder: pathlib.Path, recursive: bool) -> list[pathlib.Path]:
    with reading(folder):
        entries = list(folder.iterdir())
        there = [path for path in (folder.rglob("*") if recursive else entries) if path.is_file()]
        found = files_among(there, IMAGE_SUFFIXES)
    if not found:
        below = sorted(entry.name for entry in entries if entry.is_dir())
        hint = f"; there are folders below it: {', '.join(below[:5])}" if below and not recursive else ""
        raise UserError(f"no image file in {folder}: looked for {', '.join(IMAGE_SUFFIXES)}{hint}")
    others = collections.Counter(path.suffix.lower() or "without ending" for path in {*there} - {*found}
                                 if not path.name.startswith("."))  # fmt: skip
    if others:
        listed = ", ".join(f"{number} {ending}" for ending, number in others.most_common(5))
        note(f"files that are no images of a known kind are left out: {listed}", folder)
    return readable(found, folder)


def _names(paths: Sequence[str]) -> list[str]:
    """Returns the shortest endings of different absolute paths that distinguish them."""
    parts = [pathlib.Path(path).parts for path in paths]
    depth = [1] * len(parts)
    while True:
        names = ["/".join(p[-d:]).lstrip("/") for p, d in zip(parts, depth, strict=True)]
        count = collections.Counter(names)
        longer = [min(d + 1, len(p)) if count[n] > 1 else d for n, p, d in zip(names, parts, depth, strict=True)]
        if longer == depth:
            return names
        depth = longer


def predict_files(
    detect: Detect,
    files: Mapping[str, str | os.PathLike],
    out_dir: str | os.PathLike,
    *,
    overlays: int = 0,
    threshold: float = 0.5,
    depth: Depth = AS_STORED,
    frames: bool = False,
) -> Outcome:
    """Detects targets in image files and writes predictions.json, predictions.csv and pictures; all of them or none.

    What an earlier call wrote into the folder is replaced (`irjax.io.files.whole_folder`). A file that cannot be read
    does not stop the others: it is omitted from the output and returned as a failure.

    Args:
      detect: maps a list of images [H, W], uint8 or uint16 and of any sizes, to `irjax.types.Detections` in their
        pixels.
      files: {name: image file or frame}; frames of a sequence are taken in the order of their numbers.
      out_dir: a folder, created if absent. It receives predictions.json (COCO keypoints, see `irjax.io.predictions`),
        predictions.csv (name,x,y,score: a line for each detection; where images are frames of sequences, also
        sequence,frame), overlays/NUMBER_NAME.png, overlays/NAME.mp4 of a video and, for a method that predicts masks,
        masks/NAME.png: 255 times the probability, 8-bit (`write_map`), named by `irjax.io.names`.
      overlays: number of pictures to draw, of the first images with detections; with 0 no video is written, either.
      threshold: threshold of target pixels in the masks; a file's level / 255 is above it exactly where the probability
        is.
      depth: which stored values of the images are black and white.
      frames: whether the images of every folder are frames of one sequence, whatever they are called; by default, as
        `irjax.io.sequences` says.

    Returns:
      The predictions, the failures and the written files.

    Raises:
      FileError: if the folder cannot be written; this is checked before any image is read.
      UserError: if it holds other files in the way, which is checked as early, or no image can be read.
    """
    folder = pathlib.Path(out_dir)
    placed = _titled(places(files, folders=frames))
    files = {name: files[name] for name in in_order(list(files), placed)}
    with whole_folder(folder, "irjax predict", entries=_ENTRIES, alone=True) as unfinished:
        outcome = detect_into(
            unfinished, detect, files, placed=placed, overlays=overlays, threshold=threshold, depth=depth
        )
    moved = lambda paths: tuple(folder / path.relative_to(unfinished) for path in paths)  # noqa: E731
    return dataclasses.replace(outcome, files=moved(outcome.files), masks=moved(outcome.masks))


def in_order(names: Sequence[str], placed: Mapping[str, Place]) -> list[str]:
    """Returns the names with the frames of each sequence by their numbers, where its first one was.

    Args:
      names: names of images.
      placed: {name: its place}, of those that are frames (`irjax.io.sequences.places`).
    """
    first: dict[str, int] = {}
    keys = {}
    for position, name in enumerate(names):
        place = placed.get(name)
        keys[name] = (first.setdefault(place.origin, position), place.frame) if place else (position, 0)
    return sorted(names, key=lambda name: keys[name])


def detect_into(
    folder: pathlib.Path,
    detect: Detect,
    files: Mapping[str, str | os.PathLike],
    *,
    placed: Mapping[str, Place] = MappingProxyType({}),
    overlays: int = 0,
    threshold: float = 0.5,
    depth: Depth = AS_STORED,
) -> Outcome:
    """Is `predict_files` for a new folder; frames of sequences are those of `placed` ({name: its place}), in order."""
    name_of_file = dict(zip(files, image_names(list(files)), strict=True))
    predictions: dict[str, PointPredictions] = {}
    sizes: dict[str, tuple[int, int]] = {}
    failures: dict[str, str] = {}
    pictures: list[pathlib.Path] = []
    masks: list[pathlib.Path] = []
    with _Videos(folder / "overlays", placed if overlays else {}) as videos:
        for chunk in _read(files, failures, depth):
            detections = detect(list(chunk.values()))
            found = from_detections(detections)
            for number, ((name, image), prediction) in enumerate(zip(chunk.items(), found, strict=True)):
                predictions[name], sizes[name] = prediction, image.shape
                if detections.masks is not None:
                    masks.append(folder / "masks" / f"{file_of(name_of_file[name])}.png")
                    write_map(masks[-1], detections.masks[number], threshold)
                if len(prediction) and len(pictures) < overlays:
                    path = folder / "overlays" / f"{len(pictures) + 1:04d}_{flat(name_of_file[name])}.png"
                    draw_overlay(path, image, prediction, title=name)
                    pictures.append(path)
                videos.add(name, image, prediction)
    if failures and not predictions:
        first = next(iter(failures.values()))
        count = len(failures)
        raise UserError(f"{count} of {count} images could not be read, nothing is written; the first: {first}")
    written = [folder / "predictions.json", folder / "predictions.csv"]
    write_predictions(written[0], predictions, sizes)
    write_text(written[1], predictions_table(predictions, placed))
    return Outcome(predictions, sizes, failures, (*written, *pictures, *videos.paths), tuple(masks), placed)


def predictions_table(predictions: Mapping[str, PointPredictions], placed: Mapping[str, Place]) -> str:
    """Returns predictions.csv: a line for each detection, of frames with their sequence and number.

    Args:
      predictions: {name: points and scores}.
      placed: {name: its place}, of the images that are frames.
    """
    rows: list[list[Any]] = []
    for name, prediction in predictions.items():
        place = placed.get(name)
        more = [] if not placed else [place.sequence, place.frame] if place else ["", ""]
        for point, score in zip(prediction.points, cast(np.ndarray, prediction.scores), strict=True):
            rows.append([name, *map(float, (*point, score)), *more])
    return csv_table(["name", "x", "y", "score", *(["sequence", "frame"] if placed else [])], rows)


def _titled(placed: Mapping[str, Place]) -> dict[str, Place]:
    """Returns the places with sequences called without the endings of files, unless these alone tell them apart."""
    sequences = list(dict.fromkeys(place.sequence for place in placed.values()))
    titles = dict(zip(sequences, image_names(sequences), strict=True))
    return {name: dataclasses.replace(place, sequence=titles[place.sequence]) for name, place in placed.items()}


class _Videos(contextlib.AbstractContextManager):
    """Writes the annotated videos of a run, one after the other.

    Attributes:
      paths: the files, in the order of their beginning.
    """

    def __init__(self, folder: pathlib.Path, placed: Mapping[str, Place]):
        self.paths: list[pathlib.Path] = []
        self._folder, self._placed = folder, placed
        self._origin = ""
        self._open = contextlib.ExitStack()
        self._write: Callable[[np.ndarray, PointPredictions], None]

    def add(self, name: str, image: np.ndarray, prediction: PointPredictions) -> None:
        """Adds an image with its detections to the video whose frame it is, if it is one."""
        place = self._placed.get(name)
        if place is None or not is_video(place.origin):
            return
        if place.origin != self._origin:
            self._open.close()
            self.paths.append(self._folder / f"{file_of(place.sequence)}.mp4")
            self._write = self._open.enter_context(annotated_video(self.paths[-1], frame_rate(place.origin)))
            self._origin = place.origin
        self._write(image, prediction)

    def __exit__(self, *error: Any) -> None:
        self._open.close()


def _read(
    files: Mapping[str, str | os.PathLike], failures: dict[str, str], depth: Depth
) -> Iterator[dict[str, np.ndarray]]:
    """Yields {name: image} in chunks; adds files that cannot be read to `failures`."""
    chunk: dict[str, np.ndarray] = {}
    highest = -1
    for name, path in bar(files.items(), "detecting", total=len(files)):
        try:
            chunk[name] = read_image(path, depth)
            if chunk[name].dtype == np.uint16:
                highest = max(highest, int(chunk[name].max()))
        except UserError as error:
            failures[name] = str(error)
            _logger.info("left out: %s", error)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = {}
    if chunk:
        yield chunk
    if highest >= 0 and depth == AS_STORED:
        check_depth(highest, "16-bit images")
