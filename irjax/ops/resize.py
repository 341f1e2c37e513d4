"""Resizing on the host: weights of linear interpolation, and resizing to squares with Pillow."""

from __future__ import annotations

import numpy as np


def linear_weights(positions: np.ndarray, length: int) -> np.ndarray:
    """Returns the matrix [n, length] float64 of linear interpolation at positions [n]; outside counts as zero."""
    return np.maximum(0.0, 1.0 - np.abs(np.asarray(positions)[:, None] - np.arange(length)[None, :]))


def resize_square(values: np.ndarray, side: int) -> np.ndarray:
    """Resizes values [H, W] to [side, side] float32, bilinearly with Pillow, which averages when shrinking."""
    from PIL import Image

    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Resizes a mask [H, W] bool or uint8 to [side, side] of the same dtype, nearest neighbour with Pillow."""
    from PIL import Image

    image = Image.fromarray(mask.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(image).astype(mask.dtype)
