"""A data set that lies on the device: every image once, at its own size; squares are cut inside jit when drawn."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from irjax.data.pipeline import as_depth, check_example, letterbox_example, read_ahead
from irjax.errors import UserError
from irjax.ops.windows import in_window, overlap_of, widen, window_origins
from irjax.types import Array, Batch, Example, Source

_MOST_PIXELS = np.iinfo(np.int32).max  # places in the flat arrays are int32
_SPARE = np.zeros(2, np.uint8)  # after the last mask, so that a line's bytes and one more are always there


@flax.struct.dataclass
class PixelCache:
    """N images, and the M squares of side S that can be drawn from them.

    Without windows the images are letterboxed canvases of S x S, one square each. With windows they have their own
    resolution; overlapping windows share their pixels. Arrays are numpy where it was made, JAX's on a device.

    Attributes:
      pixels: [P] uint8 or uint16, the images row by row, one after the other, each from a multiple of 8 on.
      segmentation: [P / 8] uint8, their target masks, eight pixels a byte as `numpy.packbits` has them; or None.
      start: [N] int32, the place of each image's pixel (0, 0).
      width: [N] int32, of each image in pixels.
      points: [N, K, 2] float32 (x, y), the targets of each image in its pixels; padding rows are zero.
      mask: [N, K] bool, which rows of `points` are targets.
      extent: [N, 4] int32, which part of each image's squares is image (`irjax.types.Batch`).
      image: [M] int32, the image that each square is cut from.
      origin: [M, 2] int32 (x, y), where in it; negative where the image is smaller than a window and was widened.
      size: S, static.
      max_points: rows of points that a square has, static.
    """

    pixels: Array
    segmentation: Array | None
    start: Array
    width: Array
    points: Array
    mask: Array
    extent: Array
    image: Array
    origin: Array
    size: int = flax.struct.field(pytree_node=False)
    max_points: int = flax.struct.field(pytree_node=False)

    def __len__(self) -> int:
        """M."""
        return len(self.image)

    def has_target(self) -> np.ndarray:
        """Which squares have a target, [M] bool; on the host."""
        points = np.asarray(self.points)[self.image] - np.asarray(self.origin, np.float32)[:, None]
        return np.any(np.asarray(self.mask)[self.image] & in_window(points, self.size), axis=1)


def cut(cache: PixelCache, rows: Array, draws: Array) -> Batch:
    """Cuts squares; pure.

    Args:
      cache: the data set; arrays that jit was not given as arguments become constants of the program.
      rows: [B] int32, which of the M squares.
      draws: [B] int32, their numbers in the run, for `Batch.index`.

    Returns:
      The batch; equal to what `irjax.data.pipeline.host_batches` reads for the same draws.
    """

    cache = jax.tree.map(jnp.asarray, cache)

    def one(row: Array) -> dict[str, Array]:
        image, origin = cache.image[row], cache.origin[row]
        lines = cache.start[image] + (origin[1] + jnp.arange(cache.size)) * cache.width[image] + origin[0]
        points = cache.points[image] - origin.astype(jnp.float32)
        inside = cache.mask[image] & in_window(points, cache.size)
        first = jnp.argsort(~inside, stable=True)[: cache.max_points]
        return {
            "images": _lines(cache.pixels, lines, cache.size),
            "points": jnp.where(inside[first, None], points[first], 0.0),
            "mask": inside[first],
            "extent": cache.extent[image],
            "segmentation": None if cache.segmentation is None else _bit_lines(cache.segmentation, lines, cache.size),
        }

    return Batch(**jax.vmap(one)(rows), index=draws)


def _lines(flat: Array, starts: Array, length: int) -> Array:
    """Pieces of a flat array: [n, length] from [n] starts."""
    return jax.vmap(lambda start: jax.lax.dynamic_slice(flat, (start,), (length,)))(starts)


def _bit_lines(packed: Array, starts: Array, length: int) -> Array:
    """`_lines` of bits, which are packed: [n, length] bool."""
    whole = _lines(packed, starts // 8, length // 8 + 2)  # the bytes that they lie in, and perhaps one more
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
      max_points: rows of points that a square has.
      with_masks: also keep the target masks.
      enlarge: scale images smaller than the canvas up to it.
      slide: keep images at their own resolution, and cut windows (`irjax.data.windows.WindowSource`).

    Returns:
      The cache, in numpy, its squares in the source's order. Pixels are uint16 if any image of the source is.

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
        if with_masks:  # at once, since all of them together are as large as the images
            kept["segmentation"] = np.packbits(kept["segmentation"])
        return kept, origins

    kept, origins = zip(*read_ahead(read, range(len(source))), strict=True)
    # Every image starts with a byte of the masks.
    lengths = np.array([-(-one["images"].size // 8) * 8 for one in kept], np.int64)
    if lengths.sum() > _MOST_PIXELS:
        raise UserError(
            f"{len(source)} images of {lengths.sum():,} pixels together are too many for data.cache=device "
            f"({_MOST_PIXELS:,}): give data.cache=host"
        )
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
        segmentation=np.concatenate([*(one["segmentation"] for one in kept), _SPARE]) if with_masks else None,
        start=(starts + top * widths + left).astype(np.int32),
        width=widths.astype(np.int32),
        points=np.stack([pad(one["points"]) for one in kept]),
        mask=np.stack([pad(one["mask"]) for one in kept]),
        extent=np.stack([one["extent"] for one in kept]),
        image=np.repeat(np.arange(len(kept), dtype=np.int32), [len(each) for each in origins]),
        origin=np.concatenate(origins).astype(np.int32),
        size=size,
        max_points=max_points,
    )


def _in_windows(
    example: Example, size: int, max_points: int, with_masks: bool, dtype: np.dtype
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What `letterbox_example` gives, of an image at its own resolution, and the windows' origins [n, 2]."""
    origins = window_origins(*example.image.shape, size, overlap_of(size))
    points = np.asarray(example.points, np.float32).reshape(-1, 2)
    most = in_window(points - origins[:, None], size).sum(axis=1).max()
    check_example(example, most, max_points, with_masks)
    kept = {
        "images": as_depth(widen(example.image, size), dtype, example.name),
        "points": points,
        "mask": np.ones(len(points), np.bool_),
        "extent": np.array([0, 0, size - 1, size - 1], np.int32),
    }
    if with_masks:
        kept["segmentation"] = widen(example.mask, size)
    return kept, origins
