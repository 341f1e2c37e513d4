"""The data of a run: which splits, how they are drawn, and the two feeds that bring them to the step."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from irjax.data.cache import cut, load_cache
from irjax.data.pipeline import Order, host_batches, read_ahead
from irjax.data.resized import ResizedSource
from irjax.data.sources import Concatenation, MemorySource, check_disjoint, concatenate, open_source, split_hash
from irjax.data.synthetic import SceneConfig, SyntheticSource
from irjax.data.windows import as_windows
from irjax.errors import UserError
from irjax.ops.windows import check_slide, overlap_of
from irjax.types import Batch, Example, Source

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
      cache: `device` keeps the training images on the device and the validation images in memory, and runs many steps
        per dispatch; `host` reads both when they are needed, for data sets that do not fit.
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


def open_splits(config: DataConfig, *, validate: bool = True) -> tuple[Source, Source | None, dict[str, Any]]:
    """Opens the images to train and to validate on (None without `validate`), and describes them for the run's record.

    Raises:
      UserError: if the two share a name, or a split cannot be opened.
    """
    sources = {name: config.open(name) for name in ("train", "val")[: 1 + validate]}
    if validate:
        check_disjoint(**sources)
    about = {name: {"examples": len(source), "sha256_of_names": split_hash(source)} for name, source in sources.items()}
    return sources["train"], sources.get("val"), about


def in_memory(source: Source, with_masks: bool) -> MemorySource:
    """A source that was read once; without the masks where they are not needed, which are as large as the images."""

    def read(index: int) -> Example:
        example = source[index]
        return example if with_masks else dataclasses.replace(example, mask=None)

    return MemorySource(tuple(read_ahead(read, range(len(source)))))


def balanced_weights(data_set: np.ndarray, has_target: np.ndarray) -> tuple[float, ...]:
    """Sampling weights that give each (data set, with or without targets) group the same total.

    Args:
      data_set: [M] int, which data set each example is of.
      has_target: [M] bool.
    """
    group = 2 * np.asarray(data_set, np.int64) + np.asarray(has_target, np.int64)
    count = np.bincount(group)
    return tuple((1.0 / count[group]).tolist())


def _parts(source: Source) -> tuple[Source, ...]:
    return source.sources if isinstance(source, Concatenation) else (source,)


def data_sets(source: Source) -> np.ndarray:
    """Which data set each example is of, [N] int: the parts of a concatenation."""
    parts = _parts(source)
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def parts_of(source: Source, config: DataConfig) -> dict[str, int]:
    """The data sets of a source that the config opened, in order: name of the folder -> number of images."""
    names = [pathlib.PurePath(root).name for root in config.root] or ["synthetic"]
    names = [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]
    return {name: len(part) for name, part in zip(names, _parts(source), strict=True)}


class CachedFeed:
    """The training images on the first device, once for all: a dispatch gets the squares that its steps draw.

    Attributes:
      waited: seconds spent waiting for data: none.
    """

    waited = 0.0

    def __init__(
        self, source: Source, config: DataConfig, batch_size: int, seed: int, with_masks: bool, device: jax.Device
    ):
        cache = load_cache(
            source,
            config.size,
            config.max_points,
            with_masks=with_masks,
            enlarge=config.enlarge,
            slide=config.slide,
        )
        weights = balanced_weights(data_sets(source)[cache.image], cache.has_target()) if config.balance else None
        self._batch_size = batch_size
        self._order = Order(len(cache), seed, weights)
        self._cache = jax.device_put(cache, device)
        self._cut = jax.jit(jax.vmap(cut, in_axes=(None, 0, 0)))

    def batches(self, step: int, count: int) -> Batch:
        """What `count` steps from `step` on take: examples [count, B, ...]."""
        first, last = step * self._batch_size, (step + count) * self._batch_size
        rows, draws = self._order.slice(first, last).astype(np.int32), np.arange(first, last, dtype=np.int32)
        shape = (count, self._batch_size)
        return self._cut(self._cache, rows.reshape(shape), draws.reshape(shape))


class HostFeed:
    """Batches read by grain while the device computes.

    Attributes:
      waited: seconds spent waiting for batches.
    """

    def __init__(self, source: Source, config: DataConfig, batch_size: int, seed: int, with_masks: bool):
        source = as_windows(source, config.size, overlap_of(config.size)) if config.slide else source
        weights = balanced_weights(data_sets(source), target_flags(source)) if config.balance else None
        self.waited = 0.0
        self._batches: Iterator[Batch] | None = None
        self._read = functools.partial(
            host_batches,
            source,
            order=Order(len(source), seed, weights),
            batch_size=batch_size,
            size=config.size,
            max_points=config.max_points,
            with_masks=with_masks,
            enlarge=config.enlarge,
        )

    def batch(self, step: int) -> Batch:
        """The batch of a step; after the first call the steps must follow one another."""
        begin = time.perf_counter()
        if self._batches is None:
            self._batches = self._read(start=step)
        batch = next(self._batches)
        self.waited += time.perf_counter() - begin
        return batch


def target_flags(source: Source) -> np.ndarray:
    """Whether each example of a source has targets, [N] bool; reads them all."""
    return np.array([len(source[i].points) > 0 for i in range(len(source))])
