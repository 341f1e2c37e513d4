"""irjax evaluate: scores the predictions of any program."""

from __future__ import annotations

import argparse

SUMMARY = "score the predictions of any program"
DESCRIPTION = (
    "Scores predictions, of irjax or of any other program, against annotated images under any number of protocols: "
    "one table with bootstrap intervals, and the known errors of each published protocol. Predictions are a "
    "folder of maps (PNG, TIFF, BMP, JPEG, WebP, NPY, NPZ, MAT), one array of maps, COCO keypoints or boxes as JSON, a "
    "CSV file name,x,y,score, or a folder of YOLO files with confidence; names are matched with or without folder, "
    "ending and suffix (_pixels0, _mask, _gt). Nothing is written if anything cannot be read."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add = parser.add_argument
    add(
        "--predictions",
        required=True,
        metavar="DIR_OR_FILE",
        help="folder or array of maps, or points: .json, .csv, YOLO",
    )
    add_truth(parser)
    add_scoring(parser)
    add("--protocol", metavar="NAME[,NAME...]", help="columns of the table (default: irjax for maps, else centroid)")
    add("--out", metavar="DIR", help="write tables, curves and pictures there (default: only print the table)")
    add("--html", metavar="FILE", help="write one HTML page with everything, which opens offline")
    add("--overlays", type=int, default=8, metavar="N", help="pictures of the N worst images (default: %(default)s)")
    add("--intervals", action="store_true", help="print bootstrap intervals of every protocol, not only of the first")


def add_truth(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that locate the truth."""
    add = parser.add_argument
    add("--truth", required=True, metavar="DIR", help="folder of masks, or data set, in a published layout or prepared")
    add("--split", help="split of the data set (default: all)")
    add("--layout", default="auto", help="layout of the folder (default: found automatically)")
    add_folders(parser)
    add("--skip-bad", action="store_true", help="leave out images that cannot be used, and name them")


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Declares the two folders that take the place of a data set's layout."""
    parser.add_argument("--images", metavar="DIR", help="folder of its images, in place of a layout; goes with --masks")
    parser.add_argument("--masks", metavar="DIR", help="folder of its masks")


def truth_options(command: argparse.Namespace) -> dict:
    """Returns the arguments of `add_truth`, but for --truth, by the names that the functions have."""
    return {name: getattr(command, name) for name in ("split", "layout", "images", "masks", "skip_bad")}


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that control how predictions are read and scored."""
    add = parser.add_argument
    add(
        "--threshold",
        type=float,
        help="threshold of maps (p > threshold) or points (score >= threshold); default: the protocol's",
    )
    add(
        "--threshold-rule",
        metavar="adaptive:K",
        help="threshold of each map: its mean + K standard deviations, as classical programs set it",
    )
    add("--logits", action="store_true", help="float maps are logits")
    add(
        "--scale",
        choices=("max", "minmax", "255"),
        help="maps are raw responses: each is divided by its maximum, stretched from its minimum to its maximum, or "
        "divided by 255",
    )
    add("--key", help="array in .npz files (default: the only one) or variable in .mat files (default: T)")
    add(
        "--names",
        metavar="FILE",
        help="names of the maps of one array [N, H, W], one a line; or the COCO file with the images that a list of "
        "results has the ids of",
    )
    add("--resize", action="store_true", help="scale maps of another size, but the same aspect, to the truth's")
    add(
        "--crop",
        choices=("corner", "centre"),
        help="maps are padded: take the image from their top left corner or centre",
    )
    add(
        "--canvas", choices=("pad", "resize"), help="how protocols that resize do it (default: as the protocol defines)"
    )
    add(
        "--canvas-size",
        type=int,
        metavar="PX",
        help="side of their square in pixels (default: as the protocol defines)",
    )
    add("--allow-missing", action="store_true", help="accept names that are on one side only")
    add(
        "--processes",
        type=int,
        metavar="N",
        help="processes that read and score (default: all processors, for many maps)",
    )
    add("--seed", type=int, default=0, help="seed of the bootstrap (default: %(default)s)")


def scoring_options(command: argparse.Namespace) -> dict:
    """Returns the arguments of `add_scoring` as options of `irjax.evaluation.evaluate.Options`."""
    names = (
        *("threshold", "threshold_rule", "scale", "names", "resize", "crop", "canvas", "canvas_size", "allow_missing"),
        *("processes", "seed"),
    )
    return {name: getattr(command, name) for name in names}


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    from irjax.evaluation.evaluate import Options, evaluate_files
    from irjax.io.files import output_folder

    evaluate_files(
        command.predictions,
        command.truth,
        **truth_options(command),
        key=command.key,
        logits=command.logits,
        options=Options(
            protocols=protocol_names(command.protocol),
            out_dir=command.out and output_folder(command.out),
            html=command.html,
            overlays=command.overlays,
            all_intervals=command.intervals,
            **scoring_options(command),
        ),
    )


def protocol_names(text: str | None) -> list[str]:
    """Returns the names in a comma-separated list; empty for None."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
