"""irjax predict: targets in image files."""

from __future__ import annotations

import argparse
import sys

import irjax
from irjax.errors import UserError

SUMMARY = "detect targets in image files"
DESCRIPTION = (
    "Detects targets in image files of any sizes (8- or 16-bit gray or colour PNG, TIFF, BMP, JPEG). Writes "
    "predictions.json (COCO keypoints), predictions.csv (name,x,y,score; pixels of the original image, centres at "
    "integers), pictures and, of methods that predict them, masks. A file that cannot be read is reported at the end "
    "and does not stop the others."
)
DEFAULT_MODEL = "spire-sirst"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add = parser.add_argument
    add("images", nargs="+", metavar="FOLDER_OR_FILE", help="image files, or folders of them")
    add(
        "--model",
        default=DEFAULT_MODEL,
        help="name of shipped weights (irjax models), run directory, .safetensors or published .pth file, or "
        "tophat, lef, aadcdd or tllcm, filters without weights (default: %(default)s)",
    )
    add("--out", default="runs/predict", metavar="DIR", help="where to write (default: %(default)s)")
    add("--threshold", type=float, help="lowest score of a detection (default: the model's own)")
    add("--size", type=int, help="side in pixels of the square that images are fitted into (default: the model's own)")
    add(
        "--native",
        action="store_true",
        help="keep the images' own resolution, and cover larger ones by overlapping squares; for models that predict "
        "masks",
    )
    add("--max-detections", type=int, metavar="N", help="most detections in an image (default: the model's own)")
    add(
        "--overlays",
        type=int,
        default=8,
        metavar="N",
        help="draw pictures of the first N images with detections (default: %(default)s)",
    )
    add("--split", metavar="NAME", help="take the images of this split of the data set whose folder is given")
    add("--recursive", action="store_true", help="take the folders below a folder, too")


def run(command: argparse.Namespace) -> None:
    """Runs it."""
    from irjax.reports.predict import find_images, predict_files, split_images
    from irjax.training.allocator import keep_freed_memory

    keep_freed_memory()
    if command.overlays < 0:
        raise UserError(f"--overlays must not be negative, got {command.overlays}")
    if command.split is None:
        files = find_images(command.images, recursive=command.recursive)
    else:
        files = split_images(command.images, command.split)
    outcome = predict_files(_detect(command), files, command.out, overlays=command.overlays)
    found = sum(map(len, outcome.predictions.values()))
    print(f"{found} detections in {len(outcome.predictions)} of {len(files)} images")
    print(
        f"written to {command.out}: {', '.join(path.name for path in outcome.files[:2])}, "
        f"{len(outcome.files) - 2} pictures" + (f", {len(outcome.masks)} masks" if outcome.masks else "")
    )
    if outcome.failures:
        for reason in outcome.failures.values():
            print(f"not read: {' '.join(reason.split())}", file=sys.stderr)
        first = next(iter(outcome.failures.values()))
        raise UserError(f"{len(outcome.failures)} of {len(files)} images could not be read; the first: {first}")


def _detect(command: argparse.Namespace):
    """The detector that a command line asks for: a list of images [H, W] to Detections."""
    import jax
    import numpy as np

    from irjax.baselines import BASELINES, detect

    options = {"size": command.size, "max_detections": command.max_detections}
    options = {name: value for name, value in options.items() if value is not None}
    if command.native:
        options |= {"enlarge": False, "slide": True}
    if command.model not in BASELINES:
        detector = irjax.load(command.model, **options)
        return lambda images: detector(images, threshold=command.threshold)
    if "size" in options or command.native:
        flag = "--native" if command.native else "--size"
        raise UserError(f"{flag}: {command.model} works at the images' own size")

    def detect_each(images):
        found = [detect(command.model, image[None], command.threshold, **options) for image in images]
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *(one.replace(masks=None) for one in found))
        return joined.replace(masks=tuple(np.asarray(one.masks[0]) for one in found))  # of any sizes

    return detect_each
