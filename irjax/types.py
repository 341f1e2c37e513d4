"""The structs that irjax's parts exchange, with their shapes and units.

Letters used in every docstring: B images in a batch, H and W rows and columns of an image, S the side of the
letterboxed square, K padded truth points, N padded detections, s the stride of a heatmap. Points are (x, y) in
pixels, x to the right, y down, with pixel centres at integers.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import flax.struct
import numpy as np

Array = Any  # a numpy or JAX array; the docstring gives shape and dtype


@dataclasses.dataclass(frozen=True)
class Example:
    """One annotated image on the host, as published (not resized).

    Attributes:
      name: the file name without extension; unique within its data set.
      image: [H, W] uint8 or uint16.
      points: [K, 2] float32, target centroids (x, y) in pixels; K may be 0.
      mask: [H, W] bool, True on target pixels, or None where the data set has only points.
    """

    name: str
    image: np.ndarray
    points: np.ndarray
    mask: np.ndarray | None = None


@runtime_checkable
class Source(Protocol):
    """Random access to examples: the common interface of layouts, prepared TFDS data sets and synthetic scenes."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all examples, in order, without reading any image."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss, uint8 or uint16, without decoding any image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@flax.struct.dataclass
class Batch:
    """Letterboxed examples, ready for the jitted step.

    Attributes:
      images: [B, S, S] uint8, uint16 or float32 in [0, 1].
      points: [B, K, 2] float32, (x, y) in letterboxed pixels; padding rows are zero.
      valid: [B, K] bool, True where a row of `points` is a target.
      index: [B] int32, the global number of this draw in the run: augmentation keys are folded from it, so that they
        do not depend on how the batch is distributed over devices.
      mask: [B, S, S] bool target masks, or None where the method needs only points.
      extent: [B, 4] int32, (left, top, right, bottom): the first and last column and row with image content, inclusive;
        the rest is the letterbox's margin. None: there is no margin.
    """

    images: Array
    points: Array
    valid: Array
    index: Array
    mask: Array | None = None
    extent: Array | None = None


@flax.struct.dataclass
class Detections:
    """Decoded targets, padded to a fixed number and sorted by descending score.

    Attributes:
      points: [B, N, 2] float32, (x, y) in pixels.
      scores: [B, N] float32.
      valid: [B, N] bool; rows where it is False hold zeros.
      masks: [B, H, W] target probabilities, or None for methods that predict points only.
    """

    points: Array
    scores: Array
    valid: Array
    masks: Array | None = None


@flax.struct.dataclass
class SegmentationLogits:
    """The output of a segmentation network.

    Attributes:
      logits: [B, H, W] float32; a pixel is a target where the logit is above 0.
      sides: logits of the supervised scales, [B, H / 2^i, W / 2^i] float32 each, finest first; may be empty.
    """

    logits: Array
    sides: tuple[Array, ...] = ()


@dataclasses.dataclass(frozen=True)
class Labels:
    """The targets of one image.

    Attributes:
      points: [K, 2] float32 (x, y) in pixels, pixel centres at integers.
      boxes: [K, 4] (x_min, y_min, x_max, y_max) in pixels, upper edges exclusive; int64 from masks, float64 from files;
        None where only points are known.
      areas: [K] int64 in pixels, or None where they are not known.
      polygons: the outlines of each target, corners [N, 2] (x, y) in the coordinates of boxes; several for a target in
        parts, none for one without outline. None where no target has one.
    """

    points: np.ndarray
    boxes: np.ndarray | None = None
    areas: np.ndarray | None = None
    polygons: tuple[tuple[np.ndarray, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.points)


@dataclasses.dataclass(frozen=True)
class ImageLabels:
    """The targets of one image, with the image's name and size.

    Attributes:
      name: file name without extension.
      labels: the targets.
      size: (height, width) in pixels, or None where it is not known.
      file_name: file name of the image with its extension, if known.
      rule: how its mask was made binary (see `irjax.data.read_mask`), if it has one.
    """

    name: str
    labels: Labels
    size: tuple[int, int] | None = None
    file_name: str | None = None
    rule: str | None = None
