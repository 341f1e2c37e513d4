"""irjax predict: detects targets in image files."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Optional, Union

from tyro.conf import Positional

from irjax.commands.shared import (
    Count,
    DepthFlags,
    NetworkFlags,
    Number,
    OutFolder,
    Pictures,
    Runtime,
    Switch,
    Text,
    arg,
)
from irjax.errors import UsageError, UserError
from irjax.flags import refuse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Detects targets in image files of any sizes and kinds (docs/formats.md), and in videos.

    Writes predictions.json (COCO keypoints), predictions.csv (name,x,y,score; pixels of the original image, centres at
    integers; of frames also sequence,frame), pictures, annotated videos and, of methods that predict them, masks. A
    file that cannot be read is reported at the end and does not stop the others.

    Attributes:
      paths: image files, or folders of them.
      model: name of shipped weights (irjax models), run directory, .safetensors file, hf:OWNER/NAME or another
        program's PyTorch checkpoint (docs/checkpoints.md), .onnx file of irjax export, or tophat, lef, aadcdd or
        tllcm, filters without weights.
      out: output folder.
      threshold: lowest score of a detection (default: the model's own).
      max_detections: most detections in an image (default: as many as there are).
      overlays: draw pictures of the first N images with detections.
      split: take the images of this split of the data set whose folder is given.
      recursive: also take images in the folders below a folder.
      frames: the images of each folder are frames of one sequence, however called.
      key: variable in .mat files (default: the only array).
      no_cache: compile anew, and keep no compiled programs for the next call (docs/jax.md).
      runtime: what runs an exported network, docs/export.md (default: onnxruntime).
    """

    paths: Annotated[Positional[Union[None, tuple[str, ...]]], arg("FOLDER_OR_FILE ...")] = None
    model: str = "spire-sirst"
    out: OutFolder = "runs/predict"
    threshold: Number = None
    max_detections: Count = None
    overlays: Pictures = 8
    split: Text = None
    recursive: Switch = False
    frames: Switch = False
    key: Text = None
    no_cache: Switch = False
    runtime: Annotated[Optional[Runtime], arg()] = None
    network: NetworkFlags = NetworkFlags()
    depth: DepthFlags = DepthFlags()

    def run(self) -> None:
        """Detects, writes, and prints how many detections there are and what could not be read."""
        if not self.paths:
            refuse("Missing from irjax predict: FOLDER_OR_FILE", "irjax predict")
        from irjax.detector.files import find_images, predict_files
        from irjax.detector.named import open_named
        from irjax.detector.programs import keep_programs
        from irjax.evaluation.truths import split_images
        from irjax.io.files import output_folder
        from irjax.training.allocator import keep_freed_memory

        keep_freed_memory()
        if not self.no_cache:
            keep_programs()
        out, depth, overrides = output_folder(self.out), self.depth.depth, self.network.overrides
        for flag, least in (("overlays", 0), ("max_detections", 1)):
            value = getattr(self, flag)
            if value is not None and value < least:
                raise UsageError(f"--{flag.replace('_', '-')} must be at least {least}, got {value}")
        if self.split is None:
            files = find_images(self.paths, recursive=self.recursive, key=self.key)
        elif len(self.paths) > 1:
            raise UsageError(f"--split goes with one data set, got {len(self.paths)} paths")
        elif self.recursive or self.key:
            raise UsageError(f"--{'recursive' if self.recursive else 'key'} goes with files, --split with a data set")
        else:
            files, depth = split_images(self.paths[0], self.split, depth=depth)
        model = open_named(self.model, threshold=self.threshold, runtime=self.runtime, **overrides)
        detect, threshold = model.within(self.max_detections), model.threshold
        outcome = predict_files(
            detect, files, out, overlays=self.overlays, threshold=threshold, depth=depth, frames=self.frames
        )
        detect.tell()
        found = sum(map(len, outcome.predictions.values()))
        print(f"{found} detections in {len(outcome.predictions)} of {len(files)} images")
        videos = sum(path.suffix == ".mp4" for path in outcome.files)
        masks = f", {len(outcome.masks)} masks (targets: p > {threshold:g})" if outcome.masks else ""
        print(
            f"written to {self.out}: {', '.join(path.name for path in outcome.files[:2])}, "
            f"{len(outcome.files) - 2 - videos} pictures{f', {videos} videos' if videos else ''}{masks}"
        )
        if outcome.failures:
            for reason in outcome.failures.values():
                print(f"not read: {' '.join(reason.split())}", file=sys.stderr)
            first = next(iter(outcome.failures.values()))
            raise UserError(f"{len(outcome.failures)} of {len(files)} images could not be read; the first: {first}")
