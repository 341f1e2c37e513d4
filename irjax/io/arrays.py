"""Checks the arrays given to a detector and converts them to gray images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from irjax.errors import UserError
from irjax.io.images import MIN_SIDE, to_gray
from irjax.types import Array

Images = Array | Sequence[Array]


def unit_range(image: np.ndarray) -> np.ndarray:
    """Returns uint8 / 255, uint16 / 65535, or floating point unscaled, as float32 of the same shape, on the host."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return image.astype(np.float32)


def as_gray_images(images: Images) -> list[np.ndarray]:
    """Converts the images of a `Detector` call to a list of checked 2-D arrays, with the errors documented there."""
    if isinstance(images, str | os.PathLike):
        raise UserError(f"images must be arrays; read {os.fspath(images)!r} with irjax.io.images.read_image")
    if isinstance(images, list | tuple):
        arrays = [np.asarray(image) for image in images]
        for i, array in enumerate(arrays):
            if array.ndim != 2:
                raise UserError(f"a list must hold 2-D images, number {i} has shape {array.shape}")
    else:
        arrays = _split(np.asarray(images))
    if not arrays:
        raise UserError("no images were given")
    for i, array in enumerate(arrays):
        _check(array, i)
    return [to_gray(array) for array in arrays]


def _split(array: np.ndarray) -> list[np.ndarray]:
    """Splits one array into a list of images [H, W] or [H, W, C]."""
    if array.ndim == 2:
        return [array]
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        raise UserError(
            f"an array of shape {array.shape} could be one colour image or several gray ones; "
            "put an axis in front for one colour image, [1, H, W, C], or give a list of 2-D images"
        )
    if array.ndim == 4 and array.shape[-1] not in (1, 3, 4):
        raise UserError(f"images [B, H, W, C] must have 1, 3 or 4 channels, got shape {array.shape}")
    if array.ndim not in (3, 4):
        raise UserError(f"images must be [H, W], [B, H, W], [B, H, W, C] or a list of [H, W], got shape {array.shape}")
    return list(array)


def _check(image: np.ndarray, index: int) -> None:
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise UserError(f"image {index} is {height}x{width} pixels; at least {MIN_SIDE}x{MIN_SIDE} is wanted")
    if image.dtype in (np.uint8, np.uint16):
        return
    # Checked with jnp, because bfloat16 is floating point to JAX but not to NumPy.
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise UserError(f"image {index} has type {image.dtype}; uint8, uint16 or floating point in [0, 1] is wanted")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # written so that it also catches NaN
        raise UserError(f"image {index} is floating point with values from {low:g} to {high:g}; [0, 1] is wanted")
