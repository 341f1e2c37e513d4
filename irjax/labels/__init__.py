"""Annotations and their formats: masks, points and boxes; COCO, YOLO, VOC, LabelMe and CSV.

    labels = label_mask(mask)                                        # [H, W] -> points, boxes, areas
    coarse_points(mask, np.random.default_rng(0))                    # simulated single-point annotation
    point_mask(labels.points, mask.shape, radius=2)                  # and back to a mask
    convert("DATA/masks", "annotations.json", to="coco")             # files to files, as `irjax labels` does

`targets` converts between masks and points, `irjax.io.formats` has a reader and a writer for each file format, and
`conversion` detects the format of a folder and writes another one, completely or not at all.

Points are (x, y) in pixels, pixel centres at integers. Boxes are (x_min, y_min, x_max, y_max) in pixels with the upper
edges exclusive: a box of one pixel is (x, y, x + 1, y + 1), and the centre of a box is
((x_min + x_max - 1) / 2, (y_min + y_max - 1) / 2).
"""

from irjax.io.formats import (
    format_voc,
    format_yolo,
    parse_labelme,
    parse_voc,
    parse_yolo,
    parse_yolo_labels,
    read_coco_labels,
    read_points_labels,
    write_coco_labels,
    write_points_labels,
)
from irjax.labels.conversion import FORMATS, KINDS, Conversion, convert, find_kind, read_labels, write_labels
from irjax.labels.targets import coarse_points, label_mask, name_rng, point_mask, target_mask
from irjax.ops.boxes import box_centres
from irjax.types import ImageLabels, Labels

__all__ = [
    "FORMATS",
    "KINDS",
    "Conversion",
    "ImageLabels",
    "Labels",
    "box_centres",
    "coarse_points",
    "convert",
    "find_kind",
    "format_voc",
    "format_yolo",
    "label_mask",
    "name_rng",
    "parse_labelme",
    "parse_voc",
    "parse_yolo",
    "parse_yolo_labels",
    "point_mask",
    "read_coco_labels",
    "read_labels",
    "read_points_labels",
    "target_mask",
    "write_coco_labels",
    "write_labels",
    "write_points_labels",
]
