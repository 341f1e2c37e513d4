"""The truth that predictions are scored against: folders of masks, published layouts and prepared data sets alike.

What is not needed is not read: maps are scored against mask files without decoding an image.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from irjax.data.images import binarise, image_files, read_image, read_mask
from irjax.errors import UserError, check_folder, reading
from irjax.metrics.inputs import PointTruth
from irjax.reports.maps import header_size


class Truths(Protocol):
    """Random access to truths; picklable."""

    @property
    def names(self) -> Sequence[str]:
        """The name of every image, in order."""
        ...

    def read(self, index: int) -> np.ndarray | PointTruth:
        """The mask [H, W], or the points where there are no masks.

        A mask is bool, or uint8 where it holds gray levels, which protocols read differently.
        """
        ...

    def size(self, index: int) -> tuple[int, int]:
        """(height, width), without decoding a mask where its header says it."""
        ...

    def image(self, index: int) -> np.ndarray | None:
        """The image [H, W], None where only masks are there."""
        ...


@dataclasses.dataclass(frozen=True)
class MaskFiles:
    """Mask files.

    Attributes:
      names: of the images.
      masks: the mask file of each image; None for an image without targets.
      images: the image file of each, or None where only masks are there.
    """

    names: tuple[str, ...]
    masks: tuple[str | None, ...]
    images: tuple[str, ...] | None = None

    def read(self, index: int) -> np.ndarray:
        """See `Truths`.

        Raises:
          UserError: if a file cannot be read, or the mask and its image differ in size; the message names it.
        """
        path = self.masks[index]
        if path is None:
            return np.zeros(self.image(index).shape, bool)
        mask = _read_levels(path)
        size = None if self.images is None else header_size(self.images[index])
        if size not in (None, mask.shape):
            raise UserError(
                f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels, its image {self.images[index]} {size[1]}x{size[0]}"
            )
        return mask

    def size(self, index: int) -> tuple[int, int]:
        """See `Truths`."""
        path = self.masks[index] or self.images[index]
        return header_size(path) or self.read(index).shape

    def image(self, index: int) -> np.ndarray | None:
        """See `Truths`."""
        return None if self.images is None else read_image(self.images[index])


@dataclasses.dataclass(frozen=True)
class SourceTruths:
    """The truths of any `irjax.types.Source`: masks where its examples have them, else points."""

    source: object

    @property
    def names(self) -> tuple[str, ...]:
        """See `Truths`."""
        return tuple(self.source.names)

    def read(self, index: int) -> np.ndarray | PointTruth:
        """See `Truths`."""
        example = self.source[index]
        return PointTruth(example.points, *example.image.shape[:2]) if example.mask is None else example.mask

    def size(self, index: int) -> tuple[int, int]:
        """See `Truths`."""
        return self.source[index].image.shape[:2]

    def image(self, index: int) -> np.ndarray:
        """See `Truths`."""
        return self.source[index].image


def as_truths(source: object) -> Truths:
    """The truths of an `irjax.types.Source`; of a folder with mask files, without reading its images."""
    masks = getattr(source, "masks", None)
    if masks is not None and hasattr(source, "mask_rule"):
        return MaskFiles(tuple(source.names), tuple(masks), tuple(source.images))
    return SourceTruths(source)


def open_truths(root: str | os.PathLike, split: str | None = None, layout: str = "auto") -> Truths:
    """Opens a folder of masks, a data set in a published layout, or a prepared one.

    Args:
      root: the folder. One with image files right in it is a folder of masks.
      split: of the data set; None for all of it. A folder of masks has none.
      layout: of the data set (`irjax.data.open_source`).

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if it cannot be opened; see `irjax.data.open_source`.
    """
    root = check_folder(root)
    with reading(root):
        files = image_files(root.iterdir())
    if files and layout == "auto" and not (root / "images").is_dir():
        if split not in (None, "all"):
            raise UserError(f"{root} is a folder of masks, which has no split {split!r}")
        names = [path.stem for path in files]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise UserError(f"{root}: several masks are called {twice}")
        return MaskFiles(tuple(names), tuple(map(str, files)))
    from irjax.data import open_source

    return as_truths(open_source(root, split or "all", layout))


def _read_levels(path: str) -> np.ndarray:
    """A mask file as bool, or as uint8 where it is 8-bit gray with more than the levels 0 and 255."""
    from PIL import Image

    values = None
    if not path.lower().endswith((".tif", ".tiff")):
        try:
            with Image.open(path) as image:
                values = np.asarray(image) if image.mode == "L" else None
        except Exception:  # of a damaged file Pillow raises what it likes
            pass  # read_mask says what is wrong with it
    if values is None:
        return read_mask(path)[0]
    mask, rule = binarise(values)
    return values if rule == "threshold_128" and ((values > 0) != (values == 255)).any() else mask
