"""Classical detectors without weights: jitted, batched, pure functions from images to a response map.

Each detector is a function ``(images [B, H, W], **options) -> response [B, H, W]`` in its own module, registered in
`BASELINES`; `detect` converts the response of any of them to detections.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax

from irjax.baselines.common import customary_threshold, decode_response
from irjax.baselines.directional_derivatives import aadcdd
from irjax.baselines.local_energy_factor import lef
from irjax.baselines.three_layer_contrast import tllcm
from irjax.baselines.white_tophat import tophat
from irjax.errors import UserError
from irjax.types import Array, Detections

BASELINES: Mapping[str, Callable[..., jax.Array]] = MappingProxyType(
    {"tophat": tophat, "lef": lef, "aadcdd": aadcdd, "tllcm": tllcm}
)


def detect(
    name: str, images: Array, threshold: Array | float | None = None, max_detections: int = 32, **options: Any
) -> Detections:
    """Detects small targets with one of the `BASELINES`; compiled once for each size of images.

    Args:
      name: a key of `BASELINES`.
      images: [B, H, W] uint8, uint16 or floating point in [0, 1].
      threshold: lowest response, exclusive: a number, [B] numbers, or None for `customary_threshold`.
      max_detections: N, static.
      **options: passed to the detector, static.

    Returns:
      Detections in pixels of the images: points [B, N, 2], scores [B, N] (responses), valid [B, N].

    Raises:
      UserError: if the name is unknown or the detector rejects the images or options.
    """
    if name not in BASELINES:
        raise UserError(f"unknown baseline {name!r}; there are {sorted(BASELINES)}")
    return _detect(name, images, threshold, max_detections, tuple(sorted(options.items())))


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _detect(
    name: str, images: Array, threshold: Array | float | None, max_detections: int, options: tuple[tuple[str, Any], ...]
) -> Detections:
    response = BASELINES[name](images, **dict(options))
    return decode_response(response, threshold, max_detections=max_detections)


__all__ = [
    "BASELINES",
    "aadcdd",
    "customary_threshold",
    "decode_response",
    "detect",
    "lef",
    "tllcm",
    "tophat",
]
