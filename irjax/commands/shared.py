"""What commands share: kinds of flags, and groups of flags that are declared once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, Union

import tyro

from irjax.errors import UsageError

if TYPE_CHECKING:
    from irjax.io.images import Depth

# Groups of flags have no prefix, a switch is given or not, and help is in docstrings alone.
MARKERS = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)


def arg(metavar: str | None = None, **options: Any) -> Any:
    """Describes a flag whose default goes without saying; `metavar` stands for its value in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="", **options)


Switch = Annotated[bool, arg()]
Text = Annotated[Optional[str], arg("NAME")]
Number = Annotated[Optional[float], arg()]
Count = Annotated[Optional[int], arg("N")]
Pixels = Annotated[Optional[int], arg("PX")]
Folder = Annotated[Optional[str], arg("DIR")]
File = Annotated[Optional[str], arg("FILE")]
OutFolder = Annotated[str, tyro.conf.arg(metavar="DIR")]
Pictures = Annotated[int, tyro.conf.arg(metavar="N")]
Width = Annotated[int, tyro.conf.arg(metavar="PX")]
Runtime = Literal["onnxruntime", "openvino"]  # as irjax.detector.onnx, whose import takes longer than all the rest
MethodName = Annotated[Optional[str], arg("NAME|MODULE:ATTRIBUTE")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthFlags:
    """Which stored values of images are black and white; at most one of the three (docs/formats.md).

    Attributes:
      bits: white of files of 16 bits is 2^N - 1 (default: 65535; of a data set, what its highest value tells).
      range: black and white, as stored.
      stretch: black and white of each image by itself: its 0.1th and 99.99th percentile, or its extremes.
    """

    bits: Annotated[int, arg("N")] = 0
    range: Annotated[Union[None, tuple[float, float]], arg("LOW HIGH")] = None
    stretch: Annotated[Optional[Literal["percentile", "minmax"]], arg()] = None

    @property
    def depth(self) -> Depth:
        """What the flags say."""
        from irjax.io.images import Depth

        return Depth(self.bits, self.range or (), self.stretch or "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFlags(DepthFlags):
    """How the data set is read (docs/data.md), and which stored values of its images are black and white.

    Attributes:
      layout: layout of the folder (default: found automatically).
      images: folder of its images, in place of a layout; goes with --masks.
      masks: folder of its masks.
    """

    layout: Annotated[str, arg("NAME")] = "auto"
    images: Folder = None
    masks: Folder = None

    @property
    def opening(self) -> dict[str, Any]:
        """The flags as arguments of `irjax.data.open_source`."""
        return {"layout": self.layout, "images": self.images, "masks": self.masks, "depth": self.depth}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """How a model's network is run.

    Attributes:
      method: the method which the model belongs to, if it is your own (docs/own-method.md) or a checkpoint's keys
        cannot tell.
      size: side of the square that images are fitted into (default: the model's own).
      native: keep the images' own resolution and cover larger images by overlapping squares.
    """

    method: MethodName = None
    size: Pixels = None
    native: Switch = False

    @property
    def overrides(self) -> dict[str, Any]:
        """The flags as overrides of `irjax.load`."""
        overrides: dict[str, Any] = {}
        if self.method:
            from irjax.methods.registry import register_from

            overrides["method"] = register_from(self.method).name
        if self.size is not None:
            if self.size < 1:
                raise UsageError(f"--size must be at least 1, got {self.size}")
            overrides["size"] = self.size
        if self.native:
            overrides |= {"enlarge": False, "slide": True}
        return overrides


def protocol_names(text: str | None) -> list[str]:
    """Returns the names in a comma-separated list; empty for None."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
