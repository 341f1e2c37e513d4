"""Reads predicted points of any program, and writes them as COCO keypoints in JSON, one point per target.

Format of written files:

    {"images": [{"id": 1, "file_name": "Misc_1.png", "height": 240, "width": 320}, ...],
     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [x, y, 2], "num_keypoints": 1,
                      "score": 0.93}, ...],
     "categories": [{"id": 1, "name": "target", "keypoints": ["centre"], "skeleton": []}]}

(x, y) are pixels of the original image, with pixel centres at integers. Every image is listed, also those without
detections.

Formats that are read, from any program:

- such an object, with the list called "annotations", "predictions" or "results", and with or without "images";
- a bare list of such annotations (the COCO results format);
- an annotation identifies its image by "image_id", which is an id in "images" or a name, or by "file_name";
- "keypoints" holds any number of triples. If the annotation has a "score", the third value is COCO's visibility, and
  (0, 0, 0) is COCO's absent keypoint. Otherwise the third value is the score of the point, as in the files of the
  published SPIRE program (one annotation per image); but if all third values in the file are 0, 1 or 2, they are
  visibilities, and each visible point has score 1;
- an annotation without "keypoints" has a "bbox" (x_min, y_min, width, height) and a "score", as detectors write them:
  the point is the centre of the box; one with a "segmentation" alone (polygons or run lengths) has the point at the
  centroid of its pixels;
- a CSV table with the columns name, x, y and score, as `irjax predict` writes it;
- a folder of YOLO text files, one for each image with detections: class, centre and sides of the box divided by the
  image's width or height, and the confidence.

Every class is a target. A file in which nothing has a score is read with the score 1 for all, which `notes` says.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irjax.errors import MissingFileError, UserError, reading
from irjax.io import coco
from irjax.io.formats import yolo_rows
from irjax.io.images import read_bytes
from irjax.io.lists import decode_text, files_among
from irjax.io.points import read_table
from irjax.metrics.inputs import PointPredictions
from irjax.ops.boxes import box_centres
from irjax.ops.polygons import polygon_centroid

_NO_SCORES = "the predictions have no scores: each counts as 1"


@dataclasses.dataclass(frozen=True)
class PredictionFile:
    """Content of a prediction file or folder.

    Attributes:
      path: path of the file or folder.
      predictions: {image name: points and scores}; the name is the file name if the file gives one, else the id.
      sizes: {image name: (height, width)}, for the images whose size the file states.
      lists_images: whether the file lists its images, so that images without detections differ from those left out.
      relative: whether points are fractions of the image's width and height, from its edges (`in_pixels`).
      notes: what the reader of a report should know about how the file was read.
    """

    path: pathlib.Path
    predictions: Mapping[str, PointPredictions]
    sizes: Mapping[str, tuple[int, int]]
    lists_images: bool
    relative: bool = False
    notes: tuple[str, ...] = ()


def write_predictions(
    path: str | os.PathLike,
    predictions: Mapping[str, PointPredictions],
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """Writes a COCO-keypoint prediction file atomically.

    Args:
      path: path of the file.
      predictions: {image name: points and scores}, in the order to write, including images without detections.
      sizes: {image name: (height, width)} in pixels, for the images whose size is known.

    Raises:
      OSError: if the file cannot be written.
    """
    coco.write_coco(path, {name: _keypoints(prediction) for name, prediction in predictions.items()}, sizes)


def _keypoints(prediction: PointPredictions) -> list[dict[str, Any]]:
    assert prediction.scores is not None  # filled in by PointPredictions
    return [
        {"keypoints": [x, y, 2], "num_keypoints": 1, "score": score}
        for (x, y), score in zip(prediction.points.tolist(), prediction.scores.tolist(), strict=True)
    ]


def read_predictions(path: str | os.PathLike, *, images: str | os.PathLike | None = None) -> PredictionFile:
    """Reads predicted points in one of the formats of this module's docstring.

    Args:
      path: a .json or .csv file, or a folder of .txt files.
      images: a COCO file whose "images" give the names of the ids in a bare list of annotations.

    Returns:
      Points and scores by image name, and what the file says about the images.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is in no such format, lists an image twice, or holds a number that is not finite, or scores for
        some predictions only; the message names the file and the entry.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _read_yolo(path)
    if not path.is_file():
        raise MissingFileError(f"no prediction file {path}")
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    content = coco.load_coco(path, results=True)
    if images is None:
        return _read_coco(content, content)
    if content.lists_images:
        raise UserError(f"{path}: the file lists its images itself, so {os.fspath(images)} is not needed")
    named = coco.load_coco_images(images)
    return _read_coco(content, dataclasses.replace(named, path=path, annotations=content.annotations))


def in_pixels(prediction: PointPredictions, size: tuple[int, int]) -> PointPredictions:
    """Converts points that are fractions of the sides of an image of `size` (height, width) to pixels."""
    return PointPredictions(prediction.points * [size[1], size[0]] - 0.5, prediction.scores)


def _read_csv(path: pathlib.Path) -> PredictionFile:
    found: dict[str, list[tuple[float, float, float]]] = {}
    scored = True
    for _, name, point, score in read_table(path):
        found.setdefault(name, []).append((*point, 1.0 if score is None else score))
        scored = score is not None
    return PredictionFile(path, _points(found), {}, False, notes=() if scored else (_NO_SCORES,))


def _read_yolo(folder: pathlib.Path) -> PredictionFile:
    found: dict[str, list[tuple[float, float, float]]] = {}
    lengths: dict[int, str] = {}
    with reading(folder):
        paths = files_among(folder.iterdir(), (".txt",))
    for path in paths:
        found[path.name] = []
        for where, values in yolo_rows(decode_text(read_bytes(path), path), path):
            line = " ".join(f"{value:g}" for value in values)
            if len(values) not in (5, 6):
                raise UserError(f"{where}: class, x, y, width, height, confidence are wanted, got {coco.short(line)}")
            if not all(-1e-3 <= value <= 1 + 1e-3 for value in values[1:3]):
                raise UserError(f"{where}: x and y must be fractions of the image's sides, got {coco.short(line)}")
            lengths.setdefault(len(values), where)
            found[path.name].append((values[1], values[2], values[5] if len(values) == 6 else 1.0))
    if len(lengths) > 1:
        raise UserError(f"{lengths[5]}: the box has no confidence, and others have one")
    return PredictionFile(folder, _points(found), {}, False, True, (_NO_SCORES,) if 5 in lengths else ())


def _read_coco(content: coco.CocoFile, named: coco.CocoFile) -> PredictionFile:
    """Returns the points of a file; `named` has its annotations, and the images that their ids mean."""
    points: dict[str, list[tuple[float, float, float, float | None]]] = {}
    if content.lists_images:
        points = {file: [] for file in content.files.values()}
    boxes: dict[bool, str] = {}  # whether targets that are no keypoints have a score, and where
    for number, entry in enumerate(named.annotations):
        file = named.file_of(number)
        where = f"{content.path}: annotations[{number}] ({file})"
        score = None if entry.get("score") is None else coco.finite(entry["score"], f"{where}: score")
        if entry.get("keypoints") or not (entry.get("bbox") or entry.get("segmentation")):
            found = [(*triple, score) for triple in coco.coco_triples(entry, where)]
        else:
            boxes.setdefault(score is not None, where)
            found = [(*_middle(entry, where), 2.0, 1.0 if score is None else score)]
        points.setdefault(file, []).extend(found)
    if len(boxes) > 1:
        raise UserError(f"{boxes[False]}: the target has no score, and others have one")
    sizes = {named.files[name]: size for name, size in named.sizes.items()}
    notes = (_NO_SCORES,) if False in boxes else ()
    return PredictionFile(content.path, _points(_scored(points)), sizes, content.lists_images, notes=notes)


def _middle(entry: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Returns the centre of a box, else the centroid of an outline; it may lie outside the image."""
    box = coco.coco_box(entry, where)
    if box is None:
        return polygon_centroid(coco.coco_outline(entry, None, where))
    x, y = box_centres(box)[0].tolist()
    return x, y


def _scored(
    points: Mapping[str, list[tuple[float, float, float, float | None]]],
) -> dict[str, list[tuple[float, float, float]]]:
    """Returns (x, y, score) of (x, y, third value, score or None), by the rules of this module's docstring."""
    flags = all(third in (0, 1, 2) for own in points.values() for _, _, third, score in own if score is None)
    scored: dict[str, list[tuple[float, float, float]]] = {name: [] for name in points}
    for name, own in points.items():
        for x, y, third, score in own:
            if score is not None:
                scored[name] += [(x, y, score)] if (x, y, third) != (0, 0, 0) else []
            elif third or not flags:
                scored[name].append((x, y, 1.0 if flags else third))
    return scored


def _points(found: Mapping[str, Sequence[tuple[float, float, float]]]) -> dict[str, PointPredictions]:
    arrays = {name: np.array(own, np.float64).reshape(-1, 3) for name, own in found.items()}
    return {name: PointPredictions(array[:, :2], array[:, 2]) for name, array in arrays.items()}
