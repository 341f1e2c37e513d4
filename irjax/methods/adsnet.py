"""ADSNet: a cascade that computes fewer patches at each finer level.

Source: ADSNet (doi 10.1109/ACCESS.2024.3373436); `irjax.models.adsnet` and `irjax.losses.adsnet` state what is from the
paper and what is not.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import numpy as np

from irjax.errors import UserError
from irjax.losses.adsnet import adsnet_loss, check_segmentation, target_patch_recall
from irjax.methods.common import InputConfig, MaskDecodeConfig, mask_and_count_score, mask_inputs
from irjax.methods.method import Method, Objective, network_of, options_of
from irjax.models import ADSNet
from irjax.models.adsnet import AdsnetOutputs


@dataclasses.dataclass(frozen=True)
class ModelConfig(InputConfig, options_of(ADSNet, "temperature", "mode", "selection", "heads")):  # type: ignore[misc]
    """Options of the network."""


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The segmentation loss, and the weights that Equation 7 leaves open.

    Attributes:
      segmentation: the terms of L_seg (`irjax.losses.adsnet.adsnet_loss`): the paper's `focal`, or other sums of
        `focal`, `cross_entropy` and `soft_iou`. In older configs that hold one name instead of several, the soft IoU
        was always added to it; in older configs without this field, the name was `focal`.
      sparsity_weight: weight of the squared difference between the kept and the desired fraction of patches.
      recall_weight: weight of the cross-entropy between decisions and the cells that have a target nearby.
    """

    segmentation: tuple[Literal["focal", "cross_entropy", "soft_iou"], ...] = ("focal",)
    sparsity_weight: float = 2.0
    recall_weight: float = 0.5

    def __post_init__(self) -> None:
        check_segmentation(self.segmentation, "loss.segmentation")
        if min(self.sparsity_weight, self.recall_weight) < 0:
            raise UserError("loss.sparsity_weight and loss.recall_weight must not be negative")


def objective(config: Any, axis_name: str | None = None) -> Objective:
    """Returns the objective for a config with the parts of `METHOD`, `data`, `augment` and `loop`.

    Predictions are {"maps": probabilities [B, S, S], "counts": of patches with targets}.
    """

    def decode(outputs: AdsnetOutputs, target: jax.Array) -> dict[str, jax.Array]:
        return {"maps": jax.nn.sigmoid(outputs.logits), "counts": target_patch_recall(outputs.kept, target)}

    def recalls(counts: np.ndarray) -> dict[str, float]:
        return {f"recall{level}": kept / occupied for level, (kept, occupied) in zip((3, 2), counts, strict=True)}

    return Objective(
        network_of(ADSNet, config, axis_name, heads=True, rescore=False),  # the loss needs the logits before rescoring
        mask_inputs(config),
        loss=functools.partial(
            adsnet_loss,
            cell=config.model.cell,
            dropped=config.model.dropped,
            segmentation=config.loss.segmentation,
            sparsity_weight=config.loss.sparsity_weight,
            recall_weight=config.loss.recall_weight,
        ),
        decode=decode,
        score=mask_and_count_score(config, recalls),
        select="niou",
        extra=lambda keys: {"keys": keys},
    )


METHOD = Method(
    "adsnet",
    ADSNet,
    objective,
    parts={"model": ModelConfig, "loss": LossConfig, "decode": MaskDecodeConfig},
    masks=True,
)
