"""Validation of methods that predict masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irjax.errors import UserError
from irjax.metrics import evaluate_images
from irjax.ops.letterbox import unletterbox_host
from irjax.ops.windows import join_windows, overlap_of
from irjax.training.data import Split

PROTOCOL = "irjax"


class NativeMaps(Sequence):
    """Maps on the canvases or windows of a split as maps of the images' own sizes, made when they are asked for."""

    def __init__(self, canvases: np.ndarray, split: Split):
        """Takes canvases [M, S, S]: one for each of the split's N images, or its windows."""
        self._canvases, self._split = canvases, split
        self._ends = None if split.windows is None else np.cumsum(split.windows)

    def __len__(self) -> int:
        return len(self._split.sizes)

    def __getitem__(self, index: int) -> np.ndarray:
        size = self._split.sizes[index]
        if self._ends is not None:
            windows = self._canvases[self._ends[index] - self._split.windows[index] : self._ends[index]]
            return join_windows(windows.astype(np.float32), *size, overlap_of(windows.shape[-1]))
        # Interpolation of probabilities can leave [0, 1] by a rounding.
        return np.clip(unletterbox_host(self._canvases[index], *size, self._split.enlarge), 0.0, 1.0)


def score_masks(probabilities: np.ndarray, split: Split, *, threshold: float = 0.5) -> dict[str, float]:
    """The `irjax` protocol on a split, at the images' own sizes.

    Args:
      probabilities: [M, S, S] float on the canvases or windows of its N images, in the split's order.
      split: loaded with masks.
      threshold: a pixel is a target where p is above it.

    Returns:
      ``miou`` (over all pixels), ``niou`` (mean over images), ``pd``, ``fa`` (false pixels per pixel), ``precision``
      and ``f1`` of the targets, ``tp``, ``fp``, ``fn``; nan where undefined.

    Raises:
      UserError: if the split has no masks.
    """
    if split.masks is None:
        raise UserError("scoring masks needs a split that was loaded with masks")
    maps = NativeMaps(np.asarray(probabilities), split)
    found = evaluate_images(maps, split.masks, PROTOCOL, threshold=threshold, names=split.names, processes=1)
    values = found[PROTOCOL].metrics()
    names = {"miou": "IoU", "niou": "nIoU", "pd": "Pd", "fa": "Fa", "precision": "Precision", "f1": "F1"}
    return {
        **{ours: values[name] for ours, name in names.items()},
        **{k.lower(): values[k] for k in ("TP", "FP", "FN")},
    }
