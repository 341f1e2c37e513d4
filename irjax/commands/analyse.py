"""irjax analyse: studies of parts of the methods."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Annotated, Literal, Optional

import tyro
from tyro.conf import Positional

from irjax.commands.shared import DataFlags, OutFolder, Pictures, Text, arg, protocol_names
from irjax.flags import refuse


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleLoss:
    """Draws weight, loss and gradient of every scale loss against the predicted area.

    The predictions are discs about the target's own centre and shifted ones. Lists which gradients are monotonic, and
    writes scale_loss.png, .svg, .csv (every curve) and .json (the table).

    Attributes:
      true_area: area of the target in pixels.
      shift: distance of the shifted predictions from the target's centre in pixels.
      variants: comma-separated, such as variance,diff (default: all).
      axis: axis of the areas: log from 1/16 to 8 times the true one, linear from 0 to 3.
      out: folder for the files.
    """

    true_area: float = 36.0
    shift: float = 2.0
    variants: Annotated[Optional[str], arg("NAMES")] = None
    axis: Literal["log", "linear"] = "log"
    out: OutFolder = "scale-loss"

    def run(self) -> None:
        """Draws and prints."""
        from irjax.io.files import output_folder
        from irjax.losses.scale import VARIANTS
        from irjax.studies.scale_loss_report import analyse_scale_loss

        analyse_scale_loss(
            output_folder(self.out),
            true_area=self.true_area,
            shift=self.shift,
            variants=VARIANTS if self.variants is None else protocol_names(self.variants),
            axis=self.axis,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OnData:
    """What runs a model over a data set and draws some of its images.

    Attributes:
      folder: folder of the data set.
      model: name of shipped weights, run directory or .safetensors file.
      number: images to draw, spread evenly.
    """

    folder: Annotated[Positional[str], arg("DATA")]
    model: str
    number: Pictures = 8
    data: DataFlags = DataFlags()

    def _draw(self, report: Callable[..., object], out: pathlib.Path, split: str | None) -> None:
        report(out, self.model, self.folder, split=split, number=self.number, **self.data.opening)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches(_OnData):
    """Draws images of a data set, the patches that a network with dropped patches keeps, and what it predicts.

    Prints how many target pixels lie in kept patches at each stage. With --as-trained it also measures what an ADSNet
    finds with the masks that training draws instead of prediction's.

    Attributes:
      split: split of the data set (default: all of it).
      out: folder for the pictures.
      as_trained: also measure with masks as in training, without noise and with the noise of this many seeds, and with
        all patches kept (masks.json); --number 0 draws nothing.
    """

    split: Text = None
    out: OutFolder = "patches"
    as_trained: Annotated[Optional[int], arg("SEEDS")] = None

    def run(self) -> None:
        """Draws, measures and prints."""
        from irjax.io.files import output_folder, whole_folder
        from irjax.studies.patches import compare_masks, draw_kept_patches

        with whole_folder(output_folder(self.out), "irjax analyse patches") as out:
            if self.number or self.as_trained is None:
                self._draw(draw_kept_patches, out, self.split)
            if self.as_trained is not None:
                opening = {"split": self.split, **self.data.opening}
                compare_masks(out, self.model, self.folder, seeds=self.as_trained, **opening)
        print(f"written to {self.out}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relevance(_OnData):
    """Measures how many patches with targets the K most relevant ones hold, for every K.

    Draws the selected patches, the relevance of all, and the features of native branch and backbone. Writes
    selection.png, .json and a picture for each image.

    Attributes:
      split: split of the data set.
      out: folder for the pictures.
    """

    split: str = "val"
    out: OutFolder = "relevance"

    def run(self) -> None:
        """Measures, draws and prints."""
        from irjax.io.files import output_folder, whole_folder
        from irjax.studies.relevance import analyse_relevance

        with whole_folder(output_folder(self.out), "irjax analyse relevance") as out:
            self._draw(analyse_relevance, out, self.split)
        print(f"written to {self.out}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roc:
    """Draws what several `irjax evaluate --out` wrote to roc.csv in one picture.

    Attributes:
      evaluations: a label and the folder with roc.csv.
      level: level of the curves.
      out: picture, .png, .svg or .pdf, or folder for roc.png.
    """

    evaluations: Annotated[Positional[tuple[str, ...]], arg("LABEL=DIR ...")]
    level: Literal["pixel", "target"] = "pixel"
    out: Annotated[str, tyro.conf.arg(metavar="FILE_OR_DIR")] = "roc.png"

    def run(self) -> None:
        """Draws, and prints the detection rates."""
        if not self.evaluations:
            refuse("Missing from irjax analyse roc: LABEL=DIR", "irjax analyse roc")
        from irjax.studies.roc import draw_rocs

        draw_rocs(self.out, self.evaluations, self.level)
