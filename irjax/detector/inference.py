"""Detection as pure functions, for other JAX code: letterbox, network, decoding and mapping back to the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from irjax.errors import UserError
from irjax.io.images import MIN_SIDE
from irjax.methods.detector_config import DetectorConfig
from irjax.ops import any_size, letterbox
from irjax.ops.components import decode_mask
from irjax.ops.normalize import normalize, to_unit
from irjax.ops.peaks import decode_heatmap
from irjax.ops.windows import cut_windows, join_windows, overlap_of
from irjax.types import Array, Detections


def network_inputs(config: DetectorConfig, canvases: Array) -> Array:
    """Returns the network's input for canvases [B, S, S], as stored or in [0, 1]: [B, S, S, C] float32; pure."""
    return normalize(to_unit(canvases), config.normalization, config.channels)


def run_network(config: DetectorConfig, variables: Mapping[str, Any], canvases: Array) -> tuple[Array, bool]:
    """Runs the network on letterboxed images; pure.

    Args:
      config: static.
      variables: variables of ``config.module()``.
      canvases: [B, S, S] float32 in [0, 1].

    Returns:
      Target probabilities [B, S, S] and True for a segmentation network; otherwise heatmaps [B, S / s, S / s] and
      False.
    """
    output = config.module().apply(variables, network_inputs(config, canvases), train=False)
    if hasattr(output, "logits"):
        return jax.nn.sigmoid(output.logits), True
    return output, False


_WINDOWS = 8  # windows of one image in one run of the network


def cell_of(config: DetectorConfig) -> int:
    """Returns the pixels per cell of the network's map, along each axis: 1 for a segmentation network."""
    return getattr(config.module(), "stride", 1)


def overlap_in(config: DetectorConfig) -> int:
    """Returns the least overlap of the windows in pixels, a multiple of the cell."""
    return overlap_of(config.size) // cell_of(config) * cell_of(config)


def _run_windows(config: DetectorConfig, variables: Mapping[str, Any], images: Array) -> tuple[Array, bool]:
    """Returns what `run_network` does for canvases, of whole images [B, H, W] and computed in sliding windows.

    Returns:
      [B, ceil(H / s), ceil(W / s)], and whether these are target probabilities.
    """
    height, width = images.shape[-2:]
    cell, overlap = cell_of(config), overlap_in(config)
    if is_symbolic_dim(height) or is_symbolic_dim(width):
        run = lambda windows: run_network(config, variables, windows)[0]  # noqa: E731
        return any_size.map_windows(run, images, config.size, overlap, cell), cell == 1
    windows = cut_windows(images, config.size, overlap, cell)
    flat = windows.reshape(-1, *windows.shape[-2:])
    maps = jax.lax.map(lambda w: run_network(config, variables, w[None])[0][0], flat, batch_size=_WINDOWS)
    maps = maps.reshape(*windows.shape[:-2], *maps.shape[-2:])
    return join_windows(maps, -(-height // cell), -(-width // cell), overlap // cell), cell == 1


def decode_heatmaps(config: DetectorConfig, heatmaps: Array, threshold: Array | float) -> Detections:
    """Decodes heatmaps [B, S / s, S / s] into points in canvas pixels with the configuration's options.

    See `irjax.ops.peaks.decode_heatmap`.
    """
    return decode_heatmap(
        heatmaps,
        threshold=threshold,
        max_detections=min(config.max_detections, heatmaps.shape[-2] * heatmaps.shape[-1]),
        stride=config.module().stride,
        relative_threshold=config.relative_threshold,
    )


def predict(
    config: DetectorConfig, variables: Mapping[str, Any], images: Array, *, threshold: Array | float | None = None
) -> Detections:
    """Detects targets in images of one size: letterbox, network, decoding and mapping back to the image; pure.

    For use under `jax.jit`, `jax.vmap` and `jax.grad`: scores are differentiable with respect to images and variables,
    points and validity are not.

    Args:
      config: static.
      variables: variables of ``config.module()``.
      images: [B, H, W], [B, H, W, 1] or [H, W], floating point in [0, 1] (not checked: values are traced); uint8 and
        uint16 are scaled.
      threshold: replaces the configured one; may be traced.

    Returns:
      Detections in pixels of `images`: points [B, N, 2], scores [B, N], valid [B, N], without the batch axis if
      `images` had none. A point of a heatmap may lie up to one cell outside the image. Segmentation networks also give
      masks [B, H, W], the target probabilities; points are then the centroids of their 8-connected regions above the
      threshold, and scores the highest probability of each region.

    Sides may be symbolic dimensions of `jax.export`, of which it must be known that they are at least 16 pixels.

    Raises:
      UserError: at tracing, if the images have another rank or type, a side below 16 pixels, or none are given.
    """
    images = to_unit(jnp.asarray(images))
    if images.ndim == 2:
        single = predict(config, variables, images[None], threshold=threshold)
        return jax.tree.map(lambda x: x[0], single)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise UserError(f"images must be [B, H, W], [B, H, W, 1] or [H, W], got shape {images.shape}")
    batch, height, width = images.shape
    if batch == 0 or height < MIN_SIDE or width < MIN_SIDE:
        raise UserError(f"images must be at least one, of at least {MIN_SIDE}x{MIN_SIDE} pixels, got {images.shape}")
    threshold = config.threshold if threshold is None else threshold
    ops = any_size if is_symbolic_dim(height) or is_symbolic_dim(width) else letterbox
    if config.slide:
        output, is_mask = _run_windows(config, variables, images)
    else:
        output, is_mask = run_network(config, variables, ops.letterbox(images, config.size, config.enlarge))
    if is_mask:
        maps = output if config.slide else ops.unletterbox(output, height, width, config.enlarge)
        maps = jnp.clip(maps, 0.0, 1.0)  # interpolation and averaging can leave [0, 1] by a rounding error
        return decode_mask(maps, threshold=threshold, max_detections=min(config.max_detections, height * width))
    found = decode_heatmaps(config, output, threshold)
    if config.slide:
        return found
    scale, offset = ops.letterbox_affine(height, width, config.size, config.enlarge)
    return to_image(config, found, jnp.asarray(scale, jnp.float32), jnp.asarray(offset, jnp.float32))


def to_image(config: DetectorConfig, found: Detections, scale: Array, offset: Array) -> Detections:
    """Converts detections from canvas to image pixels; drops those in the letterbox's padding.

    Args:
      config: static.
      found: points [B, N, 2], scores [B, N], valid [B, N] in canvas pixels.
      scale: [2] or [B, 1, 2] from `irjax.ops.letterbox.letterbox_affine`.
      offset: like `scale`.

    Returns:
      Detections of the same shape, valid ones first, by descending score.

    Note:
      A point may lie up to one heatmap cell outside the image, since it was rounded to a cell. The published program
      also keeps points further outside.
    """
    cell = config.module().stride
    inside = (found.points >= offset - cell) & (found.points <= config.size - 1 - offset + cell)
    valid = found.valid & jnp.all(inside, axis=-1)
    order = jnp.argsort(~valid, axis=-1, stable=True)
    points = jnp.where(valid[..., None], (found.points - offset) / scale, 0.0)
    return Detections(
        points=jnp.take_along_axis(points, order[..., None], axis=-2),
        scores=jnp.take_along_axis(jnp.where(valid, found.scores, 0.0), order, axis=-1),
        valid=jnp.take_along_axis(valid, order, axis=-1),
    )
