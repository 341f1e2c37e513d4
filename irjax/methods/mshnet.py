"""MSHNet with scale losses.

Sources: Liu et al., "Infrared Small Target Detection with Scale and Location Sensitivity", CVPR 2024, and its published
code, for the network, the weight `variance` and the location loss. The other weights and kinds of spatial attention
reconstruct "Revisiting the Scale Loss Function and Gaussian-Shape Convolution for Infrared Small Target Detection"
(arXiv 2604.09991) from its abstract and the public repository ECTCV; the paper itself was not available
(`irjax.losses.scale`, `irjax.layers.gaussian_pinwheel`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.losses.scale import scale_dynamic_loss, scale_iou_loss
from irjax.losses.segmentation import soft_iou
from irjax.methods.common import InputConfig, MaskDecodeConfig, mask_inputs, mask_score
from irjax.methods.method import Method, Objective, network_of, options_of
from irjax.models import MSHNet
from irjax.ops.patches import largest_in
from irjax.types import SegmentationLogits

ImageLoss = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class ModelConfig(InputConfig, options_of(MSHNet)):  # type: ignore[misc]
    """Options of the network."""

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or len(self.widths) < 2 or min(*self.widths, *self.depths) < 1:
            raise UserError(
                "model.widths and model.depths must be positive and as many as each other, at least two, got "
                f"{self.widths} and {self.depths}"
            )
        if self.first_layers == "pinwheel" and self.widths[0] % 4:
            raise UserError(f"model.first_layers pinwheel needs a multiple of 4 as first width, got {self.widths}")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of each predicted mask.

    Attributes:
      name: `scale`: one minus the weighted soft IoU, plus the location loss; `dynamic`: the two balanced by the
        target's area; `soft_iou`: one minus the soft IoU with one pixel added to both areas.
      variant: weight of the IoU as a function of predicted and true area; `none`: 1.
      over: for the variant `diff`: penalty factor for a predicted area larger than the true one.
      under: for the variant `diff`: penalty factor for a predicted area smaller than the true one.
      location: `centroid`: distance of the centroids in polar coordinates; `official`: the same as in the published
        code, without division by the mass; or `none`.
      warm_epochs: number of first epochs in which only the finest side output is trained, with the plain IoU: the
        gradients of some weights vanish while almost nothing is predicted.
    """

    name: Literal["scale", "dynamic", "soft_iou"] = "scale"
    variant: Literal["variance", "ratio", "absdiff", "diff", "mobius", "none"] = "diff"
    over: float = 1.0
    under: float = 1.0
    location: Literal["none", "centroid", "official"] = "centroid"
    warm_epochs: float = 5

    def __post_init__(self) -> None:
        if self.name == "dynamic" and self.location == "none":
            raise UserError("loss.name dynamic balances the IoU with a location loss: loss.location none leaves none")
        if min(self.over, self.under) < 0:
            raise UserError(f"loss.over and loss.under must not be negative, got {self.over} and {self.under}")
        if (self.over, self.under) != (1, 1) and (self.variant != "diff" or self.name == "soft_iou"):
            raise UserError(f"loss.over and loss.under are of loss.variant diff, not {self.variant} of {self.name}")
        if self.warm_epochs < 0:
            raise UserError(f"loss.warm_epochs must not be negative, got {self.warm_epochs}")


def image_loss(config: LossConfig) -> ImageLoss:
    """Returns the loss of one mask: logits and target [B, H, W] to [B] float32."""
    if config.name == "soft_iou":
        return soft_iou
    weight: dict[str, Any] = {
        "variant": None if config.variant == "none" else config.variant,
        "over": config.over,
        "under": config.under,
    }
    if config.name == "dynamic":
        return functools.partial(scale_dynamic_loss, **weight, location=config.location)
    location = None if config.location == "none" else config.location
    return functools.partial(scale_iou_loss, **weight, location=location)


def multiscale(loss: ImageLoss, outputs: SegmentationLogits, target: jax.Array) -> jax.Array:
    """Returns the mean of a loss over the final mask and those of all scales, with the target max-pooled to each scale.

    Args:
      loss: loss of one mask.
      outputs: output of the network.
      target: [B, H, W] bool.

    Returns:
      [B] float32.

    Source: the published code of MSHNet.
    """
    values = [loss(outputs.logits, target.astype(jnp.float32))]
    values += [loss(side, largest_in(target, target.shape[1] // side.shape[1])) for side in outputs.sides]
    return cast(jax.Array, sum(values)) / len(values)


def objective(config: Any, axis_name: str | None = None) -> Objective:
    """Returns the objective for a config with the parts of `METHOD`, `data`, `augment` and `loop`.

    Predictions are probabilities [B, S, S].
    """

    def warm_loss(outputs: SegmentationLogits, target: jax.Array) -> jax.Array:
        return scale_iou_loss(outputs.sides[0], target, variant=None)

    return Objective(
        network_of(MSHNet, config, axis_name),
        mask_inputs(config),
        loss=functools.partial(multiscale, image_loss(config.loss)),
        decode=lambda outputs, _: jax.nn.sigmoid(outputs.logits),
        score=mask_score(config),
        select="miou",
        warm_loss=warm_loss,
        warm_epochs=config.loss.warm_epochs,
    )


METHOD = Method(
    "mshnet",
    MSHNet,
    objective,
    parts={"model": ModelConfig, "loss": LossConfig, "decode": MaskDecodeConfig},
    masks=True,
)
