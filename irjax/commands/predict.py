"""irjax predict: detects targets in image files."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING, Annotated, Any, Optional, Union

from tyro.conf import Positional

import irjax
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

if TYPE_CHECKING:
    from irjax.detector.canvases import CanvasDetector
    from irjax.detector.limits import Limits

DEFAULT_LIMIT = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Detects targets in image files of any sizes and kinds (docs/formats.md), and in videos.

    Writes predictions.json (COCO keypoints), predictions.csv (name,x,y,score; pixels of the original image, centres at
    integers; of frames also sequence,frame), pictures, annotated videos and, of methods that predict them, masks. A
    file that cannot be read is reported at the end and does not stop the others.

    Attributes:
      paths: image files, or folders of them.
      model: name of shipped weights (irjax models), run directory, .safetensors file, another program's PyTorch
        checkpoint (docs/checkpoints.md), .onnx file of irjax export, or tophat, lef, aadcdd or tllcm, filters
        without weights.
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
        from irjax.detector.programs import keep_programs
        from irjax.evaluation.truths import split_images
        from irjax.io.files import output_folder
        from irjax.training.allocator import keep_freed_memory

        keep_freed_memory()
        if not self.no_cache:
            keep_programs()
        out, depth = output_folder(self.out), self.depth.depth
        overrides = self.network.overrides
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
        detect, threshold = self._detector(overrides)
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

    @property
    def _exported(self) -> bool:
        """Whether the model is a file of irjax export --to onnx."""
        return pathlib.Path(self.model).suffix == ".onnx"

    def _loaded(self, overrides: dict[str, Any]) -> CanvasDetector:
        """Returns the detector of weights, or of an exported file."""
        if self._exported:
            from irjax.detector.onnx import load_onnx

            return load_onnx(self.model, self.runtime or "onnxruntime", **overrides)
        return irjax.load(self.model, **overrides)

    def _detector(self, overrides: dict[str, Any]) -> tuple[Limits, float]:
        """Returns the requested detector, from a list of images [H, W] to Detections, and the threshold of masks."""
        import jax
        import numpy as np

        from irjax.baselines import BASELINES, detect
        from irjax.detector.inference import cell_of
        from irjax.detector.limits import Limits

        if self.runtime and not self._exported:
            raise UsageError(f"--runtime goes with a file of irjax export --to onnx, not with {self.model}")
        limits: dict = {"limit": self.max_detections or DEFAULT_LIMIT, "fixed": self.max_detections is not None}
        if self.model not in BASELINES:
            detector = self._loaded({"max_detections": limits["limit"], **overrides})
            config = detector.config
            threshold = config.threshold if self.threshold is None else self.threshold

            def run(images, limit):
                return detector(images, threshold=threshold, max_detections=limit)

            cells = (config.size // cell_of(config)) ** 2
            return Limits(run, **limits, most=cells, side=0 if config.slide else config.size), threshold
        if self.network.size or self.network.native:
            flag = "--native" if self.network.native else "--size"
            raise UsageError(f"{flag}: {self.model} works at the images' own size")

        def detect_each(images, limit):
            found = [
                detect(self.model, image[None], self.threshold, max_detections=min(limit, image.size))
                for image in images
            ]
            number = max(one.valid.shape[1] for one in found)
            wide = lambda x: np.pad(x, [(0, 0), (0, number - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])  # noqa: E731
            joined = jax.tree.map(lambda *parts: np.concatenate([wide(np.asarray(x)) for x in parts]),
                                  *(one.replace(masks=None) for one in found))  # fmt: skip
            return joined.replace(masks=tuple(np.asarray(one.masks[0]) for one in found))  # of any sizes

        # 0.5 is the threshold of `irjax.baselines.common.as_probability`, whatever the threshold of responses
        return Limits(detect_each, **limits), 0.5
