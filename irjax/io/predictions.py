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
  the point is the centre of the box;
- a CSV table with the columns name, x, y and score, as `irjax predict` writes it;
- a folder of YOLO text files, one for each image with detections: class, centre and sides of the box divided by the
  image's width or height, and the confidence.

Every class is a target. A file in which nothing has a score is read with the score 1 for all, which `notes` says.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irjax.errors import MissingFileError, UserError, check_folder, reading
from irjax.io.files import write_json
from irjax.metrics.inputs import PointPredictions
from irjax.ops.boxes import box_centres

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
    write_coco(path, {name: _keypoints(prediction) for name, prediction in predictions.items()}, sizes)


def _keypoints(prediction: PointPredictions) -> list[dict[str, Any]]:
    assert prediction.scores is not None  # filled in by PointPredictions
    return [
        {"keypoints": [x, y, 2], "num_keypoints": 1, "score": score}
        for (x, y), score in zip(prediction.points.tolist(), prediction.scores.tolist(), strict=True)
    ]


def write_coco(
    path: str | os.PathLike,
    annotations: Mapping[str, Sequence[Mapping[str, Any]]],
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """Writes a COCO file atomically; numbers images and annotations, and puts all annotations into one category.

    Args:
      path: path of the file.
      annotations: {file name: COCO annotations without their ids}, in the order to write.
      sizes: {file name: (height, width)} in pixels, for the images whose size is known.

    Raises:
      OSError: if the file cannot be written.
    """
    images: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for number, (name, own) in enumerate(annotations.items(), 1):
        image = {"id": number, "file_name": name}
        if sizes is not None and name in sizes:
            image["height"], image["width"] = (int(side) for side in sizes[name])
        images.append(image)
        for entry in own:
            entries.append({"id": len(entries) + 1, "image_id": number, "category_id": 1, **entry})
    category = {"id": 1, "name": "target", "keypoints": ["centre"], "skeleton": []}
    write_json(path, {"images": images, "annotations": entries, "categories": [category]}, indent=None)


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
    content, listed = _load_json(path), None
    if images is not None:
        content_of_images = _load_json(pathlib.Path(images))
        listed = content_of_images.get("images") if isinstance(content_of_images, dict) else None
        if not isinstance(listed, list):
            raise UserError(f"{os.fspath(images)}: not a COCO file: a list named 'images' is wanted")
        if isinstance(content, dict) and content.get("images") is not None:
            raise UserError(f"{path}: the file lists its images itself, so {os.fspath(images)} is not needed")
    try:
        return _parse(path, content, listed)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def in_pixels(prediction: PointPredictions, size: tuple[int, int]) -> PointPredictions:
    """Converts points that are fractions of the sides of an image of `size` (height, width) to pixels."""
    return PointPredictions(prediction.points * [size[1], size[0]] - 0.5, prediction.scores)


def _load_json(path: pathlib.Path) -> Any:
    with reading(path):
        text = path.read_text(encoding="utf-8")
    try:
        # NaN and Infinity are not JSON, but Python accepts them; as nan, they are refused below.
        return json.loads(text, parse_constant=lambda name: math.nan)
    except (ValueError, RecursionError) as error:  # ValueError also for numbers with too many digits
        raise UserError(f"{path}: not JSON: {error}") from error


def _read_csv(path: pathlib.Path) -> PredictionFile:
    found: dict[str, list[tuple[float, float]]] = {}
    scores: dict[str, list[float]] = {}
    try:
        with reading(path), path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in rows.fieldnames or ()]
            if missing := [column for column in ("name", "x", "y") if column not in columns]:
                raise UserError(f"{path}: columns name, x, y, score are wanted; {', '.join(missing)} not in {columns}")
            rows.fieldnames = columns
            wanted = [column for column in ("x", "y", "score") if column in columns]
            for row in rows:
                where, name = f"{path}, line {rows.line_num}", (row["name"] or "").strip()
                values = _numbers([row[column] or "" for column in wanted])
                if not name or values is None:
                    raise UserError(
                        f"{where}: a name and finite numbers {', '.join(wanted)} are wanted, got "
                        f"{', '.join(str(row[column]) for column in ('name', *wanted))}"
                    )
                found.setdefault(name, []).append((values[0], values[1]))
                scores.setdefault(name, []).append(values[2] if len(values) == 3 else 1.0)
    except csv.Error as error:
        raise UserError(f"{path}: not a csv file ({error})") from error
    predictions = {name: PointPredictions(np.array(points), np.array(scores[name])) for name, points in found.items()}
    return PredictionFile(path, predictions, {}, False, notes=() if len(wanted) == 3 else (_NO_SCORES,))


def _read_yolo(folder: pathlib.Path) -> PredictionFile:
    with reading(check_folder(folder)):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.name[0] != ".")
    predictions: dict[str, PointPredictions] = {}
    lengths: dict[int, str] = {}
    for path in paths:
        with reading(path):
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            values, where = _numbers(line.split()), f"{path}, line {number}"
            if values is None or len(values) not in (5, 6):
                raise UserError(f"{where}: class, x, y, width, height, confidence are wanted, got {_short(line)}")
            if not all(-1e-3 <= value <= 1 + 1e-3 for value in values[1:3]):
                raise UserError(f"{where}: x and y must be fractions of the image's sides, got {_short(line)}")
            lengths.setdefault(len(values), where)
            rows.append((*values[1:3], values[5] if len(values) == 6 else 1.0))
        array = np.array(rows, np.float64).reshape(-1, 3)
        predictions[path.name] = PointPredictions(array[:, :2], array[:, 2])
    if len(lengths) > 1:
        raise UserError(f"{lengths[5]}: the box has no confidence, and others have one")
    return PredictionFile(folder, predictions, {}, False, True, (_NO_SCORES,) if 5 in lengths else ())


def _numbers(texts: Sequence[str]) -> list[float] | None:
    """Returns the finite numbers of texts, or None if one is none."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _parse(path: pathlib.Path, content: Any, listed_elsewhere: list | None) -> PredictionFile:
    if isinstance(content, dict):
        present = [name for name in ("annotations", "predictions", "results") if isinstance(content.get(name), list)]
        if not present:
            raise UserError(
                "not COCO keypoints: wanted a list of annotations, or an object with a list called 'annotations'; "
                f"got an object with {', '.join(map(repr, list(content)[:6])) or 'nothing'}"
            )
        entries, listed = content[present[0]], content.get("images")
    else:
        entries, listed = content, None
    if not isinstance(entries, list):
        raise UserError(f"not COCO keypoints: wanted a list or an object, got {type(entries).__name__}")
    names, sizes = _read_images(listed if listed_elsewhere is None else listed_elsewhere)
    triples: dict[str, list[tuple[float, float, float, float | None]]] = {}
    if listed is not None:
        triples = {name: [] for name in names.values()}
    known = set(names.values()) if names or listed is not None else None
    boxes: dict[bool, str] = {}  # whether boxes have a score, and where
    for number, entry in enumerate(entries):
        name, points = _read_entry(entry, f"annotation {number}", names, known)
        if points and _is_box(entry):
            scored = points[0][3] is not None
            boxes.setdefault(scored, f"annotation {number} ({name})")
            points = points if scored else [(x, y, third, 1.0) for x, y, third, _ in points]
        triples.setdefault(name, []).extend(points)
    if len(boxes) > 1:
        raise UserError(f"{boxes[False]}: the box has no score, and others have one")
    return PredictionFile(
        path, _scored(triples), sizes, listed is not None, notes=(_NO_SCORES,) if False in boxes else ()
    )


def _read_images(listed: Any) -> tuple[dict[str, str], dict[str, tuple[int, int]]]:
    """Returns {id as text: name} and {name: (height, width)}."""
    names: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    seen: set[str] = set()
    if listed is None:
        return names, sizes
    if not isinstance(listed, list):
        raise UserError(f"'images' must be a list, got {type(listed).__name__}")
    for number, image in enumerate(listed):
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            raise UserError(f"image {number}: wanted an object with an 'id' (number or text), got {_short(image)}")
        key, name = str(image["id"]), str(image.get("file_name", image["id"]))
        if key in names:
            raise UserError(f"image {number}: id {key!r} is listed twice")
        if name in seen:
            raise UserError(f"image {number}: {name!r} is listed twice")
        names[key] = name
        seen.add(name)
        height, width = image.get("height"), image.get("width")
        if isinstance(height, int) and height > 0 and isinstance(width, int) and width > 0:
            sizes[name] = (height, width)
    return names, sizes


def _read_entry(
    entry: Any, where: str, names: Mapping[str, str], known: set[str] | None
) -> tuple[str, list[tuple[float, float, float, float | None]]]:
    """Returns the image name of an annotation and its points (x, y, third value, score of the annotation or None)."""
    if not isinstance(entry, dict) or not (_is_box(entry) or "keypoints" in entry):
        raise UserError(
            f"{where}: not COCO keypoints or boxes: wanted an object with 'keypoints' or 'bbox', got {_short(entry)}"
        )
    identity = entry.get("image_id", entry.get("file_name"))
    if not isinstance(identity, int | str):
        raise UserError(f"{where}: wanted an 'image_id' or 'file_name', got {_short(entry)}")
    name = names.get(str(identity))
    if name is None:
        name = str(entry.get("file_name", identity))
        if known is not None and name not in known:
            raise UserError(f"{where}: image {identity!r} is not among the file's 'images'")
    score = None if entry.get("score") is None else _finite(entry["score"], f"{where} ({name}): score")
    if _is_box(entry):
        x, y = _box_centre(entry["bbox"], f"{where} ({name}): bbox")
        return name, [(x, y, 2.0, score)]
    keypoints = entry["keypoints"]
    if not isinstance(keypoints, list) or len(keypoints) % 3:
        size = f"{len(keypoints)} values" if isinstance(keypoints, list) else type(keypoints).__name__
        raise UserError(f"{where} ({name}): 'keypoints' must be a flat list of x, y, v triples, got {size}")
    numbers = [_finite(value, f"{where} ({name}): keypoints") for value in keypoints]
    triples = zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True)
    return name, [(x, y, third, score) for x, y, third in triples]


def _is_box(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("bbox")) and not entry.get("keypoints")


def _box_centre(box: Any, where: str) -> tuple[float, float]:
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where} must be x, y, width, height, got {_short(box)}")
    x, y, width, height = (_finite(value, where) for value in box)
    if width < 0 or height < 0:
        raise UserError(f"{where} must have sides of at least 0, got {_short(box)}")
    centre = box_centres(np.array([[x, y, x + width, y + height]]))[0]
    return float(centre[0]), float(centre[1])


def _scored(triples: Mapping[str, list[tuple[float, float, float, float | None]]]) -> dict[str, PointPredictions]:
    bare = [third for points in triples.values() for _, _, third, score in points if score is None]
    flags = all(third in (0, 1, 2) for third in bare)
    predictions = {}
    for name, points in triples.items():
        kept = []
        for x, y, third, score in points:
            if score is not None:
                if (x, y, third) != (0, 0, 0):
                    kept.append((x, y, score))
            elif not flags:
                kept.append((x, y, third))
            elif third:
                kept.append((x, y, 1.0))
        array = np.array(kept, np.float64).reshape(-1, 3)
        predictions[name] = PointPredictions(array[:, :2], array[:, 2])
    return predictions


def _finite(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where} must be numbers, got {_short(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{where} must be finite, got {_short(value)}")
    return number


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
