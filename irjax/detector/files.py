"""Detection in image files and output of the results, for `irjax predict`."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from irjax.errors import MissingFileError, UsageError, UserError, reading, writing
from irjax.io.files import write_text
from irjax.io.images import IMAGE_SUFFIXES, image_files, read_image
from irjax.io.maps import write_map
from irjax.io.names import safe_name
from irjax.io.predictions import write_predictions
from irjax.metrics import PointPredictions, from_detections
from irjax.reports.overlays import draw_overlay
from irjax.reports.tables import csv_table

_CHUNK = 16  # images in memory at a time

Detect = Callable[[list[np.ndarray]], Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results for a set of image files.

    Attributes:
      predictions: {name: points and scores} of every image that was read.
      sizes: {name: (height, width)} of the same images.
      failures: {name: reason why it could not be read}; the reason names the file.
      files: the written files, except masks.
      masks: the target probabilities of each image, 8-bit PNG, for methods that predict them.
    """

    predictions: Mapping[str, PointPredictions]
    sizes: Mapping[str, tuple[int, int]]
    failures: Mapping[str, str]
    files: tuple[pathlib.Path, ...]
    masks: tuple[pathlib.Path, ...] = ()


def find_images(paths: Sequence[str | os.PathLike], *, recursive: bool = False) -> dict[str, pathlib.Path]:
    """Finds the image files among files and folders and gives each a unique name.

    A name is the file's name; files of one name in different folders are distinguished by as many of their parent
    folders as necessary.

    Args:
      paths: files, with any extension, and folders, of which every image file is taken.
      recursive: whether folders below a folder are included.

    Returns:
      {name: file}, folder by folder in the order given, sorted within each.

    Raises:
      MissingFileError: if a path does not exist.
      UserError: if no path is given, or a folder holds no image file.
    """
    if not paths:
        raise UsageError("no image file or folder was given")
    files: dict[str, pathlib.Path] = {}  # absolute path -> path; a file given twice counts once
    for path in map(pathlib.Path, paths):
        with reading(path):  # fails if a name is too long
            there = path.exists()
        if not there:
            raise MissingFileError(f"there is no file or folder {path}")
        found = _images_in(path, recursive) if path.is_dir() else [path]
        files |= {os.path.abspath(file): file for file in found}
    return dict(zip(_names(list(files)), files.values(), strict=True))


def _images_in(folder: pathlib.Path, recursive: bool) -> list[pathlib.Path]:
    with reading(folder):
        entries = list(folder.iterdir())
        found = image_files(folder.rglob("*") if recursive else entries)
    if not found:
        below = sorted(entry.name for entry in entries if entry.is_dir())
        hint = f"; there are folders below it: {', '.join(below[:5])}" if below and not recursive else ""
        raise UserError(f"no image file in {folder}: looked for {', '.join(IMAGE_SUFFIXES)}{hint}")
    return found


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
) -> Outcome:
    """Detects targets in image files and writes predictions.json, predictions.csv and pictures.

    A file that cannot be read does not stop the others: it is omitted from the output and returned as a failure.

    Args:
      detect: maps a list of images [H, W], uint8 or uint16 and of any sizes, to `irjax.types.Detections` in their
        pixels.
      files: {name: image file}.
      out_dir: a folder, created if absent. It receives predictions.json (COCO keypoints, see `irjax.io.predictions`),
        predictions.csv (name,x,y,score: a line for each detection), overlays/NUMBER_NAME.png and, for a method that
        predicts masks, masks/NAME.png: 255 times the probability, 8-bit (`write_map`).
      overlays: number of pictures to draw, of the first images with detections.
      threshold: threshold of target pixels in the masks; a file's level / 255 is above it exactly where the probability
        is.

    Returns:
      The predictions, the failures and the written files.

    Raises:
      FileError: if the folder cannot be written; this is checked before any image is read.
    """
    folder = pathlib.Path(out_dir)
    _check_writable(folder)
    predictions: dict[str, PointPredictions] = {}
    sizes: dict[str, tuple[int, int]] = {}
    failures: dict[str, str] = {}
    pictures: list[pathlib.Path] = []
    masks: list[pathlib.Path] = []
    for chunk in _read(files, failures):
        detections = detect(list(chunk.values()))
        found = from_detections(detections)
        for number, ((name, image), prediction) in enumerate(zip(chunk.items(), found, strict=True)):
            predictions[name], sizes[name] = prediction, image.shape
            stem = safe_name(pathlib.PurePath(name).with_suffix(""))
            if detections.masks is not None:
                masks.append(folder / "masks" / f"{stem}.png")
                write_map(masks[-1], detections.masks[number], threshold)
            if len(prediction) and len(pictures) < overlays:
                path = folder / "overlays" / f"{len(pictures) + 1:04d}_{stem}.png"
                draw_overlay(path, image, prediction, title=name)
                pictures.append(path)
    rows = [
        [name, *map(float, (*point, score))]
        for name, prediction in predictions.items()
        for point, score in zip(prediction.points, cast(np.ndarray, prediction.scores), strict=True)
    ]
    written = [folder / "predictions.json", folder / "predictions.csv"]
    write_predictions(written[0], predictions, sizes)
    write_text(written[1], csv_table(["name", "x", "y", "score"], rows))
    return Outcome(predictions, sizes, failures, (*written, *pictures), tuple(masks))


def _read(files: Mapping[str, str | os.PathLike], failures: dict[str, str]) -> Iterator[dict[str, np.ndarray]]:
    """Yields {name: image} in chunks; adds files that cannot be read to `failures`."""
    from tqdm import tqdm

    chunk: dict[str, np.ndarray] = {}
    for name, path in tqdm(files.items(), disable=None, unit="image", leave=False):
        try:
            chunk[name] = read_image(path)
        except UserError as error:
            failures[name] = str(error)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = {}
    if chunk:
        yield chunk


def _check_writable(folder: pathlib.Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
