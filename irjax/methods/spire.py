"""SPIRE: target heatmaps learned from single points.

Source: "Rethinking IRSTD: Single-Point Supervision Guided Encoder-only Framework is Enough for Infrared Small Target
Detection", arXiv 2604.05363.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax

from irjax.data.augment import augment
from irjax.losses import heatmap_mse
from irjax.methods.common import InputConfig
from irjax.methods.method import Method, Objective, network_of, options_of
from irjax.methods.score_points import score_points
from irjax.models import HRPE
from irjax.ops.normalize import normalize, to_unit
from irjax.ops.peaks import decode_heatmap
from irjax.targets import prps
from irjax.types import Batch, Detections

# Validation decodes down to this score, so that one pass covers every threshold of the sweep.
_SWEEP_FLOOR = 0.05


@dataclasses.dataclass(frozen=True)
class ModelConfig(InputConfig, options_of(HRPE, "shuffle_units")):  # type: ignore[misc]
    """Options of the network (the switches of Table 3)."""


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """The target of the regression (Table 2).

    Attributes:
      form: `prps`, `gaussian` or `impulse`.
      sigma: standard deviation of the Gaussian in heatmap cells; its support has the radius 3 sigma.
      aggregate: `max` or `average` where targets overlap.
      centre: centre of the Gaussian: the `cell` of the point, as in the published code, or that of the radiometric
        `peak`, as in the paper (Eq. 3).
    """

    form: str = "prps"
    sigma: float = 2.0
    aggregate: str = "max"
    centre: Literal["cell", "peak"] = "cell"


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """How heatmaps are decoded into points (the paper's Section 3.4).

    Attributes:
      threshold: lowest score of a detection; the checkpoint is selected at this threshold.
      max_detections: largest number of points in an image.
    """

    threshold: float = 0.35
    max_detections: int = 32


def objective(config: Any, axis_name: str | None = None) -> Objective:
    """Returns the objective for a config with the parts of `METHOD`, `data`, `augment` and `loop`."""
    model, target = config.model, config.target

    def prepare(batch: Batch, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        images, points, valid = to_unit(batch.images), batch.points, batch.valid
        if keys is not None:
            varied = jax.vmap(functools.partial(augment, config=config.augment))(
                keys, images, points, valid, None, batch.extent
            )
            images, points, valid = varied.image, varied.points, varied.valid
        wanted = prps(
            images,
            points,
            valid,
            stride=model.stride,
            sigma=target.sigma,
            form=target.form,
            aggregate=target.aggregate,
            centre=target.centre,
        )
        return normalize(images, model.normalization, model.channels), wanted

    def decode(heatmaps: jax.Array, _: jax.Array) -> Detections:
        return decode_heatmap(
            heatmaps,
            threshold=min(_SWEEP_FLOOR, config.decode.threshold),
            max_detections=config.decode.max_detections,
            stride=model.stride,
        )

    score = functools.partial(
        score_points, size=config.data.size, enlarge=config.data.enlarge, threshold=config.decode.threshold
    )
    return Objective(network_of(HRPE, config, axis_name), prepare, heatmap_mse, decode, score, select="f1")


METHOD = Method(
    "spire",
    HRPE,
    objective,
    parts={"model": ModelConfig, "target": TargetConfig, "decode": DecodeConfig},
    masks=False,
)
