"""Validation of methods that predict masks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from irjax.errors import UserError
from irjax.metrics import count_image, protocol
from irjax.metrics.accumulators import Counts
from irjax.metrics.values import from_counts
from irjax.ops.windows import restore_map
from irjax.types import Example

PROTOCOL = "irjax"


def score_masks(
    found: Iterable[tuple[Example, np.ndarray]], *, enlarge: bool = True, slide: bool = False, threshold: float = 0.5
) -> dict[str, float]:
    """Scores masks under the `irjax` protocol, at the images' own sizes.

    Args:
      found: the images in order, with masks, and for each the target probabilities [n, S, S] float of its canvas or
        windows.
      enlarge: whether smaller images were scaled up to the canvas.
      slide: whether the maps are of windows.
      threshold: a pixel is a target if its probability is above it.

    Returns:
      ``miou`` (over all pixels), ``niou`` (mean over images), ``pd``, ``fa`` (false pixels per pixel), ``precision``
      and ``f1`` of the targets, ``tp``, ``fp``, ``fn``; nan where undefined.

    Raises:
      UserError: if an image has no mask.
    """
    spec, counts = protocol(PROTOCOL), Counts()
    for example, maps in found:
        if example.mask is None:
            raise UserError(f"{example.name} has no mask to score against")
        whole = np.clip(restore_map(maps, *example.image.shape, enlarge=enlarge, slide=slide), 0.0, 1.0)
        counts += count_image(spec, whole, example.mask, threshold=threshold)[0]
    values = from_counts(counts, spec)
    names = {"miou": "IoU", "niou": "nIoU", "pd": "Pd", "fa": "Fa", "precision": "Precision", "f1": "F1"}
    return {
        **{ours: values[name] for ours, name in names.items()},
        **{k.lower(): values[k] for k in ("TP", "FP", "FN")},
    }
