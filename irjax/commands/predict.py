"""irjax predict: detects targets in image files."""

from __future__ import annotations

import argparse
import sys

import irjax
from irjax.errors import UsageError, UserError

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
    add("--method", metavar="MODULE:ATTRIBUTE", help="your own method, which the model belongs to (docs/own-method.md)")
    add("--out", default="runs/predict", metavar="DIR", help="output folder (default: %(default)s)")
    add("--threshold", type=float, help="lowest score of a detection (default: the model's own)")
    add("--size", type=int, help="side in pixels of the square that images are fitted into (default: the model's own)")
    add(
        "--native",
        action="store_true",
        help="keep the images' own resolution and cover larger images by overlapping squares; for models that predict "
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
    add("--recursive", action="store_true", help="also take images in the folders below a folder")


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    from irjax.detector.files import find_images, predict_files
    from irjax.evaluation.truths import split_images
    from irjax.training.allocator import keep_freed_memory

    keep_freed_memory()
    if command.method:
        from irjax.methods.registry import register_from

        register_from(command.method)
    for flag, least in (("overlays", 0), ("size", 1), ("max_detections", 1)):
        value = getattr(command, flag)
        if value is not None and value < least:
            raise UsageError(f"--{flag.replace('_', '-')} must be at least {least}, got {value}")
    if command.split is None:
        files = find_images(command.images, recursive=command.recursive)
    elif len(command.images) == 1:
        files = find_images(split_images(command.images[0], command.split))
    else:
        raise UsageError(f"--split goes with one data set, got {len(command.images)} paths")
    detect, threshold = _detect(command)
    outcome = predict_files(detect, files, command.out, overlays=command.overlays, threshold=threshold)
    found = sum(map(len, outcome.predictions.values()))
    print(f"{found} detections in {len(outcome.predictions)} of {len(files)} images")
    masks = f", {len(outcome.masks)} masks (targets: p > {threshold:g})" if outcome.masks else ""
    print(
        f"written to {command.out}: {', '.join(path.name for path in outcome.files[:2])}, "
        f"{len(outcome.files) - 2} pictures{masks}"
    )
    if outcome.failures:
        for reason in outcome.failures.values():
            print(f"not read: {' '.join(reason.split())}", file=sys.stderr)
        first = next(iter(outcome.failures.values()))
        raise UserError(f"{len(outcome.failures)} of {len(files)} images could not be read; the first: {first}")


def _detect(command: argparse.Namespace):
    """Returns the requested detector, from a list of images [H, W] to Detections, and the threshold of masks."""
    import jax
    import numpy as np

    from irjax.baselines import BASELINES, detect

    options = {"size": command.size, "max_detections": command.max_detections}
    options = {name: value for name, value in options.items() if value is not None}
    if command.native:
        options |= {"enlarge": False, "slide": True}
    if command.model not in BASELINES:
        detector = irjax.load(command.model, **options)
        threshold = detector.config.threshold if command.threshold is None else command.threshold
        return lambda images: detector(images, threshold=threshold), threshold
    if "size" in options or command.native:
        flag = "--native" if command.native else "--size"
        raise UsageError(f"{flag}: {command.model} works at the images' own size")

    def detect_each(images):
        found = [detect(command.model, image[None], command.threshold, **options) for image in images]
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *(one.replace(masks=None) for one in found))
        return joined.replace(masks=tuple(np.asarray(one.masks[0]) for one in found))  # of any sizes

    return detect_each, 0.5  # threshold of `irjax.baselines.common.as_probability`, whatever the threshold of responses
