"""Detects targets in image files and writes down what was found: the work of `irjax predict`."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from irjax.data.images import IMAGE_SUFFIXES, image_files, read_image
from irjax.errors import MissingFileError, UsageError, UserError, reading, writing
from irjax.metrics import PointPredictions, from_detections
from irjax.reports.files import atomic_path, write_text
from irjax.reports.names import safe_name
from irjax.reports.overlays import draw_overlay
from irjax.reports.predictions import write_predictions
from irjax.reports.tables import csv_table
from irjax.reports.truths import open_truths

_CHUNK = 16  # images in memory at a time

Detect = Callable[[list[np.ndarray]], Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a set of image files.

    Attributes:
      predictions: {name: points and scores} of every image that was read.
      sizes: {name: (height, width)} likewise.
      failures: {name: why it could not be read}; the reason names the file.
      files: what was written, but for masks.
      masks: the target probabilities of each image, 8-bit PNG, of methods that have them.
    """

    predictions: Mapping[str, PointPredictions]
    sizes: Mapping[str, tuple[int, int]]
    failures: Mapping[str, str]
    files: tuple[pathlib.Path, ...]
    masks: tuple[pathlib.Path, ...] = ()


def find_images(paths: Sequence[str | os.PathLike], *, recursive: bool = False) -> dict[str, pathlib.Path]:
    """The image files among files and folders, each under a name of its own.

    A name is the file's name; files of one name in different folders are told apart by as many of their parent folders
    as that needs.

    Args:
      paths: files, of any ending, and folders, of which every image file is taken.
      recursive: whether folders below a folder are taken too.

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
        with reading(path):  # a name can be too long
            there = path.exists()
        if not there:
            raise MissingFileError(f"there is no file or folder {path}")
        found = _images_in(path, recursive) if path.is_dir() else [path]
        files |= {os.path.abspath(file): file for file in found}
    return dict(zip(_names(list(files)), files.values(), strict=True))


def split_images(roots: Sequence[str | os.PathLike], split: str) -> dict[str, pathlib.Path]:
    """The image files of a data set's split.

    Args:
      roots: the data set's folder, alone.
      split: its name.

    Returns:
      As `find_images`, in the split's order.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if there is not one folder, it has no such split, or its images are no files (a prepared data set).
    """
    if len(roots) != 1:
        raise UsageError(f"--split goes with one data set, got {len(roots)} paths")
    truths = open_truths(roots[0], split)
    images = getattr(truths, "images", None)
    if images is None:
        raise UserError(f"{roots[0]} is no folder with image files")
    return find_images(images)


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
    """The shortest endings of different absolute paths that differ from each other."""
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

    A file that cannot be read does not stop the others: it is left out of what is written, and returned as a failure.

    Args:
      detect: a list of images [H, W], uint8 or uint16 and of any sizes, to `irjax.types.Detections` in their pixels.
      files: {name: image file}.
      out_dir: a folder, made if absent. It gets predictions.json (COCO keypoints, see `irjax.reports.predictions`),
        predictions.csv (name,x,y,score: a line for each detection), overlays/NUMBER_NAME.png and, of a method that
        predicts masks, masks/NAME.png: 255 times the probability, 8-bit (`write_map`).
      overlays: how many pictures are drawn, of the first images with detections.
      threshold: of a target's pixels in the masks; a file's level / 255 is above it exactly where the probability is.

    Returns:
      What was found, what failed, what was written.

    Raises:
      FileError: if the folder cannot be written; this is found out before any image is read.
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
        for point, score in zip(prediction.points, prediction.scores, strict=True)
    ]
    written = [folder / "predictions.json", folder / "predictions.csv"]
    write_predictions(written[0], predictions, sizes)
    write_text(written[1], csv_table(["name", "x", "y", "score"], rows))
    return Outcome(predictions, sizes, failures, (*written, *pictures), tuple(masks))


def _read(files: Mapping[str, str | os.PathLike], failures: dict[str, str]) -> Iterator[dict[str, np.ndarray]]:
    """{name: image} in chunks; what cannot be read goes to `failures`."""
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


def write_map(path: pathlib.Path, probabilities: np.ndarray, threshold: float = 0.5) -> None:
    """Writes a map of probabilities as an 8-bit PNG.

    Args:
      path: of the file.
      probabilities: [H, W] float32 in [0, 1].
      threshold: level / 255 is above it exactly where the probability is: what lies nearer to the threshold than the
        next level is rounded away from it. Other thresholds can have other pixels above them than before.
    """
    from PIL import Image

    with atomic_path(path) as unfinished:
        Image.fromarray(eight_bit(probabilities, threshold)).save(unfinished, format="PNG")


def eight_bit(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The levels [H, W] uint8 nearest to 255 p on p's own side of the threshold."""
    values, cut = np.asarray(probabilities, np.float32), np.float32(threshold)
    levels = np.rint(255.0 * values.astype(np.float64)).astype(np.int16)
    read = levels.astype(np.float32) / np.float32(255)  # as `irjax.reports.maps` reads them
    levels += (values > cut) & (read <= cut)
    levels -= (values <= cut) & (read > cut)
    return levels.astype(np.uint8)


def _check_writable(folder: pathlib.Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
