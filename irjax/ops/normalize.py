"""Conversion of pixel values to network input: the scale of each dtype, and named normalisations.

A normalisation has a name so that it can be saved with the weights that were trained with it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import UserError
from irjax.types import Array

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
NORMALIZATIONS = ("imagenet", "unit")


def to_unit(images: Array) -> jax.Array:
    """Converts images to float32 in [0, 1]: uint8 / 255, uint16 / 65535, floating point unchanged.

    Args:
      images: any shape; uint8, uint16 or floating point.

    Returns:
      float32 of the same shape.

    Raises:
      UserError: for any other dtype.
    """
    if images.dtype == jnp.uint8:
        return jnp.asarray(images, jnp.float32) / 255.0
    if images.dtype == jnp.uint16:
        return jnp.asarray(images, jnp.float32) / 65535.0
    if jnp.issubdtype(images.dtype, jnp.floating):
        return jnp.asarray(images, jnp.float32)
    raise UserError(f"images must be uint8, uint16 or floating point in [0, 1], got {images.dtype}")


def normalize(images: jax.Array, name: str, channels: int) -> jax.Array:
    """Converts grayscale images in [0, 1] to network input.

    Args:
      images: [B, H, W] float32 in [0, 1].
      name: ``imagenet`` subtracts the ImageNet mean and divides by its standard deviation (with one channel, by their
        averages over the three colours); ``unit`` leaves the values unchanged.
      channels: C; the gray channel is repeated.

    Returns:
      [B, H, W, C] float32.

    Raises:
      UserError: if the name is unknown or `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise UserError(f"channels must be 1 or 3, got {channels}")
    repeated = jnp.broadcast_to(images[..., None], (*images.shape, channels))
    if name == "unit":
        return repeated
    if name == "imagenet":
        mean, std = (_IMAGENET_MEAN, _IMAGENET_STD) if channels == 3 else (_IMAGENET_MEAN.mean(), _IMAGENET_STD.mean())
        return (repeated - mean) / std
    raise UserError(f"normalisation must be one of {NORMALIZATIONS}, got {name!r}")
