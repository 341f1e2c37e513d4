"""irjax predict: detects targets in image files."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

import irjax
from irjax.errors import UsageError, UserError

if TYPE_CHECKING:
    from irjax.detector.limits import Limits
    from irjax.io.images import Depth

SUMMARY = "detect targets in image files"
DESCRIPTION = (
    "Detects targets in image files of any sizes (8- or 16-bit gray or colour PNG, TIFF, BMP, JPEG), and in videos. "
    "Writes predictions.json (COCO keypoints), predictions.csv (name,x,y,score; pixels of the original image, centres "
    "at integers; of frames also sequence,frame), pictures, annotated videos and, of methods that predict them, masks. "
    "A file that cannot be read is reported at the end "
    "and does not stop the others."
)
DEFAULT_MODEL = "spire-sirst"
DEFAULT_LIMIT = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add = parser.add_argument
    add("images", nargs="+", metavar="FOLDER_OR_FILE", help="image files, or folders of them")
    add(
        "--model",
        default=DEFAULT_MODEL,
        help="name of shipped weights (irjax models), run directory, .safetensors file, another program's PyTorch "
        "checkpoint (docs/checkpoints.md), or tophat, lef, aadcdd or tllcm, filters without weights (default: "
        "%(default)s)",
    )
    add(
        "--method",
        metavar="NAME|MODULE:ATTRIBUTE",
        help="the method which the model belongs to, if it is your own (docs/own-method.md) or a checkpoint's keys "
        "cannot tell",
    )
    add("--out", default="runs/predict", metavar="DIR", help="output folder (default: %(default)s)")
    add("--threshold", type=float, help="lowest score of a detection (default: the model's own)")
    add("--size", type=int, help="side in pixels of the square that images are fitted into (default: the model's own)")
    add(
        "--native",
        action="store_true",
        help="keep the images' own resolution and cover larger images by overlapping squares",
    )
    add("--max-detections", type=int, metavar="N", help="most detections in an image (default: as many as there are)")
    add(
        "--overlays",
        type=int,
        default=8,
        metavar="N",
        help="draw pictures of the first N images with detections (default: %(default)s)",
    )
    add("--split", metavar="NAME", help="take the images of this split of the data set whose folder is given")
    add("--recursive", action="store_true", help="also take images in the folders below a folder")
    add("--frames", action="store_true", help="the images of each folder are frames of one sequence, however called")
    add("--key", metavar="NAME", help="variable in .mat files (default: the only array)")
    add_depth(parser)


def add_depth(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that say which stored values of images are black and white."""
    add = parser.add_argument
    add("--bits", type=int, default=0, metavar="N", help="white of 16-bit files is 2^N - 1 (default: 65535)")
    add("--range", type=float, nargs=2, default=(), metavar=("LOW", "HIGH"), help="black and white, as stored")
    add(
        "--stretch",
        choices=("percentile", "minmax"),
        default="",
        help="black and white of each image by itself: its 0.1th and 99.99th percentile, or its extremes",
    )


def depth_of(command: argparse.Namespace) -> Depth:
    """Returns the depth that the arguments of `add_depth` say."""
    from irjax.io.images import Depth

    return Depth(command.bits, tuple(command.range), command.stretch)


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    from irjax.detector.files import find_images, predict_files
    from irjax.evaluation.truths import split_images
    from irjax.io.files import output_folder
    from irjax.training.allocator import keep_freed_memory

    keep_freed_memory()
    out, depth = output_folder(command.out), depth_of(command)
    method = {}
    if command.method:
        from irjax.methods.registry import register_from

        method = {"method": register_from(command.method).name}
    for flag, least in (("overlays", 0), ("size", 1), ("max_detections", 1)):
        value = getattr(command, flag)
        if value is not None and value < least:
            raise UsageError(f"--{flag.replace('_', '-')} must be at least {least}, got {value}")
    if command.split is None:
        files = find_images(command.images, recursive=command.recursive, key=command.key)
    elif len(command.images) == 1:
        files, depth = split_images(command.images[0], command.split, depth=depth)
    else:
        raise UsageError(f"--split goes with one data set, got {len(command.images)} paths")
    detect, threshold = _detect(command, method)
    options = {"overlays": command.overlays, "threshold": threshold, "depth": depth, "frames": command.frames}
    outcome = predict_files(detect, files, out, **options)
    detect.tell()
    found = sum(map(len, outcome.predictions.values()))
    print(f"{found} detections in {len(outcome.predictions)} of {len(files)} images")
    videos = sum(path.suffix == ".mp4" for path in outcome.files)
    masks = f", {len(outcome.masks)} masks (targets: p > {threshold:g})" if outcome.masks else ""
    print(
        f"written to {command.out}: {', '.join(path.name for path in outcome.files[:2])}, "
        f"{len(outcome.files) - 2 - videos} pictures{f', {videos} videos' if videos else ''}{masks}"
    )
    if outcome.failures:
        for reason in outcome.failures.values():
            print(f"not read: {' '.join(reason.split())}", file=sys.stderr)
        first = next(iter(outcome.failures.values()))
        raise UserError(f"{len(outcome.failures)} of {len(files)} images could not be read; the first: {first}")


def _detect(command: argparse.Namespace, method: dict[str, str]) -> tuple[Limits, float]:
    """Returns the requested detector, from a list of images [H, W] to Detections, and the threshold of masks."""
    import jax
    import numpy as np

    from irjax.baselines import BASELINES, detect
    from irjax.detector.limits import Limits

    limits: dict = {"limit": command.max_detections or DEFAULT_LIMIT, "fixed": command.max_detections is not None}
    options = {"size": command.size} if command.size else {}
    if command.native:
        options |= {"enlarge": False, "slide": True}
    if command.model not in BASELINES:
        detector = irjax.load(command.model, max_detections=limits["limit"], **options, **method)
        config = detector.config
        threshold = config.threshold if command.threshold is None else command.threshold

        def run(images, limit):
            limited = dataclasses.replace(detector, config=dataclasses.replace(config, max_detections=limit))
            return (detector if limit == config.max_detections else limited)(images, threshold=threshold)

        cells = (config.size // getattr(detector.module, "stride", 1)) ** 2
        return Limits(run, **limits, most=cells, side=0 if config.slide else config.size), threshold
    if options:
        flag = "--native" if command.native else "--size"
        raise UsageError(f"{flag}: {command.model} works at the images' own size")

    def detect_each(images, limit):
        found = [
            detect(command.model, image[None], command.threshold, max_detections=min(limit, image.size))
            for image in images
        ]
        number = max(one.valid.shape[1] for one in found)
        wide = lambda x: np.pad(x, [(0, 0), (0, number - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])  # noqa: E731
        joined = jax.tree.map(lambda *parts: np.concatenate([wide(np.asarray(x)) for x in parts]),
                              *(one.replace(masks=None) for one in found))  # fmt: skip
        return joined.replace(masks=tuple(np.asarray(one.masks[0]) for one in found))  # of any sizes

    # 0.5 is the threshold of `irjax.baselines.common.as_probability`, whatever the threshold of responses
    return Limits(detect_each, **limits), 0.5
