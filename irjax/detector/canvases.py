"""Detection in images of any size and type by a network for square canvases, whatever runs the network."""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jax
import numpy as np

from irjax.detector.inference import cell_of, decode_heatmaps, overlap_in, to_image
from irjax.detector.limits import MOST
from irjax.io.arrays import Images, as_gray_images, unit_range
from irjax.methods.detector_config import DetectorConfig
from irjax.ops.letterbox import letterbox_affine, letterbox_host
from irjax.ops.regions import find_regions
from irjax.ops.windows import cut_windows, join_windows, overlap_of, restore_map, window_origins
from irjax.types import Array, Detections

_CELLS = 64  # sides of joined heatmaps are padded to multiples of it


@dataclasses.dataclass(frozen=True)
class Response:
    """What a detector responds with to one image, kept so that it is decoded at any threshold without running again.

    Attributes:
      values: [H, W] float32, the response at every pixel: the target probability, the heatmap, or a filter's response.
      detections: ``threshold -> Detections`` of a batch of one, those of the detector itself at this threshold; at most
        `irjax.detector.limits.MOST` points, the highest ones.
    """

    values: np.ndarray
    detections: Callable[[float], Detections]


class CanvasDetector(abc.ABC):
    """Detects in images of any size and type; subclasses say how the network is run.

    Attributes:
      config: how to run the network.
      batch_size: largest number of images in one run of the network.
    """

    config: DetectorConfig
    batch_size: int

    @abc.abstractmethod
    def maps(self, canvases: np.ndarray) -> Array:
        """Runs the network.

        Args:
          canvases: [B, S, S] float32 in [0, 1], at most ``batch_size``.

        Returns:
          The maps of `irjax.detector.inference.run_network`, first those of the canvases; rows may follow.
        """

    def __call__(
        self, images: Images, *, threshold: float | None = None, max_detections: int | None = None
    ) -> Detections:
        """Detects targets.

        Args:
          images: one image [H, W], several of one size [B, H, W] or [B, H, W, C] with C = 1, 3 (RGB) or 4 (RGBA, alpha
            ignored), or a list of 2-D images of any sizes; uint8, uint16 or floating point in [0, 1]. Colours are
            converted to Rec. 601 luma.
          threshold: replaces the configured one for this call.
          max_detections: likewise.

        Returns:
          Detections as numpy arrays in pixels of each original image: points [B, N, 2], scores [B, N], valid [B, N]; B
          = 1 for one image. A point of a heatmap may lie up to one cell outside its image. Segmentation networks also
          give masks, the target probabilities: [B, H, W], or a tuple of B arrays [H, W] where sizes differ.

        Raises:
          UserError: if there is no image, one is smaller than 16 pixels, has another type, or is floating point with
            NaN or values outside [0, 1] (the message gives its index); for a 3-D array whose last axis is 3 or 4,
            which could mean several gray images or one in colour; for any other rank; if `max_detections` is out of
            its range.
        """
        arrays = as_gray_images(images)
        tau = np.float32(self.config.threshold if threshold is None else threshold)
        number = self.config.max_detections if max_detections is None else max_detections
        number = dataclasses.replace(self.config, max_detections=number).max_detections  # checked
        pieces = (piece for array in arrays for piece in self.pieces(array))
        chunks = self._outputs(pieces, tau, number)
        first = next(chunks)
        chunks = itertools.chain([first], chunks)
        if isinstance(first, Detections):
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)
        canvases = itertools.chain.from_iterable(cast(Iterator[np.ndarray], chunks))
        if self._cell > 1:
            found = [self._decode_joined(self._join_heatmaps(canvases, array.shape), tau, number) for array in arrays]
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
        # Interpolation and averaging of windows can leave [0, 1] by a rounding error.
        maps = [np.clip(self._join(canvases, array.shape), 0.0, 1.0) for array in arrays]
        return _decode_maps(maps, float(tau), number)

    def respond(self, image: Array) -> Response:
        """Runs the network on one image [H, W] of any type that a call takes; errors as of a call."""
        (array,) = as_gray_images(image)
        canvases, scale, offset = (np.stack(part).astype(np.float32) for part in zip(*self.pieces(array), strict=True))
        parts = [canvases[start : start + self.batch_size] for start in range(0, len(canvases), self.batch_size)]
        maps = np.concatenate([np.asarray(self.maps(part))[: len(part)] for part in parts])
        number = min(MOST, (self.config.size // self._cell) ** 2)
        if self._cell == 1:
            values = np.clip(self._join(iter(maps), array.shape), 0.0, 1.0)
            return Response(values, lambda threshold: _decode_maps([values], float(np.float32(threshold)), number))
        if self.config.slide:
            whole = self._join_heatmaps(iter(maps), array.shape)
            values = _at_pixels(whole, self._cell)[: array.shape[0], : array.shape[1]]
            return Response(values, lambda threshold: self._decode_joined(whole, np.float32(threshold), number))
        decode = functools.partial(self._decode, maps, scale[:, None], offset[:, None])
        values = self._join(iter(_at_pixels(maps, self._cell)), array.shape)
        return Response(values, lambda threshold: jax.tree.map(np.asarray, decode(np.float32(threshold), number)))

    def _outputs(
        self, pieces: Iterator[tuple[np.ndarray, ...]], threshold: np.float32, number: int
    ) -> Iterator[Detections | np.ndarray]:
        """Yields the maps of the pieces, or their detections in letterboxed images, on the host, chunk by chunk.

        Dispatch is asynchronous: while the device computes one chunk, the next is letterboxed on the host. The earlier
        chunk is fetched as soon as the next is dispatched, so the device holds the outputs of at most two chunks.
        """
        running: tuple[Detections | Array, int] | None = None
        while chunk := list(itertools.islice(pieces, self.batch_size)):
            before, running = running, (self._run_chunk(chunk, threshold, number), len(chunk))
            if before is not None:
                yield _fetched(*before)
                del before
        assert running is not None  # `as_gray_images` returns at least one image
        yield _fetched(*running)

    def pieces(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields the canvases [S, S] in [0, 1] of an image, each with the scale and offset of its letterbox."""
        size, enlarge = self.config.size, self.config.enlarge
        if self.config.slide:
            for window in cut_windows(image, size, overlap_in(self.config), self._cell):
                yield unit_range(window), np.ones(2), np.zeros(2)
            return
        height, width = image.shape
        canvas = image if image.shape == (size, size) else letterbox_host(image, size, enlarge)
        yield unit_range(canvas), *letterbox_affine(height, width, size, enlarge)

    def _run_chunk(
        self, pieces: Sequence[tuple[np.ndarray, ...]], threshold: np.float32, number: int
    ) -> Detections | Array:
        """Returns maps, or the detections in letterboxed images; rows of padding may follow."""
        canvases, scale, offset = (np.stack(part).astype(np.float32) for part in zip(*pieces, strict=True))
        maps = self.maps(canvases)
        if self._cell == 1 or self.config.slide:
            return maps
        rows = ((0, len(maps) - len(pieces)), (0, 0))
        scale, offset = (np.pad(part, rows, constant_values=1) for part in (scale, offset))
        return self._decode(maps, scale[:, None], offset[:, None], threshold, number)

    @functools.cached_property
    def _decode(self) -> Any:
        def decode(maps: Array, scale: Array, offset: Array, threshold: Array, number: int) -> Detections:
            config = dataclasses.replace(self.config, max_detections=number)
            return to_image(config, decode_heatmaps(config, maps, threshold), scale, offset)

        return jax.jit(decode, static_argnums=4)

    @functools.cached_property
    def _cell(self) -> int:
        return cell_of(self.config)

    def _decode_joined(self, whole: np.ndarray, threshold: np.float32, most: int) -> Detections:
        """Decodes the heatmap that the windows of one image were joined to; on the host, [1, N, ...]."""
        height, width = whole.shape
        # Few sizes are compiled: the decoder is, for each.
        padded = np.pad(whole, ((0, -height % _CELLS), (0, -width % _CELLS)), constant_values=-np.inf)
        found = decode_heatmaps(dataclasses.replace(self.config, max_detections=most), padded[None], threshold)
        return jax.tree.map(np.asarray, found)

    def _join_heatmaps(self, heatmaps: Iterator[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Consumes the heatmaps of one image's windows and returns that of the image [ceil(H / s), ceil(W / s)]."""
        cell, side, overlap = self._cell, self.config.size, overlap_in(self.config)
        number = len(window_origins(*size, side, overlap, cell))
        height, width = (-(-length // cell) for length in size)
        return join_windows(np.stack(list(itertools.islice(heatmaps, number))), height, width, overlap // cell)

    def _join(self, canvases: Iterator[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Consumes the canvases [S, S] of one image and returns its map [H, W]."""
        config = self.config
        number = len(window_origins(*size, config.size, overlap_of(config.size))) if config.slide else 1
        maps = np.stack(list(itertools.islice(canvases, number)))
        return restore_map(maps, *size, enlarge=config.enlarge, slide=config.slide)


def _fetched(output: Detections | Array, count: int) -> Detections | np.ndarray:
    """Returns the first rows of an output, on the host; the others are padding."""
    # Copied: on the CPU `asarray` is a view, which keeps the device's array alive.
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count].copy(), output)


def _at_pixels(heatmaps: np.ndarray, cell: int) -> np.ndarray:
    """Interpolates heatmaps [..., h, w], whose cell (u, v) is at pixel (s u, s v), at pixels: [..., s h, s w]."""
    for axis in (-2, -1):
        length = heatmaps.shape[axis]
        before, share = np.divmod(np.arange(length * cell), cell)
        after = np.minimum(before + 1, length - 1)
        weight = (share / cell).astype(np.float32).reshape((-1, 1) if axis == -2 else (-1,))
        heatmaps = heatmaps.take(before, axis) * (1 - weight) + heatmaps.take(after, axis) * weight
    return heatmaps


def _decode_maps(maps: Sequence[np.ndarray], threshold: float, number: int) -> Detections:
    """Decodes like `irjax.ops.components.decode_mask`, but on the host: under jit, each image size would be compiled.

    Args:
      maps: B target probabilities [H, W], of any sizes.
      threshold: threshold of the pixels.
      number: N.
    """
    points, scores = np.zeros((len(maps), number, 2), np.float32), np.zeros((len(maps), number), np.float32)
    valid = np.zeros((len(maps), number), bool)
    for index, one in enumerate(maps):
        regions = find_regions(one > threshold)
        peaks = regions.peaks(one)
        order = np.argsort(-peaks, kind="stable")[:number]
        count = len(order)
        points[index, :count], scores[index, :count] = regions.centroids[order], peaks[order]
        valid[index, :count] = True
    same = len({one.shape for one in maps}) == 1
    return Detections(points, scores, valid, np.stack(maps) if same else tuple(maps))
