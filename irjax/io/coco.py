"""Readers of point annotations: COCO keypoint files and CSV tables of points."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from irjax.errors import UserError, reading
from irjax.io import lists


@dataclasses.dataclass(frozen=True)
class CocoPoints:
    """Content of a COCO keypoint file, by image.

    Attributes:
      by_name: image name (see `CocoFile`) -> (points [K, 2] float32 (x, y) in pixels, (height, width)).
      by_id: image id as text -> image name.
      files: image name -> file name, with `/` between folders.
    """

    by_name: dict[str, tuple[np.ndarray, tuple[int, int]]]
    by_id: dict[str, str]
    files: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all images, in the order of the file."""
        return tuple(self.by_name)

    def resolve(self, listed: Sequence[tuple[int, str]], where: str | os.PathLike) -> tuple[str, ...]:
        """Returns the image names for the lines of a split list.

        The entries are either all image ids or all file names.

        Args:
          listed: (line number, entry), as `irjax.io.lists.read_lines` returns them.
          where: the list, for errors.

        Raises:
          UserError: if an entry is neither, or the list mixes both; the message names the entry, the list and its line.
        """
        if all(entry in self.by_id for _, entry in listed):
            return tuple(self.by_id[entry] for _, entry in listed)
        find = lists.Resolver(self.by_name)
        names = []
        for number, entry in listed:
            name = None if entry in self.by_id and entry not in self.by_name else find(entry)
            names.append((number, entry, name))
        strange = [(number, entry) for number, entry, name in names if name is None]
        # Ids in a list of names are wrong too, but unknown entries are reported first.
        if unknown := [one for one in strange if one[1] not in self.by_id] or strange:
            raise UserError(
                f"{os.fspath(where)}: {unknown[0][1]} is neither an image id nor a file name of the annotations, "
                f"or the list mixes the two (line {unknown[0][0]})"
            )
        return tuple(name for _, _, name in names if name is not None)


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """Content of a COCO file, with checked images.

    An image's name is its file name without ending, as images of folders are named (`irjax.io.names`): ``/`` between
    folders, without those that all file names begin with. ``a/1.png`` and ``b\\1.png`` are a/1 and b/1.

    Attributes:
      path: path of the file.
      by_id: image id as text -> image name.
      files: image name -> file name, with `/` between folders.
      sizes: image name -> (height, width), for the images whose size is stated.
      annotations: the entries of the list of annotations, unchecked.
      lists_images: whether the file lists its images, so that images without annotations differ from those left out.
    """

    path: pathlib.Path
    by_id: dict[str, str]
    files: dict[str, str]
    sizes: dict[str, tuple[int, int]]
    annotations: list
    lists_images: bool = True

    def name_of(self, number: int) -> str:
        """Returns the image name of annotation `number`.

        Raises:
          UserError: if the annotation has no image id, or its image is not listed; the message names the file.
        """
        annotation = self.annotations[number]
        if not isinstance(annotation, dict) or "image_id" not in annotation:
            raise UserError(f"{self.path}: annotations[{number}] needs image_id")
        key = _key(annotation["image_id"])
        if key not in self.by_id:
            raise UserError(f"{self.path}: annotations[{number}] is for image {key}, which is not among the images")
        return self.by_id[key]

    def file_of(self, number: int) -> str:
        """Returns the file name of the image of annotation `number`, or its id where there is no other name.

        Annotations of results identify their image by "image_id", an id or a file name, or by "file_name".

        Raises:
          UserError: if the annotation identifies no image, or one that the file does not list; the message names it.
        """
        entry = self.annotations[number]
        where = f"{self.path}: annotations[{number}]"
        identity = entry.get("image_id", entry.get("file_name")) if isinstance(entry, dict) else None
        if identity is None:
            raise UserError(f"{where} needs image_id or file_name")
        if (name := self.by_id.get(_key(identity))) is not None:
            return self.files[name]
        file = _slashes(str(entry.get("file_name", identity)))
        if self.lists_images and file not in self._listed:
            raise UserError(f"{where} is for image {identity}, which is not among the images")
        return file

    @functools.cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(self.files.values())


def load_coco(path: str | os.PathLike, *, results: bool = False) -> CocoFile:
    """Reads a COCO file without checking its annotations.

    Args:
      path: the file; UTF-8, UTF-16 or UTF-32.
      results: also accept what programs write for predictions: a bare list of annotations, a list called "predictions"
        or "results", no list of images, and images without size or file name (then the id is the name).

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is not JSON or not COCO, or lists an image twice; the message names the file and the entry.
    """
    path = pathlib.Path(path)
    with reading(path):
        data = path.read_bytes()
    try:
        # NaN and Infinity are not JSON, but Python accepts them; as nan, they are refused where numbers are read.
        content = json.loads(data, parse_constant=lambda name: math.nan)
    except (ValueError, RecursionError) as error:  # ValueError includes UnicodeDecodeError
        raise UserError(f"{path}: not a JSON file ({error})") from error
    content = {"annotations": content} if results and isinstance(content, list) else content
    lists_of = ("annotations", "predictions", "results") if results else ("annotations",)
    present = [name for name in lists_of if isinstance(content, dict) and isinstance(content.get(name), list)]
    if not present or not isinstance(content.get("images", [] if results else None), list):
        if isinstance(content, dict) and "shapes" in content:
            raise UserError(f"{path}: a LabelMe file, not COCO; give the folder of the LabelMe files")
        wanted = "a list of annotations, or an object with one" if results else "lists named 'images' and 'annotations'"
        raise UserError(f"{path}: not a COCO file: {wanted} {'is' if results else 'are'} wanted")
    rows = [
        _coco_image(image, f"{path}: images[{number}]", results)
        for number, image in enumerate(content.get("images", []))
    ]
    names = relative_names([file for _, file, _ in rows])
    found = CocoFile(path, {}, {}, {}, content[present[0]], "images" in content)
    for number, ((key, file, size), name) in enumerate(zip(rows, names, strict=True)):
        if key in found.by_id or name in found.files:
            raise UserError(f"{path}: images[{number}] repeats the id {key} or the file name {name}")
        found.by_id[key], found.files[name] = name, file
        if size is not None:
            found.sizes[name] = size
    return found


def _coco_image(image: Any, where: str, results: bool) -> tuple[str, str, tuple[int, int] | None]:
    """Returns the id as text, the file name and the size (height, width) of one entry of "images"."""
    try:
        key = _key(image["id"])
        file = _slashes(str(image.get("file_name", key) if results else image["file_name"]))
        if results and not (image.get("height") and image.get("width")):
            return key, file, None
        return key, file, (int(image["height"]), int(image["width"]))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        wanted = "id" if results else "id, file_name, height and width"
        raise UserError(f"{where} needs {wanted} ({error!r})") from error


def _key(identity: Any) -> str:
    """Returns an image's id as text; numbers with a fraction of zero are whole, as tables export them."""
    return str(int(identity) if isinstance(identity, float) and identity.is_integer() else identity)


def _slashes(file: str) -> str:
    return file.replace("\\", "/")


def relative_names(files: Sequence[str]) -> list[str]:
    """Returns the names of images, without the leading folders that all files share."""
    every = [lists.path_parts(file) for file in files]
    shared = len(os.path.commonprefix([parts[:-1] for parts in every])) if every else 0
    return ["/".join((*parts[shared:-1], lists.image_stem(parts[-1]))) if parts else "" for parts in every]


def read_coco(path: str | os.PathLike) -> CocoPoints:
    """Reads the keypoints of a COCO file; the targets of an image are all keypoints of all its annotations.

    Keypoints are (x, y, v); those with v = 0, which COCO defines as unlabelled, are ignored.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is not JSON, or not COCO with keypoints; the message names the file and what is missing.
    """
    content = load_coco(path)
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in content.files}
    for number, annotation in enumerate(content.annotations):
        found = coco_keypoints(annotation, f"{path}: annotations[{number}]")
        points[content.name_of(number)].extend(found)
    by_name = {
        name: (np.array(found, np.float32).reshape(-1, 2), content.sizes[name]) for name, found in points.items()
    }
    return CocoPoints(by_name=by_name, by_id=content.by_id, files=content.files)


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
    find = None if known is None else lists.Resolver(known)
    with reading(path):
        text = lists.decode_text(path.read_bytes(), path)
    try:
        with io.StringIO(text, newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in rows.fieldnames or ()]
            if missing := [column for column in ("name", "x", "y") if column not in columns]:
                raise UserError(f"{path}: columns name, x, y are wanted; {', '.join(missing)} not among {columns}")
            rows.fieldnames = columns
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                name = (row["name"] or "").strip()
                if find is not None and name not in (known or ()):
                    name = find(name) or ""
                if not name:
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
