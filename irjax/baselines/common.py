"""Functions shared by the classical detectors: image scaling, windows, the customary threshold, decoding."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.ops.peaks import decode_heatmap
from irjax.types import Array, Detections


def as_float(images: Array) -> tuple[jax.Array, float]:
    """Converts grayscale images to float32 without loss, and returns the divisor for fractions of the full scale.

    Integers keep their values, so that minima, maxima and differences stay exact until the one division.

    Args:
      images: [B, H, W] uint8, uint16, or floating point, which is assumed to be in [0, 1].

    Returns:
      The images [B, H, W] float32, and their full scale: 255, 65535 or 1.

    Raises:
      UserError: if the images have another rank or dtype.
    """
    images = jnp.asarray(images)
    if images.ndim != 3:
        raise UserError(f"a baseline takes images [B, H, W], got shape {images.shape}")
    if images.dtype in (jnp.uint8, jnp.uint16):
        return images.astype(jnp.float32), float(jnp.iinfo(images.dtype).max)
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images.astype(jnp.float32), 1.0
    raise UserError(f"a baseline takes uint8, uint16 or floating images, got {images.dtype}")


def check_window_sizes(name: str, sizes: Sequence[int], least: int, below: int | None = None) -> None:
    """Checks that windows have a centre pixel and a size that the detector can use.

    Args:
      name: name of the option, for the message.
      sizes: sides of square windows in px.
      least: smallest side that is allowed.
      below: the sides must be smaller than this; None for no limit.

    Raises:
      UserError: if there are no sizes, or one is even or out of range.
    """
    if not sizes or any(size < least or size % 2 == 0 or (below is not None and size >= below) for size in sizes):
        limit = "" if below is None else f" and below {below}"
        raise UserError(f"{name} must be odd numbers of at least {least}{limit}, got {tuple(sizes)}")


def pad_symmetric(images: jax.Array, margin: int) -> jax.Array:
    """Pads images by mirroring them at their borders, border pixels included, as often as the margin needs.

    Args:
      images: [B, H, W].
      margin: in px, on each side; may be larger than the images.

    Returns:
      [B, H + 2 margin, W + 2 margin].
    """
    return jnp.pad(images, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")


def crop(padded: jax.Array, margin: int) -> jax.Array:
    """Removes a margin in px from each side of [B, H, W]; the inverse of `pad_symmetric`."""
    height, width = padded.shape[1:]
    return padded[:, margin : height - margin, margin : width - margin]


def box_sum(padded: jax.Array, size: int) -> jax.Array:
    """Computes the sums over all size x size squares that lie inside, each at the square's centre.

    Args:
      padded: [B, H, W] float32, neither side below `size`.
      size: side of the square in px, odd.

    Returns:
      [B, H - size + 1, W - size + 1] float32.
    """
    # Differences of cumulative sums would lose the last digits of float32.
    for window in ((1, size, 1), (1, 1, size)):
        padded = jax.lax.reduce_window(padded, 0.0, jax.lax.add, window, (1, 1, 1), "VALID")
    return padded


def customary_threshold(response: jax.Array, fraction: float = 0.5) -> jax.Array:
    """Computes the customary threshold of classical detectors, mean + fraction (max - mean), for each image.

    Args:
      response: [B, H, W] float32.
      fraction: 0 is the mean, 1 the maximum.

    Returns:
      [B] float32.

    Note:
      Publications leave the threshold open or tune it for each image. This form adapts to each image and always reports
      at least its maximum, so it finds something in every image without targets. For a fair comparison use a fixed
      threshold.
    """
    mean = response.mean(axis=(1, 2))
    return mean + fraction * (response.max(axis=(1, 2)) - mean)


@functools.partial(jax.jit, static_argnames="max_detections")
def decode_response(response: jax.Array, threshold: Array | float | None, *, max_detections: int = 32) -> Detections:
    """Decodes the peaks of a response map into detections.

    Args:
      response: [B, H, W] float32 at full resolution.
      threshold: lowest score, exclusive: a number, [B] numbers, or None for `customary_threshold`.
      max_detections: N, static.

    Returns:
      Detections in pixels of the image: points [B, N, 2], scores [B, N] (the response), valid [B, N], and masks [B, H,
      W] from `as_probability`.
    """
    limit = customary_threshold(response) if threshold is None else jnp.asarray(threshold, jnp.float32)
    limit = jnp.broadcast_to(limit, response.shape[:1])[:, None, None]
    masks = as_probability(response, limit)
    # No refinement: it is made for strided maps, and at full resolution would move points by a whole pixel.
    found = decode_heatmap(response, threshold=limit, max_detections=max_detections, stride=1, refine=False)
    return found.replace(masks=masks)


def as_probability(response: jax.Array, threshold: jax.Array) -> jax.Array:
    """Converts a response to [0, 1], above one half exactly where the response is above the threshold.

    The result rises with the response, so curves over thresholds are those of the response divided by the image's
    threshold.

    Args:
      response: [B, H, W] float32.
      threshold: [B, 1, 1].

    Returns:
      [B, H, W] float32: r / (r + t) for a positive threshold t, else 1 above the threshold and 0 elsewhere.
    """
    positive = jnp.maximum(response, 0.0)
    share = positive / jnp.maximum(positive + threshold, 1e-30)
    # Values just above the threshold must not round to one half.
    above = jnp.maximum(share, jnp.nextafter(jnp.float32(0.5), jnp.float32(1.0)))
    return jnp.where(response > threshold, jnp.where(threshold > 0, above, 1.0), jnp.minimum(share, 0.5))
