"""Readers of point annotations: COCO keypoint files and CSV tables of points."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import pathlib

import numpy as np

from irjax.errors import UserError, reading


@dataclasses.dataclass(frozen=True)
class CocoPoints:
    """Content of a COCO keypoint file, by image.

    Attributes:
      by_name: file name without extension -> (points [K, 2] float32 (x, y) in pixels, (height, width)).
      by_id: image id as text -> file name without extension.
    """

    by_name: dict[str, tuple[np.ndarray, tuple[int, int]]]
    by_id: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all images, in the order of the file."""
        return tuple(self.by_name)

    def resolve(self, listed: tuple[str, ...], where: str | os.PathLike) -> tuple[str, ...]:
        """Returns the image names for the entries of a split list.

        The entries are either all image ids or all file names.

        Raises:
          UserError: if an entry is neither, or the list mixes both; the message names the entry and the list.
        """
        if all(entry in self.by_id for entry in listed):
            return tuple(self.by_id[entry] for entry in listed)
        names = tuple(entry if entry in self.by_name else pathlib.PurePath(entry).stem for entry in listed)
        strange = [entry for entry, name in zip(listed, names, strict=True) if name not in self.by_name]
        # Ids in a list of names are wrong too, but unknown entries are reported first.
        if unknown := [entry for entry in strange if entry not in self.by_id] or strange:
            raise UserError(
                f"{os.fspath(where)}: {unknown[0]} is neither an image id nor a file name of the annotations, "
                "or the list mixes the two"
            )
        return names


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """Content of a COCO file, with checked images.

    Attributes:
      path: path of the file.
      by_id: image id as text -> image name, which is the file name without extension.
      files: image name -> file name, as stored in the file.
      sizes: image name -> (height, width).
      annotations: the entries of the list "annotations", unchecked.
    """

    path: pathlib.Path
    by_id: dict[str, str]
    files: dict[str, str]
    sizes: dict[str, tuple[int, int]]
    annotations: list[dict]

    def name_of(self, number: int) -> str:
        """Returns the image name of annotation `number`.

        Raises:
          UserError: if the annotation has no image id, or its image is not listed; the message names the file.
        """
        annotation = self.annotations[number]
        if not isinstance(annotation, dict) or "image_id" not in annotation:
            raise UserError(f"{self.path}: annotations[{number}] needs image_id")
        key = str(annotation["image_id"])
        if key not in self.by_id:
            raise UserError(f"{self.path}: annotations[{number}] is for image {key}, which is not among the images")
        return self.by_id[key]


def load_coco(path: str | os.PathLike) -> CocoFile:
    """Reads a COCO file without checking its annotations.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is not JSON or not COCO, or lists an image twice; the message names the file and the entry.
    """
    path = pathlib.Path(path)
    with reading(path):
        data = path.read_bytes()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:  # ValueError includes UnicodeDecodeError
        raise UserError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise UserError(f"{path}: not a COCO file: lists named 'images' and 'annotations' are wanted")
    found = CocoFile(path, {}, {}, {}, content["annotations"])
    for number, image in enumerate(content["images"]):
        try:
            file_name, key = str(image["file_name"]), str(image["id"])
            size = (int(image["height"]), int(image["width"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: images[{number}] needs id, file_name, height and width ({error!r})") from error
        name = pathlib.PurePosixPath(file_name).stem
        if key in found.by_id or name in found.sizes:
            raise UserError(f"{path}: images[{number}] repeats the id {key} or the file name {name}")
        found.by_id[key], found.files[name], found.sizes[name] = name, file_name, size
    return found


def read_coco(path: str | os.PathLike) -> CocoPoints:
    """Reads the keypoints of a COCO file; the targets of an image are all keypoints of all its annotations.

    Keypoints are (x, y, v); those with v = 0, which COCO defines as unlabelled, are ignored.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is not JSON, or not COCO with keypoints; the message names the file and what is missing.
    """
    content = load_coco(path)
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in content.sizes}
    for number, annotation in enumerate(content.annotations):
        found = coco_keypoints(annotation, f"{path}: annotations[{number}]")
        points[content.name_of(number)].extend(found)
    by_name = {
        name: (np.array(found, np.float32).reshape(-1, 2), content.sizes[name]) for name, found in points.items()
    }
    return CocoPoints(by_name=by_name, by_id=content.by_id)


def coco_keypoints(annotation: dict, where: str) -> list[tuple[float, float]]:
    """Returns the labelled points (x, y) of one COCO annotation; `where` names it in errors."""
    try:
        values = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} needs keypoints as x, y, v triples ({error!r})") from error
    if not np.isfinite(values).all():
        raise UserError(f"{where} has keypoints that are not finite")
    return [(x, y) for x, y, visible in values if visible > 0]


def read_points_csv(path: str | os.PathLike, known: frozenset[str] | None = None) -> dict[str, np.ndarray]:
    """Reads a CSV table of points with the columns name, x and y, in any order; other columns are ignored.

    Args:
      path: the CSV file.
      known: the names of all images, or None to accept any name as it is written.

    Returns:
      Name -> [K, 2] float32 (x, y) in pixels, for the names that have rows.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if a column is missing, a name is unknown or a coordinate is not a finite number; the message names
        the file and the line.
    """
    path = pathlib.Path(path)
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        with reading(path), path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in rows.fieldnames or ()]
            if missing := [column for column in ("name", "x", "y") if column not in columns]:
                raise UserError(f"{path}: columns name, x, y are wanted; {', '.join(missing)} not among {columns}")
            rows.fieldnames = columns
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                name = (row["name"] or "").strip()
                if known is not None and name not in known:
                    name = pathlib.PurePath(name).stem
                if not name or (known is not None and name not in known):
                    raise UserError(f"{where}: there is no image for the name {row['name']!r}")
                found.setdefault(name, []).append(_coordinates(row, where))
    except csv.Error as error:
        raise UserError(f"{path}: not a csv file ({error})") from error
    return {name: np.array(points, np.float32) for name, points in found.items()}


def _coordinates(row: dict[str, str | None], where: str) -> tuple[float, float]:
    try:
        x, y = float(row["x"] or ""), float(row["y"] or "")
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UserError(f"{where}: x and y must be finite numbers, got {row['x']!r} and {row['y']!r}")
    return x, y


def check_points(points: np.ndarray, size: tuple[int, int], where: str | os.PathLike) -> None:
    """Checks that points [K, 2] lie in an image of `size` (height, width).

    Raises:
      UserError: if a point lies outside; `where` names the file in the message.
    """
    height, width = size
    # A pixel extends half a pixel beyond its centre.
    inside = np.all((points >= -0.5) & (points < np.array([width, height]) - 0.5), axis=1)
    if not inside.all():
        x, y = points[np.argmin(inside)]
        raise UserError(f"{os.fspath(where)}: the point ({x:g}, {y:g}) is outside the image of {width}x{height} pixels")
