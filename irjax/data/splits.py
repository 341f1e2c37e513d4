"""The images of a run: splits of data sets, or synthetic scenes."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np

from irjax.data.clutter import SceneConfig
from irjax.data.layouts import FolderSource
from irjax.data.pipeline import read_ahead
from irjax.data.resized import ResizedSource
from irjax.data.sources import Concatenation, MemorySource, check_disjoint, concatenate, open_source, split_hash
from irjax.data.synthetic import SyntheticSource
from irjax.errors import UserError
from irjax.io.images import AS_STORED, Depth
from irjax.ops.windows import check_slide
from irjax.types import Example, Source

CACHES = ("device", "host")

# Seeds of the synthetic splits, independent of the seed of a run; published results are on this test split.
_SYNTHETIC_SEEDS = {"train": 0, "val": 1, "test": 2}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Images that a run trains and validates on.

    Attributes:
      root: folders of data sets, in a published layout or prepared by `irjax datasets build`; without any, synthetic
        scenes are used.
      layout: layout of the folders; `auto` detects it.
      images: folder of the images in each of `root`, in place of a layout; goes with `masks`.
      masks: folder of the masks in each of `root`.
      skip_bad: leave out images that cannot be read, or have no annotation that fits, with a note that names them.
      bits: white of files of 16 bits is 2^bits - 1; by default, of 8, 10, 12, 14 and 16 the smallest that holds every
        value of the folder.
      range: stored values that are black and white.
      stretch: black and white of each image by itself: `percentile` or `minmax` (`irjax.io.images.Depth`).
      train: split to train on, one for all folders or one for each.
      val: split to choose the checkpoint on, one for all folders or one for each. A name in both splits is refused.
      draw: relative sizes of the splits `draw_train`, `draw_val` and `draw_test`, which are drawn from all images of a
        folder.
      split_seed: seed of that draw, and of the draw that carves a validation split where none is published.
      resize: side of the square to which images and masks are first resized without keeping the aspect ratio, as some
        papers do; 0 keeps their shapes.
      size: side of the square canvas in pixels to which images are letterboxed.
      enlarge: scale images smaller than the canvas up to it. If off, they keep their resolution, and so do crops.
      slide: cut larger images into overlapping windows of the canvas size instead of scaling them down; for methods
        that predict masks. Requires `enlarge` to be off, so that every crop has the resolution of its image.
      max_points: maximum number of targets per image.
      balance: sample each group (data set, with or without targets) equally often, instead of each image.
      cache: `device` keeps the training images on the device and the validation images in memory, and runs many steps
        per dispatch; `host` reads both when they are needed, for data sets that do not fit.
      synthetic_train: number of synthetic scenes to train on.
      synthetic_val: number of synthetic scenes to validate on.
      scenes: parameters of the synthetic scenes.
    """

    root: tuple[str, ...] = ()
    layout: str = "auto"
    images: str = ""
    masks: str = ""
    skip_bad: bool = False
    bits: int = 0
    range: tuple[float, ...] = ()
    stretch: Literal["", "percentile", "minmax"] = ""
    train: tuple[str, ...] = ("train",)
    val: tuple[str, ...] = ("val",)
    draw: tuple[float, float, float] = (50, 30, 20)
    split_seed: int = 0
    resize: int = 0
    size: int = 512
    enlarge: bool = True
    slide: bool = False
    max_points: int = 32
    balance: bool = False
    cache: str = "device"
    synthetic_train: int = 2000
    synthetic_val: int = 100
    scenes: SceneConfig = dataclasses.field(default_factory=SceneConfig)

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise UserError(f"data.cache must be one of {CACHES}, got {self.cache!r}")
        if self.resize < 0:
            raise UserError(f"data.resize must not be negative, got {self.resize}")
        check_slide(self.slide, self.enlarge, "data.")
        Depth(self.bits, self.range, self.stretch)  # checks them
        for name in ("train", "val"):
            count = len(getattr(self, name))
            if self.root and count not in (1, len(self.root)):
                raise UserError(f"data.{name} names {count} splits for {len(self.root)} folders: give one or all")

    def open(self, split: str) -> Source:
        """Opens ``train``, ``val`` or, for synthetic scenes only, ``test`` (400 scenes)."""
        if not self.root:
            number = {"train": self.synthetic_train, "val": self.synthetic_val, "test": 400}[split]
            return SyntheticSource(self.scenes, _SYNTHETIC_SEEDS[split], number)
        names = getattr(self, split)
        names = names * len(self.root) if len(names) == 1 else names
        parts = [self.open_folder(root, name) for root, name in zip(self.root, names, strict=True)]
        return concatenate([ResizedSource(part, self.resize) for part in parts] if self.resize else parts)

    def open_folder(self, root: str, split: str) -> Source:
        """Opens a split of one folder, as `root`, `layout`, `draw` and the other fields say."""
        return open_source(
            root,
            split,
            self.layout,
            seed=self.split_seed,
            shares=self.draw,
            images=self.images or None,
            masks=self.masks or None,
            skip_bad=self.skip_bad,
            depth=Depth(self.bits, self.range, self.stretch),
        )


def open_splits(config: DataConfig, *, validate: bool = True) -> tuple[Source, Source | None, dict[str, Any]]:
    """Opens the training and validation images (None without `validate`), and describes them for the run's record.

    Raises:
      UserError: if the two share examples, or a split cannot be opened.
    """
    sources = {name: config.open(name) for name in ("train", "val")[: 1 + validate]}
    if validate:
        check_disjoint(sources["train"], sources["val"])
    about = {name: _about(source) for name, source in sources.items()}
    return sources["train"], sources.get("val"), about


def _about(source: Source) -> dict[str, Any]:
    about: dict[str, Any] = {"examples": len(source), "sha256_of_names": split_hash(source)}
    frames = {origin for part in _parts(source) if isinstance(part, FolderSource) for origin in part.sequences.values()}
    if frames:
        about["sequences"] = len(frames)
    depths = [part.applied_depth for part in _parts(source) if isinstance(part, FolderSource)]
    if any(depth != AS_STORED for depth in depths):
        about["depth"] = [depth.describe() for depth in depths]
    return about


def in_memory(source: Source, with_masks: bool) -> MemorySource:
    """Reads a source into memory, without the masks if they are not needed, since they are as large as the images."""

    def read(index: int) -> Example:
        example = source[index]
        return example if with_masks else dataclasses.replace(example, mask=None)

    return MemorySource(tuple(read_ahead(read, range(len(source)))))


def balanced_weights(data_set: np.ndarray, has_target: np.ndarray) -> tuple[float, ...]:
    """Returns sampling weights that give each group (data set, with or without targets) the same total.

    Args:
      data_set: [M] int, the data set of each example.
      has_target: [M] bool, whether each example has targets.
    """
    group = 2 * np.asarray(data_set, np.int64) + np.asarray(has_target, np.int64)
    count = np.bincount(group)
    return tuple((1.0 / count[group]).tolist())


def _parts(source: Source) -> tuple[Source, ...]:
    return source.sources if isinstance(source, Concatenation) else (source,)


def data_sets(source: Source) -> np.ndarray:
    """Returns the data set of each example, [N] int: the number of its part in a concatenation."""
    parts = _parts(source)
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def parts_of(source: Source, config: DataConfig) -> dict[str, int]:
    """Returns the data sets of a source that the config opened, in order: folder name -> number of images."""
    names = [pathlib.PurePath(root).name for root in config.root] or ["synthetic"]
    names = [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]
    return {name: len(part) for name, part in zip(names, _parts(source), strict=True)}


def target_flags(source: Source) -> np.ndarray:
    """Returns whether each example of a source has targets, [N] bool; reads all examples."""
    return np.array([len(source[i].points) > 0 for i in range(len(source))])
