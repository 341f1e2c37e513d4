"""The truth that predictions are scored against: folders of masks, published layouts and prepared data sets.

Files are read only when needed: maps are scored against mask files without decoding any image.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np

from irjax.data import folders, open_source
from irjax.data.layouts import FolderOptions, FolderSource
from irjax.errors import UserError, check_folder, reading
from irjax.io.headers import header_size, image_size
from irjax.io.images import AS_STORED, IMAGE_SUFFIXES, Depth, Frame, path_or_frame
from irjax.io.lists import files_among, naming_flag
from irjax.io.masks import MaskSet, read_levels
from irjax.io.names import first_repeated
from irjax.io.sequences import index_images
from irjax.metrics.inputs import PointTruth
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
      masks: the mask file or frame of each image; None for an image without targets.
      images: the image file or frame of each image; None if there are only masks.
      source: the data set that reads its images at their depth; None if there are only masks.
    """

    names: tuple[str, ...]
    masks: tuple[str | Frame | None, ...]
    images: tuple[str | Frame, ...] | None = None
    source: FolderSource | None = None

    def read(self, index: int) -> np.ndarray:
        """See `Truths`.

        Raises:
          UserError: if a file cannot be read, or the mask and its image differ in size; the message names it.
        """
        path = self.masks[index]
        if self.images is None:
            return self._mask(cast("str | Frame", path))  # only truths with image files lack a mask file
        with naming_flag():
            if path is None:
                return np.zeros(image_size(self.images[index]), bool)
            mask, image = self._mask(path), self.images[index]
            size = header_size(image)
            if size is not None and size != mask.shape:
                raise UserError(
                    f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels, its image {image} {size[1]}x{size[0]}"
                )
            return mask

    def _mask(self, path: str | Frame) -> np.ndarray:
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
        return None if self.source is None else self.source.image(index)

    def _image_file(self, index: int) -> str | Frame:
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
    if isinstance(source, FolderSource) and source.masks is not None:
        return MaskFiles(source.names, source.masks, source.images, source)
    return SourceTruths(source)


def open_truths(root: str | os.PathLike, split: str | None = None, layout: str = "auto", **options: Any) -> Truths:
    """Opens a folder of masks, a data set in a published layout, or a prepared data set.

    Args:
      root: the folder. A folder that directly contains image files is a folder of masks.
      split: name of the split; None for the whole data set. A folder of masks has no splits.
      layout: layout of the data set.
      **options: how the data set is read, see `irjax.data.open_source`.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if it cannot be opened (see `irjax.data.open_source`), two masks have the same name, or a split or a
        depth of a folder of masks is asked for.
    """
    root = check_folder(root)
    with reading(root):
        files = files_among(root.iterdir(), IMAGE_SUFFIXES)
    how = FolderOptions(layout, **options)
    plain = layout == "auto" and not how.says_folders
    if files and plain and not (root / "images").is_dir() and not folders.fits(root, "flat"):
        if split not in (None, "all"):
            raise UserError(f"{root} is a folder of masks, which has no split {split!r}")
        if how.depth != AS_STORED:
            raise UserError(f"{root} is a folder of masks, without images of which {how.depth.describe()} could be")
        if (twice := first_repeated(path.stem for path in files)) is not None:
            raise UserError(f"{root}: several masks are called {twice}")
        found = index_images(root, nested=False)
        return MaskFiles(tuple(found), tuple(map(path_or_frame, found.values())))
    return as_truths(open_source(root, split or "all", layout, **options))


def split_images(root: str | os.PathLike, split: str, **options: Any) -> tuple[dict[str, pathlib.Path | Frame], Depth]:
    """Returns the image files of a split of a data set, and which of their stored values are black and white.

    Args:
      root: the data set's folder.
      split: name of the split.
      **options: how it is read, see `irjax.data.open_source`; without a `depth`, its images tell it.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if it has no such split, or its images are not files (a prepared data set).
    """
    source = open_source(root, split, **options)
    if not isinstance(source, FolderSource):
        raise UserError(f"{root} is no folder with image files")
    paths = [file if isinstance(file, Frame) else pathlib.Path(file) for file in source.images]
    files = {name + pathlib.Path(path).suffix: path for name, path in zip(source.names, paths, strict=True)}
    return files, source.applied_depth
