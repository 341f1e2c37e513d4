"""irjax labels: converts annotations from one format to another."""

from __future__ import annotations

import argparse

SUMMARY = "convert annotations: masks, points and boxes; COCO, YOLO, VOC, CSV"
DESCRIPTION = (
    "Converts annotations. The source is a folder of masks, a data set in a published layout, a COCO file (.json), a "
    "table of points (.csv), or a folder of YOLO (.txt) or VOC (.xml) files. All of it is read and checked before "
    "anything is written. Points are (x, y) in pixels of the image, pixel centres at integers."
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
        "masks: a PNG for each image, marking its points",
    )
    add("--out", required=True, help="new file (points: .csv, coco: .json) or new folder (the others)")
    add(
        "--from",
        dest="kind",
        default="auto",
        choices=("auto", "masks", "dataset", "coco", "yolo", "voc", "points"),
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
        default=0.0,
        metavar="PX",
        help="radius of the discs of --to masks (default: one pixel each)",
    )
    add("--images", metavar="DIR", help="images that YOLO files or a table of points annotate, to know their sizes")
    add(
        "--box-convention",
        default="voc",
        choices=("voc", "sirst_v2"),
        help="convention of VOC files that are read: sirst_v2 for those of SIRST-v2 (default: %(default)s)",
    )


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    from irjax.labels import convert

    done = convert(
        command.source,
        command.out,
        to=command.to,
        kind=command.kind,
        radius=command.radius,
        split=command.split,
        layout=command.layout,
        points=command.points,
        seed=command.seed,
        connectivity=command.connectivity,
        images=command.images,
        box_convention=command.box_convention,
    )
    print(f"{command.source} ({done.kind}): {done.targets} targets in {done.images} images, {done.empty} without any")
    if done.rules:
        print(f"masks made binary by: {', '.join(f'{rule} {count}' for rule, count in sorted(done.rules.items()))}")
    for note in done.notes:
        print(f"note: {note}")
    print(f"written to {command.out}")
