"""Reads and writes prediction files: COCO keypoints in JSON, one point per target.

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
  visibilities, and each visible point has score 1.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irjax.errors import MissingFileError, UserError, reading
from irjax.io.files import write_json
from irjax.metrics.inputs import PointPredictions


@dataclasses.dataclass(frozen=True)
class PredictionFile:
    """Content of a prediction file.

    Attributes:
      path: path of the file.
      predictions: {image name: points and scores}; the name is the file name if the file gives one, else the id.
      sizes: {image name: (height, width)}, for the images whose size the file states.
      lists_images: whether the file lists its images, so that images without detections differ from those left out.
    """

    path: pathlib.Path
    predictions: Mapping[str, PointPredictions]
    sizes: Mapping[str, tuple[int, int]]
    lists_images: bool


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


def read_predictions(path: str | os.PathLike) -> PredictionFile:
    """Reads a COCO-keypoint prediction file in one of the formats of this module's docstring.

    Args:
      path: path of the file.

    Returns:
      Points and scores by image name, and what the file says about the images.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is not JSON, not COCO keypoints, lists an image twice, or holds a number that is not finite; the
        message names the file and the entry.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise MissingFileError(f"no prediction file {path}")
    with reading(path):
        text = path.read_text(encoding="utf-8")
    try:
        # NaN and Infinity are not JSON, but Python accepts them; as nan, they are refused below.
        content = json.loads(text, parse_constant=lambda name: math.nan)
    except (ValueError, RecursionError) as error:  # ValueError also for numbers with too many digits
        raise UserError(f"{path}: not JSON: {error}") from error
    try:
        return _parse(path, content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _parse(path: pathlib.Path, content: Any) -> PredictionFile:
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
    names, sizes = _read_images(listed)
    triples: dict[str, list[tuple[float, float, float, float | None]]] = {name: [] for name in names.values()}
    known = None if listed is None else set(names.values())
    for number, entry in enumerate(entries):
        name, points = _read_entry(entry, f"annotation {number}", names, known)
        triples.setdefault(name, []).extend(points)
    return PredictionFile(path, _scored(triples), sizes, listed is not None)


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
    if not isinstance(entry, dict) or "keypoints" not in entry:
        raise UserError(f"{where}: not COCO keypoints: wanted an object with 'keypoints', got {_short(entry)}")
    identity = entry.get("image_id", entry.get("file_name"))
    if not isinstance(identity, int | str):
        raise UserError(f"{where}: wanted an 'image_id' or 'file_name', got {_short(entry)}")
    name = names.get(str(identity))
    if name is None:
        name = str(entry.get("file_name", identity))
        if known is not None and name not in known:
            raise UserError(f"{where}: image {identity!r} is not among the file's 'images'")
    keypoints = entry["keypoints"]
    if not isinstance(keypoints, list) or len(keypoints) % 3:
        size = f"{len(keypoints)} values" if isinstance(keypoints, list) else type(keypoints).__name__
        raise UserError(f"{where} ({name}): 'keypoints' must be a flat list of x, y, v triples, got {size}")
    numbers = [_finite(value, f"{where} ({name}): keypoints") for value in keypoints]
    score = None if entry.get("score") is None else _finite(entry["score"], f"{where} ({name}): score")
    triples = zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True)
    return name, [(x, y, third, score) for x, y, third in triples]


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
