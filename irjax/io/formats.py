"""Annotation formats, one reader and one writer each. Elsewhere, points and boxes are as in `irjax.types.Labels`.

| format | content | coordinates |
|---|---|---|
| CSV | points | name,x,y; pixel centres at integers; an image without a row has no targets |
| COCO | points, boxes, areas, sizes | keypoints (x, y, 2) as in CSV; bbox (x_min, y_min, width, height) |
| YOLO | boxes | class, centre and sides of the box, each divided by the image's width or height |
| VOC | boxes, sizes | xmin, ymin, xmax, ymax: first and last pixel of the box, counted from 1 |

In formats that hold only boxes, the points are the centres of the boxes.
"""

from __future__ import annotations

import csv
import io
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from irjax.errors import UsageError, UserError
from irjax.io import coco
from irjax.io.files import write_text
from irjax.io.names import stem
from irjax.io.predictions import write_coco
from irjax.ops.boxes import box_centres, checked_boxes
from irjax.types import ImageLabels, Labels

BOX_CONVENTIONS = {"voc": (1, 1, 0, 0), "sirst_v2": (1, 1, 1, 1)}  # added to a box of irjax to get the one in the file
_NO_BOXES = np.zeros((0, 4))


# --- points as CSV ----------------------------------------------------------------------------------------------------


def write_points_labels(path: str | os.PathLike, images: Iterable[ImageLabels]) -> None:
    """Writes a CSV file name,x,y with one target per line, atomically.

    Coordinates are the shortest decimals from which the same float32 is read.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("name", "x", "y"))
    for image in images:
        rows.writerows((image.name, x, y) for x, y in _decimals(image.labels.points))
    write_text(path, text.getvalue())


def read_points_labels(
    path: str | os.PathLike, sizes: Mapping[str, tuple[int, int]] | None = None
) -> list[ImageLabels]:
    """Reads a CSV table of points.

    Args:
      path: a CSV file with the columns name, x and y.
      sizes: {name: (height, width)} of all images. If None, only images with rows are returned, without sizes.

    Returns:
      Points of each image, in the order of `sizes` or else of the file; equal to what `write_points_labels` was given.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it cannot be read, a name is unknown or a point is outside its image; the message names the file.
    """
    table = coco.read_points_csv(path, None if sizes is None else frozenset(sizes))
    if sizes is None:
        found: dict[str, list[np.ndarray]] = {}
        for name, points in table.items():
            found.setdefault(stem(name), []).append(points)
        return [ImageLabels(name, Labels(np.concatenate(points))) for name, points in found.items()]
    for name, points in table.items():
        coco.check_points(points, sizes[name], f"{os.fspath(path)}, {name}")
    none = np.zeros((0, 2), np.float32)
    return [ImageLabels(name, Labels(table.get(name, none)), size) for name, size in sizes.items()]


def _decimals(values: np.ndarray) -> list[list[float]]:
    """Returns rows of floats that print as the shortest decimals from which the same float32 is read."""
    return [[float(str(value)) for value in row] for row in np.asarray(values, np.float32)]


# --- COCO -------------------------------------------------------------------------------------------------------------


def write_coco_labels(path: str | os.PathLike, images: Sequence[ImageLabels]) -> None:
    """Writes one COCO file atomically: a keypoint for each target, with its box and area where known.

    Raises:
      UserError: if an image's size is not known; the message names it.
    """
    content = {}
    for image in images:
        entries = [{"keypoints": [x, y, 2], "num_keypoints": 1} for x, y in _decimals(image.labels.points)]
        if image.labels.boxes is not None:
            corners = image.labels.boxes.tolist()
            sides = (image.labels.boxes[:, 2:] - image.labels.boxes[:, :2]).tolist()
            areas = [w * h for w, h in sides] if image.labels.areas is None else image.labels.areas.tolist()
            for entry, corner, side, area in zip(entries, corners, sides, areas, strict=True):
                entry.update(bbox=[*corner[:2], *side], area=area, iscrowd=0)
        content[file_name(image)] = entries
    write_coco(path, content, {file_name(image): known_size(image) for image in images})


def read_coco_labels(path: str | os.PathLike) -> list[ImageLabels]:
    """Reads a COCO file with keypoints, boxes, or both.

    Each keypoint is a target. An annotation with a box and no labelled keypoint is a target at the centre of the box.
    The boxes of an image are returned only if every target has one; several keypoints of one annotation have none.

    Returns:
      Points, boxes (int64 if they are whole numbers) and areas of each image, in the order of the file.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is not COCO, lists an image twice, or has a box or point outside its image; the message names
        the file and the entry.
    """
    content = coco.load_coco(path)
    targets: dict[str, list[tuple]] = {name: [] for name in content.sizes}
    for number, entry in enumerate(content.annotations):
        where = f"{content.path}: annotations[{number}]"
        name = content.name_of(number)
        box = _coco_box(entry, content.sizes[name], where) if entry.get("bbox") else None
        points = [] if box is not None and not entry.get("keypoints") else coco.coco_keypoints(entry, where)
        coco.check_points(np.reshape(points, (-1, 2)), content.sizes[name], where)
        if box is not None and not points:
            points = box_centres(box).tolist()
        alone = len(points) == 1
        area = entry.get("area")
        targets[name] += [(point, box if alone else None, area if alone else None) for point in points]
    found = []
    for name, entries in targets.items():
        centres = np.array([point for point, _, _ in entries], np.float32).reshape(-1, 2)
        complete = all(box is not None for _, box, _ in entries)
        boxes = whole_boxes(np.concatenate([_NO_BOXES, *(box for _, box, _ in entries)])) if complete else None
        counted = complete and all(isinstance(area, int) for _, _, area in entries)
        areas = np.array([area for _, _, area in entries], np.int64) if counted else None
        found.append(ImageLabels(name, Labels(centres, boxes, areas), content.sizes[name], content.files[name]))
    return found


def _coco_box(entry: dict, size: tuple[int, int], where: str) -> np.ndarray:
    try:
        x, y, width, height = (float(value) for value in entry["bbox"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: bbox must be x, y, width, height, got {entry['bbox']!r}") from error
    return checked_boxes(np.array([[x, y, x + width, y + height]]), size, where)


def whole_boxes(boxes: np.ndarray) -> np.ndarray:
    """Converts boxes to int64 if they are whole numbers; otherwise returns them unchanged."""
    rounded = np.rint(boxes)
    return rounded.astype(np.int64) if np.array_equal(rounded, boxes) else boxes


# --- YOLO -------------------------------------------------------------------------------------------------------------


def format_yolo(boxes: np.ndarray, size: tuple[int, int]) -> str:
    """Formats boxes [K, 4] of an image of `size` (height, width) as YOLO lines `0 x y width height`, unrounded."""
    height, width = size
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    values = np.concatenate([middles, sides], axis=1) / [width, height, width, height]
    return "".join(f"0 {' '.join(map(repr, row))}\n" for row in values.tolist())


def parse_yolo(text: str, size: tuple[int, int], where: str | os.PathLike) -> np.ndarray:
    """Parses the boxes of a YOLO file; every class is a target.

    Args:
      text: content of the file, one `class x y width height` per line, optionally followed by a confidence.
      size: (height, width) of the image.
      where: the file, for errors.

    Returns:
      [K, 4] float64. Edges within 1e-6 px of a whole number are rounded to it, so that boxes of whole pixels are
      restored exactly.

    Raises:
      UserError: if a line has another form, or a box is outside the image; the message names the file and the line.
    """
    height, width = size
    boxes = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            values = [float(field) for field in fields]
        except ValueError:
            values = []
        if len(values) not in (5, 6) or not all(map(math.isfinite, values)):
            raise UserError(f"{os.fspath(where)}, line {number}: class, x, y, width, height are wanted, got {line!r}")
        x, y, w, h = (value * side for value, side in zip(values[1:5], (width, height) * 2, strict=True))
        box = np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]])
        boxes.append(checked_boxes(box, size, f"{os.fspath(where)}, line {number}"))
    found = np.concatenate([_NO_BOXES, *boxes])
    near = np.rint(found)
    return np.where(np.abs(found - near) <= 1e-6, near, found)


# --- VOC --------------------------------------------------------------------------------------------------------------


def format_voc(image: ImageLabels) -> str:
    """Formats one image as VOC XML; fractional boxes are widened to whole pixels.

    Raises:
      UserError: if the image's size or its boxes are not known; the message names it.
    """
    height, width = known_size(image)
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name(image)
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 1)):
        ElementTree.SubElement(size, tag).text = str(value)
    boxes = known_boxes(image)
    low, high = np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])
    for row in (np.concatenate([low, high], axis=1) + BOX_CONVENTIONS["voc"]).astype(np.int64).tolist():
        entry = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(entry, "name").text = "target"
        box = ElementTree.SubElement(entry, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), row, strict=True):
            ElementTree.SubElement(box, tag).text = str(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def parse_voc(text: str | bytes, name: str, where: str | os.PathLike, convention: str = "voc") -> ImageLabels:
    """Parses one VOC XML file; objects of any name are targets.

    Args:
      text: content of the file.
      name: name of the image.
      where: the file, for errors.
      convention: "voc" for the first and last pixel of a box, counted from 1; "sirst_v2" for the boxes of SIRST-v2,
        whose last pixel is one farther.

    Raises:
      UserError: if the text is not VOC XML, or a box is outside the image; the message names the file.
    """
    if convention not in BOX_CONVENTIONS:
        raise UsageError(f"the box convention must be one of {', '.join(BOX_CONVENTIONS)}, got {convention!r}")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{os.fspath(where)}: not an XML file ({error})") from error
    try:
        size = (int(root.findtext("size/height", "")), int(root.findtext("size/width", "")))
    except ValueError as error:
        raise UserError(f"{os.fspath(where)}: the image's size is wanted as <size> with <width>, <height>") from error
    rows = []
    for number, entry in enumerate(root.iter("object"), 1):
        try:
            row = [float(entry.findtext(f"bndbox/{tag}", "")) for tag in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError as error:
            raise UserError(f"{os.fspath(where)}: object {number} has no <bndbox> with four numbers") from error
        rows.append(np.array([row]) - BOX_CONVENTIONS[convention])
    boxes = whole_boxes(checked_boxes(np.concatenate([_NO_BOXES, *rows]), size, where))
    found = root.findtext("filename") or ""
    return ImageLabels(name, Labels(box_centres(boxes), boxes), size, found if stem(found) != found else None)


# --- helpers of the writers -------------------------------------------------------------------------------------------


def file_name(image: ImageLabels) -> str:
    """Returns the image's file name; if unknown, the name with .png, since readers remove the extension."""
    return image.file_name or f"{image.name}.png"


def known_size(image: ImageLabels) -> tuple[int, int]:
    """Returns (height, width); raises UserError, naming the image, if the size is not known."""
    if image.size is None:
        raise UserError(f"{image.name}: the size of the image is not known; give the folder of the images (--images)")
    return image.size


def known_boxes(image: ImageLabels) -> np.ndarray:
    """Returns boxes [K, 4]; raises UserError, naming the image, if a target has no box."""
    if image.labels.boxes is not None:
        return image.labels.boxes
    if not len(image.labels):
        return _NO_BOXES
    raise UserError(f"{image.name}: its targets have points only, and this format holds boxes; convert masks instead")
