"""irjax evaluate: scores the predictions of any program."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, Optional

from irjax.commands.shared import (
    Count,
    DataFlags,
    File,
    Folder,
    Number,
    Pictures,
    Pixels,
    Switch,
    Text,
    Width,
    arg,
    protocol_names,
)

_READING = ("split", "skip_bad", "key", "logits")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringFlags:
    """What predictions are scored against, and how they are read and scored.

    Attributes:
      truth: folder of masks, or data set, in a published layout or prepared.
      split: split of the data set (default: all).
      skip_bad: leave out images that cannot be used, and name them.
      threshold: threshold of maps (p > threshold) or points (score >= threshold); default: the protocol's.
      threshold_rule: threshold of each map: its mean + K standard deviations, as classical programs set it.
      logits: float maps are logits.
      scale: maps are raw responses: each is divided by its maximum, stretched from its minimum to its maximum, or
        divided by 255.
      key: array in .npz files (default: the only one) or variable in .mat files (default: T, else the only array).
      names: names of the maps of one array [N, H, W], one a line; or the COCO file with the images that a list of
        results has the ids of.
      resize: scale maps of another size, but the same aspect, to the truth's.
      crop: maps are padded: take the image from their top left corner or centre.
      canvas: how protocols that resize do it (default: as the protocol defines).
      canvas_size: side of their square (default: as the protocol defines).
      allow_missing: accept names that are on one side only.
      processes: processes that read and score (default: all processors, for many maps).
      seed: seed of the bootstrap.
    """

    truth: Annotated[str, arg("DIR")]
    split: Text = None
    skip_bad: Switch = False
    threshold: Number = None
    threshold_rule: Annotated[Optional[str], arg("adaptive:K")] = None
    logits: Switch = False
    scale: Annotated[Optional[Literal["max", "minmax", "255"]], arg()] = None
    key: Text = None
    names: File = None
    resize: Switch = False
    crop: Annotated[Optional[Literal["corner", "centre"]], arg()] = None
    canvas: Annotated[Optional[Literal["pad", "resize"]], arg()] = None
    canvas_size: Pixels = None
    allow_missing: Switch = False
    processes: Count = None
    seed: int = 0

    @property
    def reading(self) -> dict[str, Any]:
        """The flags on reading as arguments of `irjax.evaluation.evaluate.evaluate_files`."""
        return {name: getattr(self, name) for name in _READING}

    @property
    def options(self) -> dict[str, Any]:
        """The others as options of `irjax.evaluation.evaluate.Options`."""
        return {name: value for name, value in vars(self).items() if name not in ("truth", *_READING)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Scores predictions, of irjax or of any other program, against annotated images under any number of protocols.

    Prints one table with bootstrap intervals, and the known errors of each published protocol. Predictions are a
    folder of maps (PNG, TIFF, BMP, JPEG, WebP, NPY, NPZ, MAT), one array of maps, COCO keypoints or boxes as JSON, a
    CSV file name,x,y,score, or a folder of YOLO files with confidence; names are matched with or without folder,
    ending and suffix (_pixels0, _mask, _gt). Nothing is written if anything cannot be read.

    Attributes:
      predictions: folder or array of maps, or points: .json, .csv, YOLO.
      protocol: columns of the table (default: irjax for maps, else centroid).
      out: write tables, curves and pictures there (default: only print the table).
      html: write one HTML page with everything, which opens offline.
      overlays: pictures of the N worst images.
      clutter_margin: width of the background around a target in signal-to-clutter ratios.
      intervals: print bootstrap intervals of every protocol, not only of the first.
    """

    predictions: Annotated[str, arg("DIR_OR_FILE")]
    protocol: Annotated[Optional[str], arg("NAME[,NAME...]")] = None
    out: Folder = None
    html: File = None
    overlays: Pictures = 8
    clutter_margin: Width = 20
    intervals: Switch = False
    scoring: ScoringFlags
    data: DataFlags = DataFlags()

    def run(self) -> None:
        """Scores, prints and writes."""
        from irjax.evaluation.evaluate import Options, evaluate_files
        from irjax.io.files import output_folder

        evaluate_files(
            self.predictions,
            self.scoring.truth,
            **self.scoring.reading,
            **self.data.opening,
            options=Options(
                protocols=protocol_names(self.protocol),
                out_dir=self.out and output_folder(self.out),
                html=self.html,
                overlays=self.overlays,
                clutter_margin=self.clutter_margin,
                all_intervals=self.intervals,
                **self.scoring.options,
            ),
        )
