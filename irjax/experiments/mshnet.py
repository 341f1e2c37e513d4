"""MSHNet with scale losses: train, validate and test; without arguments on synthetic scenes.

    python -m irjax.experiments.mshnet
    python -m irjax.experiments.mshnet --recipe official --data.root DIR --data.train train --data.val val
    python -m irjax.experiments.mshnet --loss.variant ratio --model.spatial-attention gaussian_pinwheel_rotated

Sources: Liu et al., "Infrared Small Target Detection with Scale and Location Sensitivity", CVPR 2024, and its published
code, for the network, the weight `variance`, the location loss and the recipe `official`. The other weights and kinds
of spatial attention reconstruct "Revisiting the Scale Loss Function and Gaussian-Shape Convolution for Infrared Small
Target Detection" (arXiv 2604.09991) from its abstract and the public repository ECTCV; the paper itself was not at hand
(`irjax.losses.scale`, `irjax.layers.gaussian_pinwheel`).
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from irjax.data.augment import AugmentConfig
from irjax.errors import UserError
from irjax.experiments import command, common
from irjax.experiments.command import Flags
from irjax.experiments.common import MaskDecodeConfig
from irjax.inference import DetectorConfig
from irjax.layers.attention import SPATIAL_KINDS
from irjax.losses.scale import VARIANTS, scale_dynamic_loss, scale_iou_loss
from irjax.losses.segmentation import soft_iou
from irjax.models import MSHNet
from irjax.models.mshnet import DEPTHS, WIDTHS
from irjax.ops.patches import largest_in
from irjax.training.configs import LoopConfig, changed
from irjax.training.data import DataConfig
from irjax.training.loop import Result
from irjax.training.optimizers import OptimizerConfig
from irjax.training.steps import Method
from irjax.types import SegmentationLogits

ImageLoss = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
      spatial_attention: kernel of the 16 spatial attentions: a free 7x7 one, a Gaussian window of learned width on it,
        that and a fixed pinwheel, or that and a pinwheel with a learned angle.
      orient: of the rotated pinwheel: one `learned` angle a block, or at every pixel the strongest of a `bank` of four.
      free_weight: free weights under the window; False leaves the window alone.
      first_layers: the first two convolutions: 1x1 and 3x3, or of the shape of a `pinwheel` with strips of 4 and 3.
      widths: channels at each scale, finest first; every scale halves the sides.
      depths: blocks at each scale.
      channels: input channels, 1 or 3 equal ones.
      normalization: `unit` or `imagenet`.
    """

    spatial_attention: Literal["plain", "gaussian", "gaussian_pinwheel", "gaussian_pinwheel_rotated"] = "plain"
    orient: Literal["learned", "bank"] = "learned"
    free_weight: bool = True
    first_layers: Literal["plain", "pinwheel"] = "plain"
    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    channels: int = 1
    normalization: str = "imagenet"

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
    """What is minimised, on each of the masks.

    Attributes:
      name: `scale`: one minus the weighted soft IoU, plus the location loss; `dynamic`: the two balanced by the
        target's area; `soft_iou`: one minus the soft IoU with one pixel added to both areas.
      variant: weight of the IoU by the predicted and the true area; `none`: 1.
      over: of the variant `diff`: how much it minds a predicted area that is larger than the true one.
      under: of the same: how much it minds one that is smaller.
      location: distance of the centroids in polar coordinates, `centroid`; `official` as the published code has it,
        without dividing by the mass; or `none`.
      warm_epochs: first epochs, in which only the finest side output learns, with the plain IoU: the gradients of some
        weights vanish while next to nothing is predicted.
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


@dataclasses.dataclass(frozen=True)
class MshnetConfig:
    """Everything a run depends on; saved in it.

    Attributes:
      initial: weights to start from instead of random ones: a run directory, a .safetensors, or the name of shipped
        weights.
    """

    initial: str = ""
    data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(size=256))
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    decode: MaskDecodeConfig = dataclasses.field(default_factory=MaskDecodeConfig)


def quick() -> MshnetConfig:
    """The embedded default: synthetic scenes of 256x256, half the width, one block a scale, for a CPU with 2 cores.

    Cost: 1,000 steps of 8 crops of 96x96, 0.27 s of one core each.
    """
    return MshnetConfig(
        data=DataConfig(size=256, synthetic_train=1000, synthetic_val=60),
        model=ModelConfig(widths=(8, 16, 32, 64, 128), depths=(1, 1, 1, 1, 1)),
        loss=LossConfig(warm_epochs=1),
        augment=AugmentConfig(crop=96, crop_on_target=0.8, flips=True, rotations=True),
        optimizer=OptimizerConfig(rate=4e-3, warmup_epochs=0.5, clip_norm=1.0),
        loop=LoopConfig(steps=1000, batch_size=8, eval_epochs=2, steps_per_dispatch=20, averaging=0.99),
    )


def official() -> MshnetConfig:
    """The published code's recipe: Adagrad, rate 0.05 throughout, 400 epochs of batches of 4 at 256x256, 3 channels.

    Its warm phase are the epochs 0 to 5, six of them. Like the published code it scales by 0.5 to 2, crops anywhere and
    mirrors; the code's random blur is left out, and images are letterboxed rather than stretched. Cost: 400
    passes over the 530 images of NUDT-SIRST's `train` are 53,200 steps of 4 images, 6.0 GMAC forward each.
    """
    return MshnetConfig(
        model=ModelConfig(channels=3),
        loss=LossConfig(variant="variance", location="official", warm_epochs=6),
        augment=AugmentConfig(crop=256, crop_on_target=0.0, zoom=(0.5, 2.0), flips=True),
        optimizer=OptimizerConfig(name="adagrad", rate=0.05, warmup_epochs=0, schedule="constant"),
        loop=LoopConfig(epochs=400, batch_size=4, eval_epochs=10),
    )


def adamw() -> MshnetConfig:
    """irjax's own recipe: AdamW, cosine, crops of 192 around targets or anywhere, zoom, flips, right angles, averaging.

    At 256 the images of NUDT-SIRST are cropped at their own resolution; larger ones are scaled down to the canvas, for
    which `--data.size` can be raised at the same cost of a step. Nothing is published for it. Cost: 200 passes over the
    961 images of SIRST-v2's `train_full` and NUDT-SIRST's `train` are 24,200 steps of 8 crops, 3.4 GMAC forward each.
    """
    return MshnetConfig(
        augment=AugmentConfig(
            crop=192, zoom=(0.8, 1.25), flips=True, rotations=True, gain=0.2, offset=0.05, noise=0.01
        ),
        optimizer=OptimizerConfig(rate=1e-3, weight_decay=0.01, warmup_epochs=2.0, clip_norm=1.0),
        loop=LoopConfig(epochs=200, batch_size=8, eval_epochs=5, averaging=0.998),
    )


def sirst() -> MshnetConfig:
    """The first stage for SIRST-v2 and NUDT-SIRST together: native windows, balanced draws, Muon, small crops.

    Cost: 4,100 steps of 8 crops of 128x128, 0.9 s of one core each.
    """
    return MshnetConfig(
        data=DataConfig(size=256, enlarge=False, slide=True, balance=True),
        loss=LossConfig(variant="mobius", location="none", warm_epochs=2.7),
        augment=AugmentConfig(
            crop=128, zoom=(0.7, 1.4), flips=True, rotations=True, gain=0.25, offset=0.1, noise=0.015
        ),
        optimizer=OptimizerConfig(name="muon", rate=2e-3, weight_decay=0.01, warmup_epochs=0.7, clip_norm=1.0),
        loop=LoopConfig(steps=4100, batch_size=8, eval_epochs=17, averaging=0.998),
    )


def sirst_tune() -> MshnetConfig:
    """The second stage, from the first stage's weights: crops nearly as large as the windows.

    Channel attention pools over all it sees, so it has to meet what it will see in prediction: whole windows, with
    fewer targets to the area.
    """
    return changed(
        sirst(),
        loss={"warm_epochs": 0},
        augment={"crop": 224, "crop_on_target": 0.5, "zoom": (0.8, 1.25)},
        optimizer={"rate": 7e-4},
        loop={"steps": 800, "batch_size": 6},
    )


RECIPES: dict[str, Callable[[], MshnetConfig]] = {
    "quick": quick,
    "official": official,
    "adamw": adamw,
    "sirst": sirst,
    "sirst-tune": sirst_tune,
}


# --- method -----------------------------------------------------------------------------------------------------------


def image_loss(config: LossConfig) -> ImageLoss:
    """The loss of one mask: logits and target [B, H, W] to [B] float32."""
    if config.name == "soft_iou":
        return soft_iou
    weight = {
        "variant": None if config.variant == "none" else config.variant,
        "over": config.over,
        "under": config.under,
    }
    if config.name == "dynamic":
        return functools.partial(scale_dynamic_loss, **weight, location=config.location)
    location = None if config.location == "none" else config.location
    return functools.partial(scale_iou_loss, **weight, location=location)


def multiscale(loss: ImageLoss, outputs: SegmentationLogits, target: jax.Array) -> jax.Array:
    """The mean of a loss over the final mask and those of all scales, against the target max-pooled to each.

    Args:
      loss: of one mask.
      outputs: of the network.
      target: [B, H, W] bool.

    Returns:
      [B] float32.

    Source: the published code of MSHNet.
    """
    values = [loss(outputs.logits, target.astype(jnp.float32))]
    values += [loss(side, largest_in(target, target.shape[1] // side.shape[1])) for side in outputs.sides]
    return sum(values) / len(values)


def mshnet_method(config: MshnetConfig, axis_name: str | None = None) -> Method:
    """MSHNet as the shared loop sees it; predictions are probabilities [B, S, S]."""
    model = config.model
    network = MSHNet(
        **{name: getattr(model, name) for name in _NETWORK},
        axis_name=axis_name,
        dtype=jnp.bfloat16 if config.loop.bf16 else jnp.float32,
    )

    def warm_loss(outputs: SegmentationLogits, target: jax.Array) -> jax.Array:
        return scale_iou_loss(outputs.sides[0], target, variant=None)

    return Method(
        "mshnet",
        network,
        common.mask_inputs(config),
        loss=functools.partial(multiscale, image_loss(config.loss)),
        decode=lambda outputs, _: jax.nn.sigmoid(outputs.logits),
        score=common.mask_score(config),
        select="miou",
        warm_loss=warm_loss,
        warm_epochs=config.loss.warm_epochs,
    )


_NETWORK = ("spatial_attention", "orient", "free_weight", "first_layers", "widths", "depths")


def detector_config(config: MshnetConfig) -> DetectorConfig:
    """How the run's weights are to be used."""
    return common.detector_config("mshnet", config, _NETWORK)


def train(config: MshnetConfig, run: pathlib.Path) -> Result:
    """Trains or resumes a run, and leaves a directory that `irjax.load` takes.

    Args:
      config: everything the run depends on.
      run: its directory.
    """
    return common.train(config, run, method_for=mshnet_method, detector_config=detector_config, with_masks=True)


# --- ablations --------------------------------------------------------------------------------------------------------


def ablation(name: str, base: MshnetConfig) -> dict[str, MshnetConfig]:
    """The variants of an ablation: `loss`, the five weights; `attention`, the four kinds of spatial attention.

    Args:
      name: of the ablation.
      base: what all variants share.

    Raises:
      UserError: if there is no such ablation, or the loss of `base` has no weight to vary.
    """
    if name == "loss":
        if base.loss.name == "soft_iou":
            raise UserError("the ablation loss varies the weight of the IoU, and loss.name soft_iou has none")
        signed = {"over": base.loss.over, "under": base.loss.under}
        even = {"over": 1.0, "under": 1.0}
        return {v: changed(base, loss={"variant": v, **(signed if v == "diff" else even)}) for v in VARIANTS}
    if name == "attention":
        return {kind: changed(base, model={"spatial_attention": kind}) for kind in SPATIAL_KINDS}
    raise UserError(f"there is no ablation {name!r}; there are {ABLATIONS}")


ABLATIONS = ("loss", "attention")
_COLUMNS = ("miou", "niou", "pd", "fa", "f1", "IoU", "nIoU", "Pd", "Fa", "F1")


# --- command ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Command(Flags, MshnetConfig):
    """Trains MSHNet, chooses the checkpoint on validation, tests it, and says where everything lies.

    Attributes:
      recipe: sets the other flags' defaults: `quick`, the published code's `official`, `adamw`, or the two stages
        `sirst` and `sirst-tune`. Without data.root, all train on synthetic scenes.
      ablation: train the variants of one of the ablations instead: the weights of the loss, or the kinds of spatial
        attention.
    """

    config_class: ClassVar[type] = MshnetConfig

    recipe: Literal["quick", "official", "adamw", "sirst", "sirst-tune"] = "quick"
    ablation: Literal["", "loss", "attention"] = ""


EXPERIMENT = command.Experiment(
    "mshnet",
    Command,
    RECIPES,
    train,
    summary=functools.partial(common.mask_summary, "MSHNet"),
    ablation=ablation,
    columns=_COLUMNS,
    **common.masks("scale_loss"),
)
parse, main = EXPERIMENT.parse, EXPERIMENT.main

if __name__ == "__main__":
    main()
