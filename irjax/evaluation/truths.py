"""The truth that predictions are scored against: folders of masks, published layouts and prepared data sets.

Files are read only when needed: maps are scored against mask files without decoding any image.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from irjax.errors import UserError, check_folder, reading
from irjax.io.images import AS_STORED, IMAGE_SUFFIXES, Depth, read_image
from irjax.io.lists import files_among, naming_flag
from irjax.io.maps import header_size
from irjax.io.masks import MaskSet, read_levels
from irjax.io.names import first_repeated
from irjax.metrics.inputs import PointTruth

if TYPE_CHECKING:
    from irjax.types import Source


class Truths(Protocol):
    """Random access to truths; picklable."""

    @property
    def names(self) -> Sequence[str]:
        """The name of every image, in order."""
        ...

    def read(self, index: int) -> np.ndarray | PointTruth:
        """Returns the mask [H, W], or the points if the data set has no masks.

        A mask is bool, or uint8 if it holds gray levels, which protocols interpret differently.
        """
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Returns (height, width), from the file header where possible, without decoding a mask."""
        ...

    def image(self, index: int) -> np.ndarray | None:
        """Returns the image [H, W], or None if there are only masks."""
        ...


@dataclasses.dataclass(frozen=True)
class MaskFiles:
    """Truth from mask files.

    Attributes:
      names: names of the images.
      masks: the mask file of each image; None for an image without targets.
      images: the image file of each image; None if there are only masks.
      depth: which stored values of the images are black and white.
    """

    names: tuple[str, ...]
    masks: tuple[str | None, ...]
    images: tuple[str, ...] | None = None
    depth: Depth = AS_STORED

    def read(self, index: int) -> np.ndarray:
        """See `Truths`.

        Raises:
          UserError: if a file cannot be read, or the mask and its image differ in size; the message names it.
        """
        path = self.masks[index]
        if self.images is None:
            return self._mask(cast("str", path))  # only truths with image files lack a mask file
        with naming_flag():
            if path is None:
                return np.zeros(read_image(self.images[index], self.depth).shape, bool)
            mask, image = self._mask(path), self.images[index]
            size = header_size(image)
            if size is not None and size != mask.shape:
                raise UserError(
                    f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels, its image {image} {size[1]}x{size[0]}"
                )
            return mask

    def _mask(self, path: str) -> np.ndarray:
        """Reads a mask file as bool, or as uint8 where its targets depend on a threshold, which is each protocol's."""
        levels = read_levels(path)
        rule = self._set.rule_of(path, levels)
        return levels if rule.gray and levels.dtype == np.uint8 else rule.apply(levels)

    @functools.cached_property
    def _set(self) -> MaskSet:
        return MaskSet(tuple(path for path in self.masks if path))

    def size(self, index: int) -> tuple[int, int]:
        """See `Truths`."""
        path = self.masks[index] or self._image_file(index)
        return header_size(path) or self.read(index).shape

    def image(self, index: int) -> np.ndarray | None:
        """See `Truths`."""
        return None if self.images is None else read_image(self.images[index], self.depth)

    def _image_file(self, index: int) -> str:
        assert self.images is not None  # only truths with image files lack a mask file
        return self.images[index]


@dataclasses.dataclass(frozen=True)
class SourceTruths:
    """Truth from any `irjax.types.Source`: masks where its examples have them, else points."""

    source: Source

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


def as_truths(source: Source) -> Truths:
    """Returns the truths of an `irjax.types.Source`; for a source of mask files, without reading its images."""
    masks = getattr(source, "masks", None)
    if masks is not None and hasattr(source, "mask_rule"):
        files = cast("Any", source)
        return MaskFiles(tuple(source.names), tuple(masks), tuple(files.images), files.depth)
    return SourceTruths(source)


def open_truths(
    root: str | os.PathLike,
    split: str | None = None,
    layout: str = "auto",
    *,
    images: str | os.PathLike | None = None,
    masks: str | os.PathLike | None = None,
    skip_bad: bool = False,
    depth: Depth = AS_STORED,
) -> Truths:
    """Opens a folder of masks, a data set in a published layout, or a prepared data set.

    Args:
      root: the folder. A folder that directly contains image files is a folder of masks.
      split: name of the split; None for the whole data set. A folder of masks has no splits.
      layout: layout of the data set (`irjax.data.open_source`).
      images: folder of the images of a data set, in place of a layout; goes with `masks`.
      masks: folder of its masks.
      skip_bad: leave out images of a data set that cannot be used (see `irjax.data.open_source`).
      depth: which stored values of its images are black and white.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if it cannot be opened (see `irjax.data.open_source`), two masks have the same name, or a split or a
        depth of a folder of masks is asked for.
    """
    root = check_folder(root)
    with reading(root):
        files = files_among(root.iterdir(), IMAGE_SUFFIXES)
    from irjax.data import folders, open_source

    plain = layout == "auto" and images is None and masks is None
    if files and plain and not (root / "images").is_dir() and not folders.fits(root, "flat"):
        if split not in (None, "all"):
            raise UserError(f"{root} is a folder of masks, which has no split {split!r}")
        if depth != AS_STORED:
            raise UserError(f"{root} is a folder of masks, without images of which {depth.describe()} could be")
        names = [path.stem for path in files]
        if (twice := first_repeated(names)) is not None:
            raise UserError(f"{root}: several masks are called {twice}")
        return MaskFiles(tuple(names), tuple(map(str, files)))
    more = {"images": images, "masks": masks, "skip_bad": skip_bad, "depth": depth}
    return as_truths(open_source(root, split or "all", layout, **more))


def split_images(root: str | os.PathLike, split: str) -> Sequence[str]:
    """Returns the image files of a split of a data set.

    Args:
      root: the data set's folder.
      split: name of the split.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if it has no such split, or its images are not files (a prepared data set).
    """
    images = getattr(open_truths(root, split), "images", None)
    if images is None:
        raise UserError(f"{root} is no folder with image files")
    return images
