"""Host-side input: letterboxed batches, in an order that any process can compute.

An `Order` maps each draw number of a run to an example. The device cache uses it to index its arrays, `host_batches` to
read files. A run resumes by continuing the draw numbers.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irjax.bars import bar
from irjax.data.windows import cut_example
from irjax.errors import UserError
from irjax.ops import letterbox
from irjax.ops.keys import purpose_generator
from irjax.ops.windows import overlap_of
from irjax.types import Batch, Example, Source

if TYPE_CHECKING:
    from grain import DatasetIterator

_LAST_DRAW = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Order:
    """An endless, deterministic, random-access sequence of example indices.

    Without weights, each epoch is a new permutation of all examples. With weights, each epoch is `num_examples` draws
    with replacement, in proportion to the weights. Epoch e is drawn by ``purpose_generator("order", seed, e)``.

    Attributes:
      num_examples: number of examples, and of draws per epoch.
      seed: non-negative.
      weights: a non-negative sampling weight for each example, in any unit; or None.

    Raises:
      UserError: if there is no example, the seed is negative, or the weights differ in number from the examples, are
        negative, not finite or all zero.
    """

    num_examples: int
    seed: int
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise UserError(f"an order needs at least one example, got {self.num_examples}")
        if self.seed < 0:
            raise UserError(f"the seed must not be negative, got {self.seed}")
        if self.weights is None:
            return
        weights = np.asarray(self.weights, np.float64)
        if weights.shape != (self.num_examples,):
            raise UserError(f"{self.num_examples} weights are wanted, one for each example, got shape {weights.shape}")
        if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
            raise UserError("weights must be finite, not negative and not all zero")
        object.__setattr__(self, "weights", tuple(weights.tolist()))

    def __getitem__(self, draw: int) -> int:
        """Returns the example index of one draw, which must not be negative."""
        return int(self.slice(draw, draw + 1)[0])

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Returns the example indices [stop - start] int64 of the draws start, ..., stop - 1.

        Raises:
          UserError: unless 0 <= start <= stop.
        """
        if not 0 <= start <= stop:
            raise UserError(f"draws run from 0 upwards, got {start} to {stop}")
        if start == stop:
            return np.zeros(0, np.int64)
        first, last = start // self.num_examples, (stop - 1) // self.num_examples
        epochs = [self.epoch(number) for number in range(first, last + 1)]
        offset = first * self.num_examples
        return np.concatenate(epochs)[start - offset : stop - offset]

    def epoch(self, number: int) -> np.ndarray:
        """Returns the example indices [num_examples] int64 of one epoch, read-only."""
        return _epoch(self.num_examples, self.seed, self._probabilities, number)

    @functools.cached_property
    def _probabilities(self) -> bytes | None:
        """The normalised weights as bytes, whose hash Python stores: a cheap key for the cache of `_epoch`."""
        if self.weights is None:
            return None
        weights = np.array(self.weights)
        return (weights / weights.sum()).tobytes()


@functools.lru_cache(maxsize=8)
def _epoch(num_examples: int, seed: int, probabilities: bytes | None, number: int) -> np.ndarray:
    rng = purpose_generator("order", seed, number)
    if probabilities is None:
        indices = rng.permutation(num_examples)
    else:
        indices = rng.choice(num_examples, size=num_examples, p=np.frombuffer(probabilities))
    indices.setflags(write=False)
    return indices


def letterbox_example(
    example: Example,
    size: int,
    max_points: int,
    *,
    with_mask: bool = False,
    enlarge: bool = True,
    dtype: np.dtype | None = None,
) -> dict[str, np.ndarray]:
    """Letterboxes one example and pads its points.

    Args:
      example: the example as published.
      size: side S of the square canvas in pixels.
      max_points: K, the number of rows to which points are padded.
      with_mask: also letterbox the target mask.
      enlarge: scale images smaller than the canvas up to it.
      dtype: uint8 or uint16, the type of the canvas; None keeps that of the image. 8-bit values are multiplied by 257
        to give 16-bit values, so that both represent the same value in [0, 1].

    Returns:
      images [S, S] uint8 or uint16, points [K, 2] float32 (x, y) in canvas pixels, valid [K] bool, extent [4] int32 as
      in `Batch`; with the mask also mask [S, S] bool.

    Raises:
      UserError: if there are more targets than rows, a requested mask is missing, or dtype is uint8 for a 16-bit image.
        The message names the example.
    """
    height, width = example.image.shape
    count = len(example.points)
    check_example(example, count, max_points, with_mask)
    points = np.zeros((max_points, 2), np.float32)
    points[:count] = letterbox.to_canvas(np.asarray(example.points, np.float32), height, width, size, enlarge)
    canvas = letterbox.letterbox_host(example.image, size, enlarge)
    result = {
        "images": as_depth(canvas, np.dtype(dtype or canvas.dtype), example.name),
        "points": points,
        "valid": np.arange(max_points) < count,
        "extent": letterbox.letterbox_extent(height, width, size, enlarge),
    }
    if with_mask:
        assert example.mask is not None  # checked by `check_example`
        result["mask"] = letterbox.letterbox_host(example.mask, size, enlarge)
    return result


def network_views(
    example: Example,
    size: int,
    max_points: int,
    *,
    with_mask: bool = False,
    enlarge: bool = True,
    slide: bool = False,
    dtype: np.dtype | None = None,
) -> list[dict[str, np.ndarray]]:
    """Returns the network inputs of one example: its canvas, or with `slide` its windows (`irjax.data.windows`).

    The other arguments are those of `letterbox_example`.

    Returns:
      One or more results of `letterbox_example`.
    """
    parts = cut_example(example, size, overlap_of(size)) if slide else [example]
    return [
        letterbox_example(part, size, max_points, with_mask=with_mask, enlarge=enlarge, dtype=dtype) for part in parts
    ]


def read_ahead(read: Callable[[Any], Any], items: Collection[Any], workers: int | None = None) -> Iterator[Any]:
    """Yields ``map(read, items)``, computed by threads that run at most a few items ahead.

    Args:
      read: the function to call; must be thread-safe.
      items: its arguments.
      workers: number of threads; None for one per processor.
    """
    workers = workers or os.cpu_count() or 1
    ahead: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for item in bar(items, "reading"):
            ahead.append(pool.submit(read, item))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def host_batches(
    source: Source,
    *,
    order: Order,
    batch_size: int,
    size: int,
    max_points: int,
    with_masks: bool = False,
    enlarge: bool = True,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    prefetch: int = 4,
    worker_count: int = 0,
) -> DatasetIterator[Batch]:
    """Returns an endless grain iterator of letterboxed batches.

    Batch b holds the draws b * batch_size, ..., (b + 1) * batch_size - 1 of the order. With P processes, process p
    takes every P-th draw starting with the p-th, so that together they hold the global batch. The result does not
    depend on the number of threads and workers.

    Args:
      source: the examples.
      order: maps each draw to an example.
      batch_size: size of the global batch of all processes; divisible by `process_count`.
      size: side S of the square canvas in pixels.
      max_points: K, the number of rows to which points are padded.
      with_masks: also letterbox the target masks.
      enlarge: scale images smaller than the canvas up to it.
      start: number of the first batch; to resume, the number of batches already used. `get_state` and `set_state` of
        the iterator count from here, so a state is valid only for the same `start` and `worker_count`.
      process_index: p, the index of this process.
      process_count: P, the number of processes.
      num_threads: number of reading threads in this process, or in each worker.
      prefetch: number of batches that are read ahead, per worker if there are workers.
      worker_count: number of reading processes, 0 for none. They take seconds to start, so they pay off for large
        images only; the calling script needs an ``if __name__ == "__main__"`` guard. Close the iterator to end them.

    Returns:
      A grain DatasetIterator of Batch with numpy arrays; B is the batch size of this process, `index` the global draw.

    Raises:
      UserError: if the order is for another number of examples, the batch cannot be divided among the processes, or
        `start` is negative. Reading errors, which name the example, are raised by the iterator.
    """
    import grain

    if order.num_examples != len(source):
        raise UserError(f"the order is for {order.num_examples} examples, the source has {len(source)}")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"batch_size must be a positive multiple of process_count={process_count}, got {batch_size}")
    if not 0 <= process_index < process_count:
        raise UserError(f"process_index must be in [0, {process_count}), got {process_index}")
    batches = _LAST_DRAW // batch_size
    if not 0 <= start < batches:
        raise UserError(f"start must be in [0, {batches}), got {start}")
    read = _ReadDraw(source, order, size, max_points, with_masks, enlarge, source.dtype)
    dataset = (
        grain.MapDataset.range(start * batch_size, batches * batch_size)[process_index::process_count]
        .map(read)
        .batch(batch_size // process_count, drop_remainder=True, batch_fn=stack_views)
        .to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads)))
    )
    if worker_count:
        _ensure_absl_flags()
        options = grain.MultiprocessingOptions(num_workers=worker_count, per_worker_buffer_size=prefetch)
        dataset = dataset.mp_prefetch(options)
    return iter(dataset)


@dataclasses.dataclass(frozen=True)
class _ReadDraw:
    """Maps a draw number to a letterboxed example; not a closure, so that it can be sent to worker processes."""

    source: Source
    order: Order
    size: int
    max_points: int
    with_masks: bool
    enlarge: bool
    dtype: np.dtype

    def __call__(self, draw: int) -> dict[str, Any]:
        example = self.source[self.order[draw]]
        result = letterbox_example(
            example, self.size, self.max_points, with_mask=self.with_masks, enlarge=self.enlarge, dtype=self.dtype
        )
        return {**result, "index": np.int32(draw)}


def stack_views(views: Sequence[Mapping[str, np.ndarray]]) -> Batch:
    """Stacks results of `letterbox_example`, each with its `index`, into a batch."""
    return Batch(**{name: np.stack([view[name] for view in views]) for name in views[0]})


def check_example(example: Example, count: int, max_points: int, with_mask: bool) -> None:
    """Refuses an example with more than `max_points` targets in a square (`count`), or without a required mask."""
    if count > max_points:
        raise UserError(f"{example.name} has {count} targets, more than max_points={max_points}")
    if with_mask and example.mask is None:
        raise UserError(f"{example.name} has points but no mask, and this method needs target masks")


def as_depth(canvas: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """Returns an image as uint8 or uint16; multiplied by 257, 8-bit values keep their meaning in [0, 1].

    Raises:
      UserError: if dtype is uint8 for a 16-bit image; the message contains `name`.
    """
    if canvas.dtype == dtype:
        return canvas
    if canvas.dtype == np.uint8 and dtype == np.uint16:
        return canvas.astype(np.uint16) * np.uint16(257)
    raise UserError(f"{name} is a {canvas.dtype} image and cannot be kept as {dtype}")


def _ensure_absl_flags() -> None:
    """Marks the absl flags as parsed: grain's workers read them, and a program that uses irjax may not parse them."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
