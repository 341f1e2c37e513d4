"""What the classical detectors share: the scaling of images, windows, the customary threshold, and detections."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.ops.peaks import decode_heatmap
from irjax.types import Array, Detections


def as_float(images: Array) -> tuple[jax.Array, float]:
    """Grayscale images in float32 without loss, and what to divide by for fractions of the full scale.

    Integers keep their values, so that filters of minima, maxima and differences stay exact until the one division.

    Args:
      images: [B, H, W] uint8, uint16 or floating, which is taken to be in [0, 1] already.

    Returns:
      The images [B, H, W] float32, and their full scale: 255, 65535 or 1.

    Raises:
      UserError: another rank or another type.
    """
    images = jnp.asarray(images)
    if images.ndim != 3:
        raise UserError(f"a baseline takes images [B, H, W], got shape {images.shape}")
    if images.dtype in (jnp.uint8, jnp.uint16):
        return images.astype(jnp.float32), float(jnp.iinfo(images.dtype).max)
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images.astype(jnp.float32), 1.0
    raise UserError(f"a baseline takes uint8, uint16 or floating images, got {images.dtype}")


def check_sizes(name: str, sizes: Sequence[int], least: int, below: int | None = None) -> None:
    """Refuses window sizes that have no centre pixel, or that a detector cannot use.

    Args:
      name: of the option, for the message.
      sizes: sides of square windows in px.
      least: smallest side that is allowed.
      below: the sides must be smaller than this; None allows any.

    Raises:
      UserError: no sizes at all, or one that is even or out of range.
    """
    if not sizes or any(size < least or size % 2 == 0 or (below is not None and size >= below) for size in sizes):
        limit = "" if below is None else f" and below {below}"
        raise UserError(f"{name} must be odd numbers of at least {least}{limit}, got {tuple(sizes)}")


def pad_symmetric(images: jax.Array, margin: int) -> jax.Array:
    """Mirrors images at their borders, the border pixels included, as often as the margin needs.

    Args:
      images: [B, H, W].
      margin: in px, on each side; may be larger than the images.

    Returns:
      [B, H + 2 margin, W + 2 margin].
    """
    return jnp.pad(images, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")


def crop(padded: jax.Array, margin: int) -> jax.Array:
    """Takes a margin in px off each side of [B, H, W]; the inverse of `pad_symmetric`."""
    height, width = padded.shape[1:]
    return padded[:, margin : height - margin, margin : width - margin]


def box_sum(padded: jax.Array, size: int) -> jax.Array:
    """Sums over all size x size squares that lie inside, each at its centre.

    Args:
      padded: [B, H, W] float32, neither side below `size`.
      size: side of the square in px, odd.

    Returns:
      [B, H - size + 1, W - size + 1] float32.
    """
    # Not by cumulative sums: their differences lose the last digits of float32.
    for window in ((1, size, 1), (1, 1, size)):
        padded = jax.lax.reduce_window(padded, 0.0, jax.lax.add, window, (1, 1, 1), "VALID")
    return padded


def customary_threshold(response: jax.Array, fraction: float = 0.5) -> jax.Array:
    """The threshold classical detectors are used with, mean + fraction (max - mean), per image.

    Args:
      response: [B, H, W] float32.
      fraction: 0 is the mean, 1 the maximum.

    Returns:
      [B] float32.

    Note:
      Publications leave the threshold open or tune it per image; this form adapts to each image and always reports at
      least its maximum, so that it finds something in every image without targets. Give a fixed one to compare fairly.
    """
    mean = response.mean(axis=(1, 2))
    return mean + fraction * (response.max(axis=(1, 2)) - mean)


@functools.partial(jax.jit, static_argnames="max_detections")
def decode_response(response: jax.Array, threshold: Array | float | None, *, max_detections: int = 32) -> Detections:
    """Peaks of a response map as detections.

    Args:
      response: [B, H, W] float32 at full resolution.
      threshold: scores are above it: a number, [B] numbers, or None for `customary_threshold`.
      max_detections: N, static.

    Returns:
      Detections in pixels of the image: points [B, N, 2], scores [B, N] (the response), valid [B, N], and masks
      [B, H, W] as `as_probability` makes them.
    """
    limit = customary_threshold(response) if threshold is None else jnp.asarray(threshold, jnp.float32)
    limit = jnp.broadcast_to(limit, response.shape[:1])[:, None, None]
    masks = as_probability(response, limit)
    # A response is at full resolution: the quarter-cell refinement, made for strided maps, would move by a whole pixel.
    found = decode_heatmap(response, threshold=limit, max_detections=max_detections, stride=1, refine=False)
    return found.replace(masks=masks)


def as_probability(response: jax.Array, threshold: jax.Array) -> jax.Array:
    """A response as a number in [0, 1] that is above one half exactly where the response is above the threshold.

    It rises with the response, so curves over thresholds are those of the response divided by the image's threshold.

    Args:
      response: [B, H, W] float32.
      threshold: [B, 1, 1].

    Returns:
      [B, H, W] float32: r / (r + t) of a positive threshold, else 1 above it and 0 elsewhere.
    """
    positive = jnp.maximum(response, 0.0)
    share = positive / jnp.maximum(positive + threshold, 1e-30)
    # Rounding must not turn the two sides of the threshold into one.
    above = jnp.maximum(share, jnp.nextafter(jnp.float32(0.5), jnp.float32(1.0)))
    return jnp.where(response > threshold, jnp.where(threshold > 0, above, 1.0), jnp.minimum(share, 0.5))
