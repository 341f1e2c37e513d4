"""A data set in device memory: each image is stored once, and squares are cut from it inside jit."""

from __future__ import annotations

import logging

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from irjax.data.pipeline import as_depth, check_example, letterbox_example, read_ahead
from irjax.errors import UserError
from irjax.ops.windows import in_window, overlap_of, widen, window_origins
from irjax.types import Array, Batch, Example, Source

_logger = logging.getLogger(__name__)

_MOST_PIXELS = np.iinfo(np.int32).max  # positions in the flat arrays are int32
_SPARE = np.zeros(2, np.uint8)  # padding after the last mask, since `_bit_lines` reads beyond the bytes of a row


@flax.struct.dataclass
class PixelCache:
    """N images, and the M squares of side S that can be cut from them.

    Without windows, the images are letterboxed canvases of S x S pixels, one square each. With windows, the images
    keep their own resolution, and overlapping windows share pixels. Arrays are numpy arrays when the cache is created,
    and JAX arrays on a device.

    Attributes:
      pixels: [P] uint8 or uint16, the concatenated images in row-major order; each starts at a multiple of 8.
      mask: [P / 8 + 2] uint8, their target masks, eight pixels per byte as in `numpy.packbits`, and padding; or None.
      start: [N] int32, the position of pixel (0, 0) of each image in `pixels`.
      width: [N] int32, the width of each stored image in pixels.
      points: [N, K, 2] float32 (x, y), the targets of each image in its pixels; padding rows are zero.
      valid: [N, K] bool, which rows of `points` are targets.
      extent: [N, 4] int32, the part of the squares of each image that is image (`irjax.types.Batch`).
      image: [M] int32, the image that each square is cut from.
      origin: [M, 2] int32 (x, y), the position of each square in its image; negative where the image is smaller than a
        window and was padded.
      size: S, the side of the squares; static.
      max_points: rows of points per square; static.
    """

    pixels: Array
    mask: Array | None
    start: Array
    width: Array
    points: Array
    valid: Array
    extent: Array
    image: Array
    origin: Array
    size: int = flax.struct.field(pytree_node=False)
    max_points: int = flax.struct.field(pytree_node=False)

    def __len__(self) -> int:
        """Returns M, the number of squares."""
        return len(self.image)

    def has_target(self) -> np.ndarray:
        """Returns which squares have a target, [M] bool, computed on the host."""
        points = np.asarray(self.points)[self.image] - np.asarray(self.origin, np.float32)[:, None]
        return np.any(np.asarray(self.valid)[self.image] & in_window(points, self.size), axis=1)


def cut(cache: PixelCache, rows: Array, draws: Array) -> Batch:
    """Cuts a batch of squares from the cache; a pure function.

    Args:
      cache: the data set. Pass it to jit as an argument: captured arrays become constants of the compiled program.
      rows: [B] int32, which of the M squares to cut.
      draws: [B] int32, their draw numbers in the run, for `Batch.index`.

    Returns:
      The batch, equal to the one that `irjax.data.pipeline.host_batches` reads for the same draws.
    """

    cache = jax.tree.map(jnp.asarray, cache)

    def one(row: Array) -> dict[str, Array]:
        image, origin = cache.image[row], cache.origin[row]
        lines = cache.start[image] + (origin[1] + jnp.arange(cache.size)) * cache.width[image] + origin[0]
        points = cache.points[image] - origin.astype(jnp.float32)
        inside = cache.valid[image] & in_window(points, cache.size)
        first = jnp.argsort(~inside, stable=True)[: cache.max_points]
        return {
            "images": _lines(cache.pixels, lines, cache.size),
            "points": jnp.where(inside[first, None], points[first], 0.0),
            "valid": inside[first],
            "extent": cache.extent[image],
            "mask": None if cache.mask is None else _bit_lines(cache.mask, lines, cache.size),
        }

    return Batch(**jax.vmap(one)(rows), index=draws)


def _lines(flat: Array, starts: Array, length: int) -> Array:
    """Returns slices [n, length] of a flat array that begin at [n] starts."""
    return jax.vmap(lambda start: jax.lax.dynamic_slice(flat, (start,), (length,)))(starts)


def _bit_lines(packed: Array, starts: Array, length: int) -> Array:
    """Returns slices [n, length] bool of a flat array of packed bits; the starts count bits."""
    whole = _lines(packed, starts // 8, length // 8 + 2)  # enough bytes for any offset of the first bit
    bits = jnp.unpackbits(whole, axis=1)
    return jax.vmap(lambda row, first: jax.lax.dynamic_slice(row, (first,), (length,)))(bits, starts % 8) > 0


def load_cache(
    source: Source,
    size: int,
    max_points: int,
    *,
    with_masks: bool = False,
    enlarge: bool = True,
    slide: bool = False,
) -> PixelCache:
    """Reads a whole source into memory.

    Args:
      source: N examples.
      size: side S of the squares in pixels.
      max_points: rows of points per square.
      with_masks: also keep the target masks.
      enlarge: scale images smaller than the canvas up to it.
      slide: keep images at their own resolution, and cut windows (`irjax.data.windows.WindowSource`).

    Returns:
      The cache, as numpy arrays, with the squares in the order of the source. Pixels are uint16 if any image of the
      source is.

    Raises:
      UserError: if the source is empty or too large, or an example cannot be read; the message names it.
    """
    if not len(source):
        raise UserError("there is no example to load")
    dtype = source.dtype

    def read(index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        example = source[index]
        if slide:
            kept, origins = _in_windows(example, size, max_points, with_masks, dtype)
        else:
            kept = letterbox_example(example, size, max_points, with_mask=with_masks, enlarge=enlarge, dtype=dtype)
            origins = np.zeros((1, 2), np.int32)
        if with_masks:  # packed immediately, since unpacked masks are as large as the images
            kept["mask"] = np.packbits(kept["mask"])
        return kept, origins

    kept, origins = zip(*read_ahead(read, range(len(source))), strict=True)
    # Images are aligned to 8 pixels, so that each mask starts at a whole byte.
    lengths = np.array([-(-one["images"].size // 8) * 8 for one in kept], np.int64)
    if lengths.sum() > _MOST_PIXELS:
        raise UserError(
            f"{len(source)} images of {lengths.sum():,} pixels together are too many for data.cache=device "
            f"({_MOST_PIXELS:,}): give data.cache=host"
        )
    _logger.info("read %d images, %.1f MB", len(source), lengths.sum() * dtype.itemsize / 1e6)
    starts = np.cumsum(lengths) - lengths
    pixels = np.zeros(lengths.sum(), dtype)
    for start, one in zip(starts, kept, strict=True):
        image = one.pop("images")
        one["width"] = image.shape[1]
        pixels[start : start + image.size] = image.ravel()
    widths = np.array([one["width"] for one in kept])
    left, top = -np.array([each.min(axis=0) for each in origins]).T
    most = max(len(one["points"]) for one in kept)
    pad = lambda value: np.pad(value, [(0, most - len(value))] + [(0, 0)] * (value.ndim - 1))  # noqa: E731
    return PixelCache(
        pixels=pixels,
        mask=np.concatenate([*(one["mask"] for one in kept), _SPARE]) if with_masks else None,
        start=(starts + top * widths + left).astype(np.int32),
        width=widths.astype(np.int32),
        points=np.stack([pad(one["points"]) for one in kept]),
        valid=np.stack([pad(one["valid"]) for one in kept]),
        extent=np.stack([one["extent"] for one in kept]),
        image=np.repeat(np.arange(len(kept), dtype=np.int32), [len(each) for each in origins]),
        origin=np.concatenate(origins).astype(np.int32),
        size=size,
        max_points=max_points,
    )


def _in_windows(
    example: Example, size: int, max_points: int, with_masks: bool, dtype: np.dtype
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the entries of `letterbox_example` for an image at its own resolution, and the window origins [n, 2]."""
    height, width = example.image.shape
    origins = window_origins(height, width, size, overlap_of(size))
    points = np.asarray(example.points, np.float32).reshape(-1, 2)
    most = in_window(points - origins[:, None], size).sum(axis=1).max()
    check_example(example, most, max_points, with_masks)
    kept = {
        "images": as_depth(widen(example.image, size), dtype, example.name),
        "points": points,
        "valid": np.ones(len(points), np.bool_),
        "extent": np.array([0, 0, size - 1, size - 1], np.int32),
    }
    if with_masks:
        kept["mask"] = widen(example.mask, size)
    return kept, origins
