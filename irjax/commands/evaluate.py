"""irjax evaluate: scores of a prediction file of any program."""

from __future__ import annotations

import argparse

SUMMARY = "score a prediction file of any program"
DESCRIPTION = (
    "Scores a COCO-keypoint prediction file, of irjax or of any other program, against annotated images: "
    "precision, recall, F1 and false alarms with bootstrap intervals, a threshold sweep, curves, the worst images."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--predictions", required=True, metavar="FILE", help="COCO keypoints as JSON")
    parser.add_argument("--truth", required=True, metavar="DIR", help="data set, in a published layout or prepared")
    parser.add_argument("--split", default="all", help="split of the data set (default: %(default)s)")
    parser.add_argument("--layout", default="auto", help="layout of the folder (default: found automatically)")
    parser.add_argument("--threshold", type=float, help="drop detections with a lower score (default: keep all)")
    parser.add_argument("--out", metavar="DIR", help="write the report there (default: only print the table)")
    parser.add_argument(
        "--overlays", type=int, default=8, metavar="N", help="pictures of the N worst images (default: %(default)s)"
    )
    parser.add_argument("--protocol", default="centroid", help="one that takes points (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--allow-missing", action="store_true", help="accept names that are on one side only")


def run(command: argparse.Namespace) -> None:
    """Runs it."""
    from irjax.data import open_source
    from irjax.reports.evaluate import evaluate_points

    evaluate_points(
        command.predictions,
        open_source(command.truth, command.split, command.layout),
        threshold=command.threshold,
        protocol=command.protocol,
        out_dir=command.out,
        overlays=command.overlays,
        allow_missing=command.allow_missing,
        seed=command.seed,
    )
