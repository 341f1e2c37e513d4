"""Parts shared by the methods that predict masks, and the input options of all methods."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import jax
import numpy as np

from irjax.data.augment import augment
from irjax.methods.score_masks import score_masks
from irjax.ops.normalize import normalize, to_unit
from irjax.types import Batch, Example


@dataclasses.dataclass(frozen=True)
class MaskDecodeConfig:
    """How probability maps are decoded into targets.

    Attributes:
      threshold: a pixel is a target if its probability is above it; the checkpoint is selected at this threshold.
      max_detections: largest number of targets in an image.
    """

    threshold: float = 0.5
    max_detections: int = 32


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """The input of a network.

    Attributes:
      channels: input channels, 1 or 3 equal ones.
      normalization: `unit` or `imagenet`.
    """

    channels: int = 1
    normalization: str = "imagenet"


def mask_inputs(config: Any) -> Callable[[Batch, jax.Array | None], tuple[jax.Array, jax.Array]]:
    """Returns the `prepare` function (`irjax.methods.method.Objective`) of networks that predict masks.

    Args:
      config: config of the experiment, with `augment`, `model.normalization` and `model.channels`.

    Returns:
      ``(batch, keys [B] or None) -> (images [B, S, S, C], masks [B, S, S] bool)``, augmented if there are keys.
    """

    def prepare(batch: Batch, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        images, target = to_unit(batch.images), batch.mask
        if keys is not None:
            varied = jax.vmap(functools.partial(augment, config=config.augment))(
                keys, images, batch.points, batch.valid, target, batch.extent
            )
            images, target = varied.image, varied.mask
        return normalize(images, config.model.normalization, config.model.channels), cast(jax.Array, target)

    return prepare


def mask_score(config: Any) -> Callable[[Iterable[tuple[Example, np.ndarray]]], dict[str, float]]:
    """Returns `irjax.methods.score_masks.score_masks` with the options of a config with `data` and `decode`."""
    return functools.partial(
        score_masks, enlarge=config.data.enlarge, slide=config.data.slide, threshold=config.decode.threshold
    )


def mask_and_count_score(
    config: Any, figures: Callable[[np.ndarray], dict[str, float]]
) -> Callable[[Iterable[tuple[Example, dict[str, np.ndarray]]]], dict[str, float]]:
    """Returns the score of predictions {"maps": probabilities [n, S, S], "counts": [n, ...]}.

    Args:
      config: config of the experiment, with `data` and `decode`.
      figures: computes further metrics from the sum of the counts.
    """

    def score(found: Iterable[tuple[Example, dict[str, np.ndarray]]]) -> dict[str, float]:
        counts = []

        def maps() -> Iterator[tuple[Example, np.ndarray]]:
            for example, predictions in found:
                counts.append(predictions["counts"].sum(axis=0))
                yield example, predictions["maps"]

        return {**mask_score(config)(maps()), **figures(cast(np.ndarray, np.sum(counts, axis=0, dtype=np.float64)))}

    return score
