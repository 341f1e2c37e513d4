"""Annotation formats, one reader and one writer each. Elsewhere, points and boxes are as in `irjax.types.Labels`.

| format | content | coordinates |
|---|---|---|
| CSV | points | name,x,y; pixel centres at integers; an image without a row has no targets |
| COCO | points, boxes, areas, sizes | keypoints (x, y, 2) as in CSV; bbox (x_min, y_min, width, height) |
| YOLO | boxes, polygons | class, then centre and sides of the box, or corners, divided by the image's width or height |
| VOC | boxes, sizes | xmin, ymin, xmax, ymax: first and last pixel of the box, counted from 1 |
| LabelMe | polygons, rectangles, circles, points | corners at pixel edges; points as they are written |

In formats that hold only boxes, the points are the centres of the boxes. The point of a polygon is the centroid of its
pixels (`irjax.ops.polygons.fill_polygons`).
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from irjax.errors import UsageError, UserError
from irjax.io import coco
from irjax.io.files import write_text
from irjax.io.images import read_bytes
from irjax.io.lists import decode_text
from irjax.io.names import stem
from irjax.io.points import check_points, read_points_csv
from irjax.ops.boxes import box_centres, checked_boxes
from irjax.ops.polygons import box_polygon, checked_polygon, polygon_box, polygon_centroid
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
    table = read_points_csv(path, None if sizes is None else frozenset(sizes))
    if sizes is None:
        found: dict[str, list[np.ndarray]] = {}
        for name, points in table.items():
            found.setdefault(stem(name), []).append(points)
        return [ImageLabels(name, Labels(np.concatenate(points))) for name, points in found.items()]
    for name, points in table.items():
        check_points(points, sizes[name], f"{os.fspath(path)}, {name}")
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
        for entry, polygons in zip(entries, image.labels.polygons or (), strict=False):
            if polygons:
                entry["segmentation"] = [corners.reshape(-1).tolist() for corners in polygons]
        content[file_name(image)] = entries
    coco.write_coco(path, content, {file_name(image): known_size(image) for image in images})


def read_coco_labels(path: str | os.PathLike) -> list[ImageLabels]:
    """Reads a COCO file with keypoints, boxes, outlines ("segmentation"), or several of them.

    Each keypoint is a target. An annotation with a box and no labelled keypoint is a target at the centre of the box,
    one with an outline alone at its centroid. Outlines are polygons; run lengths become rectangles of their pixels. The
    boxes of an image are returned only if every target has one; several keypoints of one annotation have none.

    Returns:
      Points, boxes (int64 if they are whole numbers), areas and polygons of each image, in the order of the file, with
      the names of `irjax.io.coco.CocoFile`.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is not COCO, lists an image twice, or has a box or point outside its image; the message names
        the file and the entry.
    """
    content = coco.load_coco(path)
    coco.check_scoreless(content)
    targets: dict[str, list[_Target]] = {name: [] for name in content.files}
    for number, entry in enumerate(content.annotations):
        where, name = f"{content.path}: annotations[{number}]", content.name_of(number)
        size, area = content.sizes[name], entry.get("area")
        box = coco.coco_box(entry, where)
        if box is not None:
            box = checked_boxes(box, size, where)
        polygons = coco.coco_outline(entry, size, where)
        bare = not entry.get("keypoints") and (box is not None or polygons)
        points = [] if bare else coco.coco_keypoints(entry, where)
        check_points(np.reshape(points, (-1, 2)), size, where)
        if len(points) > 1:  # the box is around all of them
            targets[name] += [_Target(point) for point in points]
        elif points:
            targets[name].append(_Target(points[0], box, polygons, area))
        elif box is not None:
            targets[name].append(_Target(box_centres(box)[0], box, polygons, area))
        elif polygons:
            targets[name].append(_outlined(polygons, size, area))
    return [
        ImageLabels(name, _labels(entries), content.sizes[name], content.files[name])
        for name, entries in targets.items()
    ]


class _Target(NamedTuple):
    """One target: its point (x, y), and its box [4], polygons and area where they are known."""

    point: Any
    box: np.ndarray | None = None
    polygons: tuple[np.ndarray, ...] = ()
    area: Any = None


def _labels(targets: Sequence[_Target]) -> Labels:
    """Returns the labels of one image: boxes and areas only if every target has one."""
    points = np.array([target.point for target in targets], np.float32).reshape(-1, 2)
    known = [target.box for target in targets if target.box is not None]
    complete = len(known) == len(targets)
    boxes = whole_boxes(np.concatenate([_NO_BOXES, *(box.reshape(1, 4) for box in known)])) if complete else None
    counted = complete and all(isinstance(target.area, int) for target in targets)
    areas = np.array([target.area for target in targets], np.int64) if counted else None
    polygons = tuple(target.polygons for target in targets)
    return Labels(points, boxes, areas, polygons if any(polygons) else None)


def _outlined(polygons: tuple[np.ndarray, ...], size: tuple[int, int], area: Any = None) -> _Target:
    """Returns the target that polygons surround; its point is the centroid of its pixels."""
    return _Target(polygon_centroid(polygons, size), _near_whole(polygon_box(polygons)), polygons, area)


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
    """Parses the boxes of a YOLO file, and the boxes around its polygons: `parse_yolo_labels` without the polygons.

    Returns:
      [K, 4] float64.
    """
    boxes = parse_yolo_labels(text, size, where).boxes
    assert boxes is not None  # every line has one
    return boxes.astype(np.float64)


def parse_yolo_labels(text: str, size: tuple[int, int], where: str | os.PathLike) -> Labels:
    """Parses a YOLO file; every class is a target.

    Args:
      text: content of the file. A line is `class x y width height`, optionally followed by a confidence, or, as in
        segmentation, `class x1 y1 x2 y2 x3 y3 ...` with three corners or more; commas are taken for spaces.
      size: (height, width) of the image.
      where: the file, for errors.

    Returns:
      Points, boxes and polygons. Edges within 1e-6 px of a whole number are rounded to it, so that boxes of whole
      pixels are restored exactly.

    Raises:
      UserError: if a line has another form, or a target is outside the image; the message names the file and the line.
    """
    return _labels(_yolo_targets(text, size, where))


def yolo_rows(text: str, where: str | os.PathLike) -> Iterator[tuple[str, list[float]]]:
    """Yields "FILE, line N" and the numbers of each line of a YOLO file that is not blank; commas count as spaces.

    Raises:
      UserError: if a line has anything but finite numbers; the message names the file and the line.
    """
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{os.fspath(where)}, line {number}"
        if fields := line.replace(",", " ").split():
            yield place, [coco.finite_text(field, f"{place}: class, x, y, width, height and so on") for field in fields]


def _yolo_targets(text: str, size: tuple[int, int], where: str | os.PathLike) -> list[_Target]:
    height, width = size
    found = []
    for place, values in yolo_rows(text, where):
        if len(values) < 5 or (len(values) > 6 and len(values) % 2 == 0):
            raise UserError(
                f"{place}: class, x, y, width, height are wanted, or class and the corners of a polygon, got "
                f"{len(values)} numbers"
            )
        if len(values) > 6:
            corners = np.reshape(values[1:], (-1, 2)) * [width, height]
            found.append(_outlined((_near_whole(checked_polygon(corners, size, place)),), size))
            continue
        x, y, w, h = (value * side for value, side in zip(values[1:5], (width, height) * 2, strict=True))
        box = _near_whole(checked_boxes(np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]]), size, place))
        found.append(_Target(box_centres(box)[0], box))
    return found


def _near_whole(values: np.ndarray) -> np.ndarray:
    """Rounds values within 1e-6 of a whole number to it."""
    near = np.rint(values)
    return np.where(np.abs(values - near) <= 1e-6, near, values)


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


def parse_voc(
    text: str | bytes,
    name: str,
    where: str | os.PathLike,
    convention: str = "voc",
    size: tuple[int, int] | None = None,
) -> ImageLabels:
    """Parses one VOC XML file; objects of any name are targets.

    Args:
      text: content of the file.
      name: name of the image.
      where: the file, for errors.
      convention: "voc" for the first and last pixel of a box, counted from 1; "sirst_v2" for the boxes of SIRST-v2,
        whose last pixel is one farther.
      size: (height, width) of the image, for files that state none or 0x0.

    Raises:
      UserError: if the text is not VOC XML, states another size than the image has, or none where `size` is None, or a
        box is outside the image; the message names the file.
    """
    if convention not in BOX_CONVENTIONS:
        raise UsageError(f"the box convention must be one of {', '.join(BOX_CONVENTIONS)}, got {convention!r}")
    try:
        root = ElementTree.fromstring(_xml_text(text))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{os.fspath(where)}: not an XML file ({error})") from error
    try:
        stated = tuple(int(root.findtext(f"size/{side}", "").strip() or 0) for side in ("height", "width"))
    except ValueError:
        stated = (0, 0)
    if min(stated) > 0 and size is not None and stated != tuple(size):
        raise UserError(
            f"{os.fspath(where)} is for {stated[1]}x{stated[0]} pixels, but the image has {size[1]}x{size[0]}"
        )
    size = (stated[0], stated[1]) if min(stated) > 0 else size
    if size is None:
        raise UserError(
            f"{os.fspath(where)}: the image's size is wanted as <size> with <width>, <height>, or the folder of "
            "the images (--images)"
        )
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


def _xml_text(text: str | bytes) -> str | bytes:
    """Decodes XML in the multi-byte encodings (GBK and others) that the parser does not know."""
    stated = (
        re.match(rb"""\s*<\?xml[^>]*?encoding=["']([\w.-]+)["'][^>]*\?>""", text) if isinstance(text, bytes) else None
    )
    if stated is None or stated[1].lower().startswith((b"utf", b"us-ascii", b"iso-8859")):
        return text
    assert isinstance(text, bytes)
    return text[stated.end() :].decode(stated[1].decode())


# --- LabelMe ----------------------------------------------------------------------------------------------------------


def parse_labelme(
    text: str | bytes, name: str, where: str | os.PathLike, size: tuple[int, int] | None = None
) -> ImageLabels:
    """Parses one LabelMe JSON file; shapes of any label are targets.

    Polygons, rectangles and circles are outlines in the coordinates of pixel edges, in which LabelMe draws them. A
    point is taken as it is written. Corners up to a pixel outside the image are moved to its border.

    Args:
      text: content of the file.
      name: name of the image.
      where: the file, for errors.
      size: (height, width) of the image, for files that state none.

    Raises:
      UserError: if the text is not LabelMe JSON, a shape is of another type or outside the image, or the file states
        another size than the image has, or none where `size` is None; the message names the file and the shape.
    """
    try:
        content = json.loads(text)
        shapes = content["shapes"]
        stated = (int(content.get("imageHeight") or 0), int(content.get("imageWidth") or 0))
        file = str(content.get("imagePath") or "").replace("\\", "/").rpartition("/")[2]
        kinds = [str(shape.get("shape_type") or "polygon") for shape in shapes]
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{os.fspath(where)}: not a LabelMe file: a list named 'shapes' is wanted ({error!r})"
        ) from error
    if min(stated) > 0 and size is not None and stated != tuple(size):
        raise UserError(
            f"{os.fspath(where)} is for {stated[1]}x{stated[0]} pixels, but the image has {size[1]}x{size[0]}"
        )
    size = stated if min(stated) > 0 else size
    if size is None:
        raise UserError(f"{os.fspath(where)}: no imageHeight and imageWidth; give the folder of the images (--images)")
    targets = []
    for number, (shape, kind) in enumerate(zip(shapes, kinds, strict=True)):
        place = f"{os.fspath(where)}: shapes[{number}]"
        try:
            corners = np.array(shape["points"], np.float64).reshape(-1, 2)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{place} needs points as x, y ({error!r})") from error
        if kind == "point" and len(corners) == 1:
            check_points(corners, size, place)
            targets.append(_Target(corners[0]))
            continue
        if kind == "rectangle" and len(corners) == 2:
            corners = box_polygon(polygon_box([corners]))
        elif kind == "circle" and len(corners) == 2:  # its middle, and a point on it
            turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)
            radius = np.hypot(*(corners[1] - corners[0]))
            corners = corners[0] + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        elif kind not in ("polygon", "rectangle"):
            raise UserError(
                f"{place} is a {kind} of {len(corners)} points; polygon, rectangle, circle and point are wanted"
            )
        targets.append(_outlined((checked_polygon(corners, size, place),), size))
    return ImageLabels(name, _labels(targets), size, file if stem(file) == name else None)


# --- one file for each image ------------------------------------------------------------------------------------------


def read_annotation(
    path: str | os.PathLike,
    kind: str,
    name: str,
    size: tuple[int, int] | None = None,
    convention: str = "voc",
) -> ImageLabels:
    """Reads the annotation file of one image.

    Args:
      path: the file.
      kind: "yolo", "voc" or "labelme".
      name: name of the image.
      size: (height, width) of the image; "yolo" needs it.
      convention: of the boxes of "voc", see `parse_voc`.

    Raises:
      MissingFileError: if there is no such file.
      UserError: see `parse_yolo_labels`, `parse_voc` and `parse_labelme`.
    """
    data = read_bytes(path)
    if kind == "voc":
        return parse_voc(data, name, path, convention, size)
    if kind == "labelme":
        return parse_labelme(data, name, path, size)
    if size is None:
        raise UserError(f"{os.fspath(path)}: YOLO's numbers are shares of the image; give its folder (--images)")
    text = decode_text(data, path)
    labels = parse_yolo_labels(text, size, path)
    if any(len(values) == 6 for _, values in yolo_rows(text, path)):
        coco.note_left_out("confidences", path)
    return ImageLabels(name, labels, size)


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
