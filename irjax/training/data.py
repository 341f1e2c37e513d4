"""The data of a run: splits, order of the draws, and the two feeds that supply batches to the step."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

import jax
import numpy as np

from irjax.data.cache import cut, load_cache
from irjax.data.pipeline import Order, host_batches
from irjax.data.splits import DataConfig, balanced_weights, data_sets, target_flags
from irjax.data.windows import as_windows
from irjax.ops.windows import overlap_of
from irjax.types import Batch, Source


class CachedFeed:
    """Keeps the training images on the first device and cuts the squares that the steps of a dispatch draw.

    Attributes:
      waited: seconds spent waiting for data, always 0.
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
        """Returns the examples of `count` steps starting at `step`: [count, B, ...]."""
        first, last = step * self._batch_size, (step + count) * self._batch_size
        rows, draws = self._order.slice(first, last).astype(np.int32), np.arange(first, last, dtype=np.int32)
        shape = (count, self._batch_size)
        return self._cut(self._cache, rows.reshape(shape), draws.reshape(shape))


class HostFeed:
    """Reads batches with grain while the device computes.

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
        """Returns the batch of a step; after the first call, steps must be consecutive."""
        begin = time.perf_counter()
        if self._batches is None:
            self._batches = self._read(start=step)
        batch = next(self._batches)
        self.waited += time.perf_counter() - begin
        return batch
