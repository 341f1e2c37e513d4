"""Detectors as programs for other software: StableHLO for anything that runs XLA."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import export

from irjax.detector.detector import Detector
from irjax.detector.inference import cell_of, predict
from irjax.io.images import MIN_SIDE
from irjax.types import Array

PLATFORMS = ("cpu", "cuda", "tpu")


def least_side(detector: Detector) -> int:
    """Returns the least side of images in pixels, for which there are as many cells as detections."""
    config = detector.config
    return max(MIN_SIDE, cell_of(config) * math.ceil(config.max_detections**0.5))


def to_stablehlo(detector: Detector, platforms: Sequence[str] = PLATFORMS) -> export.Exported:
    """Exports the whole detection, from pixels to points, with the weights, for images of any number and size.

    Args:
      detector: its weights become constants of the program.
      platforms: where the program can run: `cpu`, `cuda`, `rocm`, `tpu`.

    Returns:
      The program; ``serialize()`` gives its bytes, which `jax.export.deserialize` reads without irjax. Its ``call``
      takes images [B, H, W] float32 in [0, 1] with sides of at least `least_side`, and the threshold [] float32. It
      returns what `irjax.types.Detections` has, by name: points [B, N, 2], scores [B, N], valid [B, N], and the masks
      [B, H, W] of segmentation networks.
    """
    side = least_side(detector)
    known = ("batch >= 1", f"height >= {side}", f"width >= {side}")
    shape = export.symbolic_shape("batch, height, width", constraints=known)

    def detect(images: Array, threshold: Array) -> dict[str, Array]:
        found = predict(detector.config, detector.variables, images, threshold=threshold)
        return {name: value for name, value in vars(found).items() if value is not None}

    arguments = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    return export.export(jax.jit(detect), platforms=platforms)(*arguments)
