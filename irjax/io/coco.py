"""The one reader and writer of COCO files: images, keypoints, boxes, outlines, of labels and of predictions."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irjax.errors import UserError, note
from irjax.io import lists
from irjax.io.files import write_json
from irjax.io.images import read_bytes
from irjax.io.names import image_names
from irjax.ops.polygons import checked_polygon, mask_polygons
from irjax.ops.run_lengths import decode_run_lengths


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
    content = _read_json(path)
    content = {"annotations": content} if results and isinstance(content, list) else content
    lists_of = ("annotations", "predictions", "results") if results else ("annotations",)
    present = [name for name in lists_of if isinstance(content, dict) and isinstance(content.get(name), list)]
    listed = content.get("images") if isinstance(content, dict) else None
    if not present or not isinstance([] if results and listed is None else listed, list):
        if isinstance(content, dict) and "shapes" in content:
            raise UserError(f"{os.fspath(path)}: a LabelMe file, not COCO; give the folder of the LabelMe files")
        wanted = "a list of annotations, or an object with one" if results else "lists named 'images' and 'annotations'"
        raise UserError(f"{os.fspath(path)}: not a COCO file: {wanted} {'is' if results else 'are'} wanted")
    return _coco_file(path, listed, content[present[0]], results)


def load_coco_images(path: str | os.PathLike) -> CocoFile:
    """Reads the images of a COCO file alone, whatever else it holds; arguments and errors are those of `load_coco`."""
    content = _read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"{os.fspath(path)}: not a COCO file: a list named 'images' is wanted")
    return _coco_file(path, content["images"], [], True)


def _read_json(path: str | os.PathLike) -> Any:
    data = read_bytes(path)
    try:
        # NaN and Infinity are not JSON, but Python accepts them; as nan, they are refused where numbers are read.
        return json.loads(data, parse_constant=lambda name: math.nan)
    except (ValueError, RecursionError) as error:  # ValueError includes UnicodeDecodeError
        raise UserError(f"{os.fspath(path)}: not a JSON file ({error})") from error


def _coco_file(path: str | os.PathLike, listed: list | None, annotations: list, results: bool) -> CocoFile:
    path = pathlib.Path(path)
    rows = [_coco_image(image, f"{path}: images[{number}]", results) for number, image in enumerate(listed or ())]
    names = relative_names([file for _, file, _ in rows])
    found = CocoFile(path, {}, {}, {}, annotations, listed is not None)
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
    """Returns the names of images (`irjax.io.names`), without the leading folders that all files share."""
    every = [lists.path_parts(file) for file in files]
    shared = len(os.path.commonprefix([parts[:-1] for parts in every])) if every else 0
    return image_names(["/".join(parts[shared:]) for parts in every])


def read_coco(path: str | os.PathLike) -> CocoPoints:
    """Reads the keypoints of a COCO file; the targets of an image are all keypoints of all its annotations.

    Keypoints are (x, y, v); those with v = 0, which COCO defines as unlabelled, are ignored.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is not JSON, or not COCO with keypoints; the message names the file and what is missing.
    """
    content = load_coco(path)
    check_scoreless(content)
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in content.files}
    for number, annotation in enumerate(content.annotations):
        found = coco_keypoints(annotation, f"{path}: annotations[{number}]")
        points[content.name_of(number)].extend(found)
    by_name = {
        name: (np.array(found, np.float32).reshape(-1, 2), content.sizes[name]) for name, found in points.items()
    }
    return CocoPoints(by_name=by_name, by_id=content.by_id, files=content.files)


def check_scoreless(content: CocoFile) -> None:
    """Notes that scores of annotations are not kept by those who read them as labels."""
    if scored := sum(isinstance(entry, dict) and entry.get("score") is not None for entry in content.annotations):
        note_left_out(f"{scored} scores", content.path)


def note_left_out(scores: str, path: str | os.PathLike) -> None:
    """Notes that the scores of a file, in words, are not kept by those who read it as labels."""
    note(f"{scores} are left out: labels have none; irjax evaluate --predictions reads them", path)


# --- what an annotation holds -----------------------------------------------------------------------------------------


def coco_triples(entry: dict, where: str) -> list[tuple[float, float, float]]:
    """Returns the keypoints (x, y, third value) of one COCO annotation; `where` names it in errors."""
    values = entry.get("keypoints") if isinstance(entry, dict) else None
    if not isinstance(values, list) or len(values) % 3:
        raise UserError(f"{where} needs keypoints as a flat list of x, y, v triples, got {short(values)}")
    numbers = [finite(value, f"{where}: keypoints") for value in values]
    return list(zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True))


def coco_keypoints(entry: dict, where: str) -> list[tuple[float, float]]:
    """Returns the labelled points (x, y) of one COCO annotation; `where` names it in errors."""
    return [(x, y) for x, y, visible in coco_triples(entry, where) if visible > 0]


def coco_box(entry: Mapping[str, Any], where: str) -> np.ndarray | None:
    """Returns the box [4] (x_min, y_min, x_max, y_max) of one COCO annotation, None if it has none."""
    box = entry.get("bbox")
    if not box:
        return None
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where}: bbox must be x, y, width, height, got {short(box)}")
    x, y, width, height = (finite(value, f"{where}: bbox") for value in box)
    if width < 0 or height < 0:
        raise UserError(f"{where}: bbox must have sides of at least 0, got {short(box)}")
    return np.array([x, y, x + width, y + height])


def coco_outline(entry: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> tuple[np.ndarray, ...]:
    """Returns the outline of one COCO annotation, corners [N, 2] of each part; empty if it has none.

    Run-length encoded masks, compressed or not, become rectangles of exactly their pixels.

    Args:
      entry: the annotation.
      size: (height, width) of the image; None if it is not known, and nothing is checked or clipped.
      where: names the annotation in errors.
    """
    found = entry.get("segmentation")
    if not found:
        return ()
    if isinstance(found, dict):
        return _run_length_outline(found, size, f"{where}: segmentation")
    try:
        return tuple(checked_polygon(corners, size, where) for corners in found)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: segmentation must be lists of x, y, or run lengths ({error})") from error


def _run_length_outline(found: dict, size: tuple[int, int] | None, where: str) -> tuple[np.ndarray, ...]:
    stated, counts = found.get("size"), found.get("counts")
    sides = isinstance(stated, list) and [side for side in stated if type(side) is int and side > 0]
    if not sides or len(sides) != 2 or sides != stated or not isinstance(counts, list | str):
        raise UserError(f"{where} needs size as height, width, and counts, got {short(found)}")
    height, width = sides
    if size is not None and tuple(size) != (height, width):
        raise UserError(f"{where} is for {width}x{height} pixels, but the image has {size[1]}x{size[0]}")
    try:
        parts = mask_polygons(decode_run_lengths(counts, (height, width)))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if not parts:
        raise UserError(f"{where} has no pixel")
    return parts


def finite(value: Any, where: str) -> float:
    """Returns a number of JSON as a finite float; `where` says in errors what it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where} must be numbers, got {short(value)}")
    with contextlib.suppress(OverflowError):
        if math.isfinite(number := float(value)):
            return number
    raise UserError(f"{where} must be finite, got {short(value)}")


def finite_text(text: str | None, where: str) -> float:
    """Returns the finite number that a text says, as `finite` does; None is none."""
    try:
        number = float(text or "")
    except ValueError:
        raise UserError(f"{where} must be numbers, got {short(text)}") from None
    return finite(number, where)


def short(value: Any) -> str:
    """Returns a value as text for messages, cut at 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- writing ----------------------------------------------------------------------------------------------------------


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
