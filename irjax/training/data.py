"""The data of a run: which splits, how they are drawn, and the two feeds that bring them to the step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from irjax.data.pipeline import Order, host_batches, load_all
from irjax.data.resized import ResizedSource
from irjax.data.sources import Concatenation, check_disjoint, concatenate, open_source, split_hash
from irjax.data.synthetic import SceneConfig, SyntheticSource
from irjax.data.windows import WindowSource, as_windows
from irjax.errors import UserError
from irjax.ops.windows import check_slide, overlap_of
from irjax.training.parallel import replicate
from irjax.types import Batch, Source

CACHES = ("device", "host")
# Seeds of the synthetic splits; the test scenes are those of the published figures, whatever seed a run has.
_SYNTHETIC_SEEDS = {"train": 0, "val": 1, "test": 2}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images a run trains and validates on.

    Attributes:
      root: folders of data sets, in a published layout or prepared by `irjax datasets build`; none: synthetic scenes.
      layout: layout of the folders, or `auto`.
      train: split to train on, one for all folders or one for each.
      val: split to choose the checkpoint on, likewise. A name in both is refused.
      draw: shares of the splits `draw_train`, `draw_val` and `draw_test`, which are drawn from all images of a folder.
      split_seed: of that draw, and of the one that carves a validation split where a publication has none.
      resize: first resize images and masks to this square, their sides apart, as some papers do; 0: keep their shapes.
      size: side of the square canvas in pixels that images are letterboxed to.
      enlarge: scale images smaller than the canvas up to it. Without, they keep their resolution, and so do crops.
      slide: take overlapping windows of the canvas's size from larger images, rather than scale them down; of methods
        that predict masks. Needs `enlarge` off: every crop then has its image's own resolution.
      max_points: most targets an image may have.
      balance: draw equally often from each data set's images with targets and without, instead of each image equally.
      cache: `device` keeps the letterboxed data set on the device and runs many steps per dispatch; `host` reads and
        letterboxes during training, for data sets that do not fit.
      synthetic_train: number of synthetic scenes to train on.
      synthetic_val: number of synthetic scenes to validate on.
      scenes: what synthetic scenes look like.
    """

    root: tuple[str, ...] = ()
    layout: str = "auto"
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
        for name in ("train", "val"):
            count = len(getattr(self, name))
            if self.root and count not in (1, len(self.root)):
                raise UserError(f"data.{name} names {count} splits for {len(self.root)} folders: give one or all")

    def open(self, split: str) -> Source:
        """Opens ``train``, ``val`` or, of synthetic scenes, ``test`` (400 scenes)."""
        if not self.root:
            number = {"train": self.synthetic_train, "val": self.synthetic_val, "test": 400}[split]
            return SyntheticSource(self.scenes, _SYNTHETIC_SEEDS[split], number)
        names = getattr(self, split)
        names = names * len(self.root) if len(names) == 1 else names
        parts = [
            open_source(root, name, self.layout, seed=self.split_seed, shares=self.draw)
            for root, name in zip(self.root, names, strict=True)
        ]
        return concatenate([ResizedSource(part, self.resize) for part in parts] if self.resize else parts)


@dataclasses.dataclass(frozen=True)
class Split:
    """A whole split in memory, letterboxed.

    Attributes:
      data: all N examples, numpy.
      names: of the examples.
      points: the targets of each, [K, 2] float32 in original pixels.
      sizes: (height, width) of each in original pixels.
      masks: of each, [H, W] bool in original pixels; None where the method needs none.
      enlarge: whether smaller images were scaled up.
      windows: how many of the examples in `data` are windows of each, or None where each is one canvas.
    """

    data: Batch
    names: tuple[str, ...]
    points: tuple[np.ndarray, ...]
    sizes: tuple[tuple[int, int], ...]
    masks: tuple[np.ndarray, ...] | None = None
    enlarge: bool = True
    windows: tuple[int, ...] | None = None


class _Remembering:
    """A source that remembers the truth and size of the examples it gave out."""

    def __init__(self, source: Source, with_masks: bool):
        self.source, self.with_masks, self.seen = source, with_masks, {}

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    @property
    def dtype(self) -> np.dtype:
        return self.source.dtype

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        example = self.source[index]
        mask = example.mask if self.with_masks else None  # as large as the images together
        self.seen[index] = (example.points, example.image.shape, mask)
        return example


def load_split(
    source: Source,
    size: int,
    max_points: int,
    *,
    with_masks: bool = False,
    enlarge: bool = True,
    slide: bool = False,
) -> Split:
    """Reads a whole source, letterboxes it or, with `slide`, cuts it into windows, and keeps the truth beside it.

    The arguments are those of `irjax.data.pipeline.load_all` and `irjax.data.windows.WindowSource`.
    """
    remembering = _Remembering(source, with_masks)
    windows = WindowSource(remembering, size, overlap_of(size)) if slide else None
    data = load_all(windows or remembering, size, max_points, with_masks=with_masks, enlarge=enlarge)
    seen = [remembering.seen[i] for i in range(len(source))]
    points, sizes, masks = zip(*seen, strict=True)
    sizes = tuple((int(height), int(width)) for height, width in sizes)
    counts = windows.counts if windows else None
    return Split(data, tuple(source.names), points, sizes, masks if with_masks else None, enlarge, counts)


def open_splits(config: DataConfig) -> tuple[Source, Source, dict[str, Any]]:
    """Opens the source of training examples and that of validation images, and describes them for the run's record.

    Raises:
      UserError: if the two share a name, or a split cannot be opened.
    """
    train, val = config.open("train"), config.open("val")
    check_disjoint(train, val)
    about = {
        name: {"examples": len(source), "sha256_of_names": split_hash(source)}
        for name, source in (("train", train), ("val", val))
    }
    return as_windows(train, config.size, overlap_of(config.size)) if config.slide else train, val, about


def balanced_weights(source: Source, has_target: np.ndarray) -> tuple[float, ...]:
    """Sampling weights that give each (data set, with or without targets) group the same total.

    Args:
      source: possibly a concatenation; its sources are the data sets.
      has_target: [N] bool.
    """
    part = np.zeros(len(source), np.int64)
    if isinstance(source, Concatenation):
        part = np.repeat(np.arange(len(source.sources)), [len(one) for one in source.sources])
    group = 2 * part + np.asarray(has_target, np.int64)
    count = np.bincount(group)
    return tuple((1.0 / count[group]).tolist())


class CachedFeed:
    """The whole training split on the device; a dispatch is told which rows to take.

    Attributes:
      data: the split, on the devices.
      waited: seconds spent waiting for data: none.
    """

    waited = 0.0

    def __init__(self, split: Split, order: Order, batch_size: int, devices: list[jax.Device]):
        self.order, self.batch_size = order, batch_size
        self.data = replicate(split.data, devices)

    def arguments(self, step: int, count: int) -> tuple[Any, ...]:
        """What `count` steps from `step` on need besides the state: data, rows [count, B], draws [count, B]."""
        first, last = step * self.batch_size, (step + count) * self.batch_size
        rows = self.order.slice(first, last).astype(np.int32).reshape(count, self.batch_size)
        return self.data, rows, np.arange(first, last, dtype=np.int32).reshape(count, self.batch_size)


class HostFeed:
    """Batches read by grain while the device computes.

    Attributes:
      waited: seconds spent waiting for batches.
    """

    def __init__(self, source: Source, order: Order, batch_size: int, config: DataConfig, start: int, with_masks: bool):
        self.waited = 0.0
        self._batches: Iterator[Batch] = host_batches(
            source,
            order=order,
            batch_size=batch_size,
            size=config.size,
            max_points=config.max_points,
            with_masks=with_masks,
            enlarge=config.enlarge,
            start=start,
        )

    def next(self) -> Batch:
        """The next batch."""
        begin = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - begin
        return batch


def target_flags(source: Source) -> np.ndarray:
    """Whether each example of a source has targets, [N] bool; reads them all."""
    return np.array([len(source[i].points) > 0 for i in range(len(source))])
