"""The host's side of the input: letterboxed batches, in an order that any process can compute.

An `Order` maps the number of a draw to an example, for as long as a run lasts. The device cache indexes its arrays with
it, the host feed reads files with it; a run resumes by continuing to count.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from irjax.data.windows import cut_example
from irjax.errors import UserError
from irjax.ops import letterbox
from irjax.ops.keys import purpose_generator
from irjax.ops.windows import overlap_of
from irjax.types import Batch, Example, Source

_LAST_DRAW = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Order:
    """An endless, deterministic, random-access sequence of example indices.

    Without weights, each epoch is a fresh permutation: every example once. With weights, each epoch is `num_examples`
    draws with replacement, in proportion to the weights. Epoch e comes from ``purpose_generator("order", seed, e)``.

    Attributes:
      num_examples: how many examples there are, and draws an epoch has.
      seed: non-negative.
      weights: a non-negative sampling weight for each example, any scale; or None.

    Raises:
      UserError: if there is no example, the seed is negative, or the weights are of another number, negative, not
        finite or all zero.
    """

    num_examples: int
    seed: int
    weights: tuple[float, ...] | None = None

    def __post_init__(self):
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
        """The example index of one draw, which must not be negative."""
        return int(self.slice(draw, draw + 1)[0])

    def slice(self, start: int, stop: int) -> np.ndarray:
        """The example indices [stop - start] int64 of the draws start, ..., stop - 1.

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
        """The example indices [num_examples] int64 of one epoch, read-only."""
        return _epoch(self.num_examples, self.seed, self._probabilities, number)

    @functools.cached_property
    def _probabilities(self) -> bytes | None:
        """The weights as bytes, whose hash Python remembers: a cheap key of the cache."""
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
      example: as published.
      size: side S of the square canvas in pixels.
      max_points: K, the number of rows that points are padded to.
      with_mask: also letterbox the target mask.
      enlarge: scale images smaller than the canvas up to it.
      dtype: uint8 or uint16 of the canvas; None keeps the image's. 8-bit values become 16-bit ones by a factor of 257,
        so that both mean the same in [0, 1].

    Returns:
      images [S, S] uint8 or uint16, points [K, 2] float32 (x, y) in canvas pixels, mask [K] bool, extent [4] int32 as
      in `Batch`; with the mask also segmentation [S, S] bool.

    Raises:
      UserError: if there are more targets than rows, a mask is wanted where there is none, or a 16-bit image meets
        dtype uint8. The message names the example.
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
        "mask": np.arange(max_points) < count,
        "extent": letterbox.letterbox_extent(height, width, size, enlarge),
    }
    if with_mask:
        result["segmentation"] = letterbox.letterbox_host(example.mask, size, enlarge)
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
    """What a network sees of one example: its canvas, or with `slide` its windows (`irjax.data.windows`).

    Returns:
      One or several of what `letterbox_example`, which has the arguments, gives.
    """
    parts = cut_example(example, size, overlap_of(size)) if slide else [example]
    options = {"with_mask": with_mask, "enlarge": enlarge, "dtype": dtype}
    return [letterbox_example(part, size, max_points, **options) for part in parts]


def read_ahead(read: Callable[[Any], Any], items: Iterable[Any], workers: int | None = None) -> Iterator[Any]:
    """``map(read, items)``, computed by threads that are never more than a few items ahead.

    Args:
      read: must be safe in threads.
      items: what to call it with.
      workers: threads; None for one for each processor.
    """
    workers = workers or os.cpu_count() or 1
    ahead: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for item in items:
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
):
    """An endless grain iterator of letterboxed batches.

    Batch b holds the draws b * batch_size, ..., (b + 1) * batch_size - 1 of the order. Of several processes,
    process p of P takes every P-th draw from the p-th, so that together they hold the global batch. The result is the
    same for any number of threads and workers.

    Args:
      source: the examples.
      order: which example each draw takes.
      batch_size: of all processes together; divisible by `process_count`.
      size: side S of the square canvas in pixels.
      max_points: K, the number of rows that points are padded to.
      with_masks: also letterbox the target masks.
      enlarge: scale images smaller than the canvas up to it.
      start: number of the first batch: continue here after `start` batches were used. `get_state` and `set_state` of
        the iterator count from here, so they belong to one value of `start` and of `worker_count`.
      process_index: p, of this process.
      process_count: P.
      num_threads: threads that read in this process, or in each worker.
      prefetch: batches that are read ahead, in each worker where there are some.
      worker_count: processes that read, 0 for none. They take seconds to start, so they pay for large images only; the
        calling script needs an ``if __name__ == "__main__"`` guard. Close the iterator to end them.

    Returns:
      A grain DatasetIterator of Batch with numpy arrays; B is the batch size of this process, `index` the global draw.

    Raises:
      UserError: if the order is for another number of examples, the batch cannot be shared among the processes, or
        `start` is negative. Reading errors, which name the example, come from the iterator.
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
    """Draw number -> letterboxed example; a class rather than a closure, so that worker processes can have it."""

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
    """A batch of what `letterbox_example` gives, with each one's `index`."""
    return Batch(**{name: np.stack([view[name] for view in views]) for name in views[0]})


def check_example(example: Example, count: int, max_points: int, with_mask: bool) -> None:
    """Refuses an example with `count` targets in one square, more than `max_points`, or without a mask it needs."""
    if count > max_points:
        raise UserError(f"{example.name} has {count} targets, more than max_points={max_points}")
    if with_mask and example.mask is None:
        raise UserError(f"{example.name} has points but no mask, and this method needs target masks")


def as_depth(canvas: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """An image as uint8 or uint16; 8-bit values times 257 mean the same in [0, 1] as 16-bit ones.

    Raises:
      UserError: if a 16-bit image, which is named, meets dtype uint8.
    """
    if canvas.dtype == dtype:
        return canvas
    if canvas.dtype == np.uint8 and dtype == np.uint16:
        return canvas.astype(np.uint16) * np.uint16(257)
    raise UserError(f"{name} is a {canvas.dtype} image and cannot be kept as {dtype}")


def _ensure_absl_flags() -> None:
    """grain's workers read absl flags, which nobody has parsed where irjax is used as a library."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
