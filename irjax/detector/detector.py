"""The `Detector` class: weights and configuration, for images of any size and type."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from irjax.detector.inference import (
    cell_of,
    decode_heatmaps,
    network_inputs,
    overlap_in,
    predict,
    run_network,
    to_image,
)
from irjax.errors import UserError
from irjax.io.arrays import Images, as_gray_images, unit_range
from irjax.methods import registry
from irjax.methods.detector_config import DetectorConfig
from irjax.ops.letterbox import letterbox_affine, letterbox_host
from irjax.ops.patches import expand_mask
from irjax.ops.regions import find_regions
from irjax.ops.windows import cut_windows, join_windows, overlap_of, restore_map, window_origins
from irjax.types import Array, Detections

_CELLS = 64  # sides of joined heatmaps are padded to multiples of it


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """Weights and configuration, applied to images of any size and type.

    Attributes:
      config: how to run the network.
      variables: its weights.
      batch_size: largest number of images in one run of the network. Batches are padded to powers of two up to it, so
        the network is traced only once for each of these few sizes, whatever the sizes of the images.
    """

    config: DetectorConfig
    variables: Mapping[str, Any]
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {self.batch_size}")
        # Done once, so that calls do not copy them to the device again.
        object.__setattr__(self, "variables", jax.tree.map(jnp.asarray, self.variables))

    @functools.cached_property
    def module(self) -> nn.Module:
        """The network; call ``module.apply(variables, normalised images [B, H, W, C])``."""
        return self.config.module()

    def folded(self) -> Detector:
        """Returns a detector with normalisations folded into the convolutions; predictions are equal up to rounding.

        Na-IRSTD's backbone also has its parallel branches merged. The weights are for prediction only.

        Raises:
          UserError: if they are folded already.
        """
        variables, options = registry.fold_variables(self.config.method, self.variables)
        config = dataclasses.replace(self.config, model={**self.config.model, **options})
        return dataclasses.replace(self, config=config, variables=variables)

    def predict_fn(
        self, variables: Mapping[str, Any], images: Array, *, threshold: Array | float | None = None
    ) -> Detections:
        """Applies `predict` with this detector's configuration; a pure function for other JAX code."""
        return predict(self.config, variables, images, threshold=threshold)

    @functools.cached_property
    def _run(self) -> Any:
        def run(
            variables: Mapping[str, Any], canvases: Array, scale: Array, offset: Array, threshold: Array
        ) -> Detections | Array:
            output, is_mask = run_network(self.config, variables, canvases)
            if is_mask or self.config.slide:
                return output
            found = decode_heatmaps(self.config, output, threshold)
            return to_image(self.config, found, scale[:, None], offset[:, None])

        return jax.jit(run)

    def __call__(self, images: Images, *, threshold: float | None = None) -> Detections:
        """Detects targets.

        Args:
          images: one image [H, W], several of one size [B, H, W] or [B, H, W, C] with C = 1, 3 (RGB) or 4 (RGBA, alpha
            ignored), or a list of 2-D images of any sizes; uint8, uint16 or floating point in [0, 1]. Colours are
            converted to Rec. 601 luma.
          threshold: replaces the configured one for this call.

        Returns:
          Detections as numpy arrays in pixels of each original image: points [B, N, 2], scores [B, N], valid [B, N]; B
          = 1 for one image. A point of a heatmap may lie up to one cell outside its image. Segmentation networks also
          give masks, the target probabilities: [B, H, W], or a tuple of B arrays [H, W] where sizes differ.

        Raises:
          UserError: if there is no image, one is smaller than 16 pixels, has another type, or is floating point with
            NaN or values outside [0, 1] (the message gives its index); for a 3-D array whose last axis is 3 or 4,
            which could mean several gray images or one in colour; for any other rank.
        """
        arrays = as_gray_images(images)
        tau = np.float32(self.config.threshold if threshold is None else threshold)
        pieces = (piece for array in arrays for piece in self._pieces(array))
        chunks = self._outputs(pieces, tau)
        first = next(chunks)
        chunks = itertools.chain([first], chunks)
        if isinstance(first, Detections):
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)
        canvases = itertools.chain.from_iterable(cast(Iterator[np.ndarray], chunks))
        if self._cell > 1:
            found = [self._decode_windows(canvases, array.shape, tau) for array in arrays]
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
        # Interpolation and averaging of windows can leave [0, 1] by a rounding error.
        maps = [np.clip(self._join(canvases, array.shape), 0.0, 1.0) for array in arrays]
        return _decode_maps(maps, float(tau), self.config.max_detections)

    def _outputs(
        self, pieces: Iterator[tuple[np.ndarray, ...]], threshold: np.float32
    ) -> Iterator[Detections | np.ndarray]:
        """Yields the outputs of `_run` for the pieces, on the host, chunk by chunk.

        Dispatch is asynchronous: while the device computes one chunk, the next is letterboxed on the host. The earlier
        chunk is fetched as soon as the next is dispatched, so the device holds the outputs of at most two chunks.
        """
        running: tuple[Detections | Array, int] | None = None
        while chunk := list(itertools.islice(pieces, self.batch_size)):
            before, running = running, (self._run_chunk(chunk, threshold), len(chunk))
            if before is not None:
                yield _fetched(*before)
                del before
        assert running is not None  # `as_gray_images` returns at least one image
        yield _fetched(*running)

    def kept_patches(self, image: np.ndarray) -> np.ndarray:
        """Returns the patches in which a network that drops patches computed, as maps over the image.

        Args:
          image: [H, W], as for a call.

        Returns:
          [L, H, W] float32, one map for each time that the network drops patches: 1 in kept patches, 0 in dropped ones;
          intermediate values where overlapping windows disagree or the image was resized.

        Raises:
          UserError: if the image cannot be used, or the network drops no patches.
        """
        return np.clip(self.inner_maps(image, _kept_pixels), 0.0, 1.0)

    def inner_maps(
        self, image: np.ndarray, inside: Callable[[nn.Module, Mapping[str, Any], Array], Array]
    ) -> np.ndarray:
        """Returns maps of internal values of the network over a whole image.

        Args:
          image: [H, W], as for a call.
          inside: pure, ``(module, variables, inputs [B, S, S, C]) -> [B, L, S, S]``; traced once for each function.

        Returns:
          [L, H, W] float32, averaged where windows overlap.

        Raises:
          UserError: if the image cannot be used.
        """
        (array,) = as_gray_images(image)
        canvases = np.stack([canvas for canvas, _, _ in self._pieces(array)]).astype(np.float32)
        maps = np.concatenate([np.asarray(self._inner(inside, self.variables, canvas[None])) for canvas in canvases])
        return np.stack([self._join(iter(maps[:, level]), array.shape) for level in range(maps.shape[1])])

    @functools.cached_property
    def _inner(self) -> Any:
        def run(inside: Callable[..., Array], variables: Mapping[str, Any], canvases: Array) -> Array:
            return inside(self.module, variables, network_inputs(self.config, canvases))

        return jax.jit(run, static_argnums=0)

    def _pieces(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields the canvases [S, S] in [0, 1] of an image, each with the scale and offset of its letterbox."""
        size, enlarge = self.config.size, self.config.enlarge
        if self.config.slide:
            for window in cut_windows(image, size, overlap_in(self.config), self._cell):
                yield unit_range(window), np.ones(2), np.zeros(2)
            return
        height, width = image.shape
        canvas = image if image.shape == (size, size) else letterbox_host(image, size, enlarge)
        yield unit_range(canvas), *letterbox_affine(height, width, size, enlarge)

    def _run_chunk(self, pieces: Sequence[tuple[np.ndarray, ...]], threshold: np.float32) -> Detections | Array:
        """Returns the output of `_run` for at most `batch_size` pieces, padded to a bucket size."""
        bucket = min(1 << (len(pieces) - 1).bit_length(), self.batch_size)
        canvases, scale, offset = (np.stack(part).astype(np.float32) for part in zip(*pieces, strict=True))
        missing = bucket - len(pieces)
        canvases = np.pad(canvases, ((0, missing), (0, 0), (0, 0)))
        scale, offset = (np.pad(part, ((0, missing), (0, 0)), constant_values=1) for part in (scale, offset))
        return self._run(self.variables, canvases, scale, offset, threshold)

    @functools.cached_property
    def _cell(self) -> int:
        return cell_of(self.config)

    def _decode_windows(
        self, heatmaps: Iterator[np.ndarray], size: tuple[int, int], threshold: np.float32
    ) -> Detections:
        """Consumes the heatmaps of one image's windows and decodes the joined one; on the host, [1, N, ...]."""
        cell, side, overlap = self._cell, self.config.size, overlap_in(self.config)
        number = len(window_origins(*size, side, overlap, cell))
        height, width = (-(-length // cell) for length in size)
        whole = join_windows(np.stack(list(itertools.islice(heatmaps, number))), height, width, overlap // cell)
        # Few sizes are compiled: the decoder is, for each.
        padded = np.pad(whole, ((0, -height % _CELLS), (0, -width % _CELLS)), constant_values=-np.inf)
        found = decode_heatmaps(self.config, padded[None], threshold)
        return jax.tree.map(np.asarray, found)

    def _join(self, canvases: Iterator[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Consumes the canvases [S, S] of one image and returns its map [H, W]."""
        config = self.config
        number = len(window_origins(*size, config.size, overlap_of(config.size))) if config.slide else 1
        maps = np.stack(list(itertools.islice(canvases, number)))
        return restore_map(maps, *size, enlarge=config.enlarge, slide=config.slide)


def _fetched(output: Detections | Array, count: int) -> Detections | np.ndarray:
    """Returns the first rows of an output of `Detector._run`, on the host; the others are padding."""
    # Copied: on the CPU `asarray` is a view, which keeps the device's array alive.
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count].copy(), output)


def _kept_pixels(module: nn.Module, variables: Mapping[str, Any], inputs: Array) -> Array:
    """Returns which patches a network keeps, at every pixel."""
    outputs = module.apply(variables, inputs, train=False)
    kept = getattr(outputs, "kept", getattr(outputs, "selected", ()))
    if not kept:
        raise UserError(f"{type(module).__name__} drops no patches")
    return jnp.stack([expand_mask(patches, inputs.shape[1] // patches.shape[1])[..., 0] for patches in kept], axis=1)


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
