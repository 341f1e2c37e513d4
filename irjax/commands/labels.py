"""irjax labels: converts annotations from one format to another."""

from __future__ import annotations

import argparse

SUMMARY = "convert annotations: masks, points, boxes and polygons; COCO, YOLO, VOC, LabelMe, CSV"
DESCRIPTION = (
    "Converts annotations. The source is a folder of masks, a data set in a published layout, a COCO file (.json), a "
    "table of points (.csv), or a folder of YOLO (.txt), VOC (.xml) or LabelMe (.json) files. All of it is read and "
    "checked before anything is written. Points are (x, y) in pixels of the image, pixel centres at integers."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="file or folder of annotations")
    add(
        "--to",
        required=True,
        choices=("points", "coco", "yolo", "voc", "masks"),
        help="points: CSV name,x,y; coco: keypoints and boxes in one file; yolo, voc: a file of boxes for each image; "
        "masks: a PNG for each image, polygons and boxes filled, points marked",
    )
    add(
        "--out",
        required=True,
        metavar="FILE_OR_DIR",
        help="new folder; of points and coco also a new file, .csv and .json",
    )
    add(
        "--from",
        dest="kind",
        default="auto",
        choices=("auto", "masks", "dataset", "coco", "yolo", "voc", "labelme", "points"),
        help="what the source is (default: found automatically)",
    )
    add("--split", default="all", help="split of a data set (default: %(default)s)")
    add("--layout", default="auto", help="layout of a data set (default: found automatically)")
    add(
        "--points",
        default="centroid",
        choices=("centroid", "coarse", "uniform"),
        help="where the point of a mask's target is: its centroid; a pixel drawn around it as LESPS does (coarse); any "
        "of its pixels (uniform) (default: %(default)s)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="seed of drawn points; those of an image depend only on its name (default: 0)",
    )
    add(
        "--connectivity",
        type=int,
        default=8,
        choices=(8, 4),
        help="connectivity of a mask's targets (default: %(default)s)",
    )
    add(
        "--radius",
        type=float,
        metavar="PX",
        help="--to masks: discs of this radius around the points, 0 for one pixel each (default: polygons and boxes of "
        "the source filled, one pixel for points and for targets of masks)",
    )
    add(
        "--images",
        metavar="DIR",
        help="images that YOLO, VOC or LabelMe files or a table of points annotate, to know their sizes; with --masks, "
        "the images of the data set SOURCE, in it or anywhere",
    )
    add("--masks", metavar="DIR", help="with --images: the masks of the data set SOURCE, in place of a layout")
    add(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be read, or have no annotation that fits, and name them",
    )
    add(
        "--box-convention",
        default="voc",
        choices=("voc", "sirst_v2"),
        help="convention of VOC files that are read: sirst_v2 for those of SIRST-v2 (default: %(default)s)",
    )


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    from irjax.io.files import output_file, output_folder
    from irjax.labels import convert

    one_file = {"points": ("points.csv", (".csv",)), "coco": ("labels.json", (".json",))}
    out = output_file(command.out, *one_file[command.to]) if command.to in one_file else output_folder(command.out)
    done = convert(
        command.source,
        out,
        to=command.to,
        kind=command.kind,
        radius=command.radius,
        split=command.split,
        layout=command.layout,
        points=command.points,
        seed=command.seed,
        connectivity=command.connectivity,
        images=command.images,
        masks=command.masks,
        skip_bad=command.skip_bad,
        box_convention=command.box_convention,
    )
    left_out = f", {len(done.skipped)} left out" if done.skipped else ""
    counts = f"{done.targets} targets in {done.images} images, {done.empty} without any{left_out}"
    print(f"{command.source} ({done.kind}): {counts}")
    if done.rules:
        print(f"masks made binary by: {', '.join(f'{rule} {count}' for rule, count in sorted(done.rules.items()))}")
    for note in done.notes:
        print(f"note: {note}")
    print(f"written to {out}")
