"""Detectors as programs for other software: StableHLO for anything that runs XLA."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from irjax.detector.detector import Detector
from irjax.detector.inference import cell_of, predict
from irjax.errors import MissingPackageError
from irjax.io.images import MIN_SIDE
from irjax.types import Array, Detections

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


def serialized(exported: export.Exported) -> bytearray:
    """Returns the bytes of an exported program, for `jax.export.deserialize`.

    Raises:
      MissingPackageError: without the package flatbuffers.
    """
    try:
        return exported.serialize()
    except ImportError as error:
        raise MissingPackageError("exporting needs the package flatbuffers: pip install 'irjax[export]'") from error


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far an exported program is from its detector, on some images of one size.

    Attributes:
      maps: largest difference of a probability of the masks, or of a score where there are no masks.
      points: largest distance in pixels from a point to the nearest one of the other, over the images compared.
      compared: number of images without a value close to the threshold, whose points must be the same.
      same: whether each of these has as many points in both.
    """

    maps: float
    points: float
    compared: int
    same: bool

    def __str__(self) -> str:
        points = f"points {self.points:.1g} px ({self.compared} images)" if self.same else "other points"
        return f"maps {self.maps:.1g}, {points}"


_CLOSE = 1e-3  # to the threshold: rounding may decide whether it is passed


def difference(found: Detections, wanted: Detections, threshold: float) -> Difference:
    """Compares the detections of an exported program with those of its detector.

    Args:
      found: of the program; masks [B, H, W] or None.
      wanted: of the detector, for the same images.
      threshold: of both.
    """
    one, other = (np.asarray(x.scores if x.masks is None else x.masks) for x in (found, wanted))
    clear = ~np.any(np.abs(other.reshape(len(other), -1) - threshold) < _CLOSE, axis=1)
    # Not by their rank: rounding may exchange points of nearly equal scores.
    pairs = [
        [np.asarray(x.points)[index][np.asarray(x.valid)[index]] for x in (found, wanted)]
        for index in np.flatnonzero(clear)
    ]
    same = [pair for pair in pairs if len(pair[0]) == len(pair[1])]
    distances = [np.linalg.norm(pair[0][:, None] - pair[1], axis=-1) for pair in same if len(pair[0])]
    return Difference(
        maps=float(np.max(np.abs(one - other))),
        points=max((float(max(d.min(0).max(), d.min(1).max())) for d in distances), default=0.0),
        compared=len(pairs),
        same=len(same) == len(pairs),
    )
