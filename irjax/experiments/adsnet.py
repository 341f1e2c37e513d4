"""ADSNet: train, validate and test; without arguments on synthetic scenes.

    python -m irjax.experiments.adsnet
    python -m irjax.experiments.adsnet --recipe official --data.root DIR --data.train train --data.val val
    python -m irjax.experiments.adsnet --ablation ratios

Source: ADSNet (doi 10.1109/ACCESS.2024.3373436); see `irjax.models.adsnet` and `irjax.losses.adsnet` for what is the
paper's and what is not.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from irjax.data.augment import AugmentConfig
from irjax.errors import UserError
from irjax.experiments import command, common
from irjax.experiments.command import Flags
from irjax.experiments.common import MaskDecodeConfig
from irjax.inference import DetectorConfig
from irjax.losses.adsnet import adsnet_loss, check_segmentation, target_patch_recall
from irjax.models import ADSNet
from irjax.models.adsnet import AdsnetOutputs
from irjax.models.resnet import WIDTHS
from irjax.training.configs import LoopConfig, changed
from irjax.training.data import DataConfig
from irjax.training.loop import Result
from irjax.training.optimizers import OptimizerConfig
from irjax.training.steps import Method


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
      width: channels of the pyramid.
      widths: channels of the backbone's stages.
      levels: that the distribution serves, of 2, 3, 4; none: no distribution.
      channel_attention: in the distribution.
      spatial_attention: in the distribution.
      iou_score: predict how well each site's neighbourhood is segmented.
      cell: side in pixels of the patches that are kept or dropped.
      dropped: fractions of all patches dropped at levels 3 and 2; none where None.
      rescore: weigh probabilities with class and IoU score.
      channels: input channels, 1 or 3 equal ones.
      normalization: `unit` or `imagenet`.
    """

    width: int = 128
    widths: tuple[int, ...] = WIDTHS
    levels: tuple[int, ...] = (3, 4)
    channel_attention: bool = True
    spatial_attention: bool = True
    iou_score: bool = True
    cell: int = 16
    dropped: tuple[float | None, float | None] = (0.25, 0.5)
    rescore: bool = False
    channels: int = 1
    normalization: str = "imagenet"


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of the pixels, and what Equation 7 leaves open.

    Attributes:
      segmentation: the terms of L_seg (`irjax.losses.adsnet.adsnet_loss`): the paper's `focal`, or other sums of
        `focal`, `cross_entropy` and `soft_iou`. Where a config of before has one name instead of several, the soft IoU
        was always added to it, and where it has none, that was `focal`.
      sparsity_weight: of the squared difference between kept and wanted fraction of patches.
      recall_weight: of the cross-entropy between decisions and the cells that have a target nearby.
    """

    segmentation: tuple[Literal["focal", "cross_entropy", "soft_iou"], ...] = ("focal",)
    sparsity_weight: float = 2.0
    recall_weight: float = 0.5

    def __post_init__(self) -> None:
        check_segmentation(self.segmentation, "loss.segmentation")
        if min(self.sparsity_weight, self.recall_weight) < 0:
            raise UserError("loss.sparsity_weight and loss.recall_weight must not be negative")


@dataclasses.dataclass(frozen=True)
class AdsnetConfig:
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


def quick() -> AdsnetConfig:
    """The embedded default: synthetic scenes of 256x256, a quarter of the width, for a CPU with 2 cores."""
    return AdsnetConfig(
        data=DataConfig(size=256, synthetic_train=1000, synthetic_val=60),
        model=ModelConfig(width=32, widths=(16, 32, 64)),
        augment=AugmentConfig(crop=128, crop_on_target=0.8, flips=True, rotations=True),
        optimizer=OptimizerConfig(rate=3e-3, warmup_epochs=0.5, clip_norm=1.0),
        loop=LoopConfig(steps=1000, batch_size=8, eval_epochs=2, steps_per_dispatch=20, averaging=0.99),
    )


def official() -> AdsnetConfig:
    """The paper's loss and schedule: SGD, 50,000 steps, rate 0.02 after 4,000, a tenth of it at 30,000 and 40,000.

    Momentum, weight decay, clipping, batch size and augmentation are not in the paper: .9, 1e-4, a norm of 10, 16,
    which is what the rate is for in detectron2, and mirrored images. `optimizer.warmup_epochs` is for the 530 images of
    NUDT-SIRST's `train`, 34 steps an epoch. The paper reports an nIoU of .8594 and a Pd of .9816 on NUDT-SIRST.
    """
    return AdsnetConfig(
        model=ModelConfig(channels=3),
        augment=AugmentConfig(flips=True),
        optimizer=OptimizerConfig(
            name="sgd", rate=0.02, weight_decay=1e-4, warmup_epochs=4000 / 34, schedule="steps", clip_norm=10.0
        ),
        loop=LoopConfig(steps=50_000, batch_size=16, eval_epochs=30),
    )


def sirst() -> AdsnetConfig:
    """The first stage for SIRST-v2 and NUDT-SIRST together: native windows, balanced draws, Muon, small crops.

    Cross-entropy and soft IoU in L_seg and twice the weight on the recall of patches: experiments/adsnet/README.md has
    what they do. No zoom and no noise: on NUDT-SIRST alone, 900 steps gave an nIoU of .613 with mirrored and turned
    crops alone, .553 with other sizes, contrasts and noise as well. Cost: 10,000 steps of 8 crops of 96x96, 0.43 s of
    one core each.
    """
    return AdsnetConfig(
        data=DataConfig(size=256, enlarge=False, slide=True, balance=True),
        loss=LossConfig(segmentation=("cross_entropy", "soft_iou"), recall_weight=1.0),
        augment=AugmentConfig(crop=96, flips=True, rotations=True, gain=0.15, offset=0.05),
        optimizer=OptimizerConfig(name="muon", rate=2e-3, weight_decay=0.01, warmup_epochs=0.7, clip_norm=1.0),
        loop=LoopConfig(steps=10_000, batch_size=8, eval_epochs=21, averaging=0.998),
    )


def sirst_tune() -> AdsnetConfig:
    """The second stage, from the first stage's weights: crops nearly as large as the windows.

    Channel attention pools over all it sees, so it has to meet what it will see in prediction.
    """
    return changed(
        sirst(),
        augment={"crop": 192, "crop_on_target": 0.5},
        optimizer={"rate": 5e-4},
        loop={"steps": 700, "batch_size": 6, "eval_epochs": 100},
    )


RECIPES: dict[str, Callable[[], AdsnetConfig]] = {
    "quick": quick,
    "official": official,
    "sirst": sirst,
    "sirst-tune": sirst_tune,
}


# --- method -----------------------------------------------------------------------------------------------------------

_NETWORK = (
    "width", "widths", "levels", "channel_attention", "spatial_attention", "iou_score", "cell", "dropped", "rescore",
)  # fmt: skip


def adsnet_method(config: AdsnetConfig, axis_name: str | None = None) -> Method:
    """ADSNet as the shared loop sees it; predictions are probabilities [B, S, S], and patches with targets."""
    network = ADSNet(
        **{name: getattr(config.model, name) for name in _NETWORK if name != "rescore"},
        heads=True,
        axis_name=axis_name,
        dtype=jnp.bfloat16 if config.loop.bf16 else jnp.float32,
    )

    def decode(outputs: AdsnetOutputs, target: jax.Array) -> dict[str, jax.Array]:
        return {"maps": jax.nn.sigmoid(outputs.logits), "counts": target_patch_recall(outputs.masks, target)}

    def recalls(counts: np.ndarray) -> dict[str, float]:
        return {f"recall{level}": kept / occupied for level, (kept, occupied) in zip((3, 2), counts, strict=True)}

    return Method(
        "adsnet",
        network,
        common.mask_inputs(config),
        loss=functools.partial(
            adsnet_loss,
            cell=config.model.cell,
            dropped=config.model.dropped,
            segmentation=config.loss.segmentation,
            sparsity_weight=config.loss.sparsity_weight,
            recall_weight=config.loss.recall_weight,
        ),
        decode=decode,
        score=common.mask_and_count_score(config, recalls),
        select="niou",
        extra=lambda keys: {"keys": keys},
    )


def detector_config(config: AdsnetConfig) -> DetectorConfig:
    """How the run's weights are to be used."""
    return common.detector_config("adsnet", config, _NETWORK)


def train(config: AdsnetConfig, run: pathlib.Path) -> Result:
    """Trains or resumes a run, and leaves a directory that `irjax.load` takes.

    Args:
      config: everything the run depends on.
      run: its directory.
    """
    return common.train(config, run, method_for=adsnet_method, detector_config=detector_config, with_masks=True)


# --- ablations --------------------------------------------------------------------------------------------------------

# The paper's Tables 4 to 8.
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "attention": {
        "both": {},
        "without channel": {"channel_attention": False},
        "without spatial": {"spatial_attention": False},
        "without distribution": {"levels": ()},
    },
    "distribution": {"4": {"levels": (4,)}, "3 4": {"levels": (3, 4)}, "2 3 4": {"levels": (2, 3, 4)}},
    "score": {"with IoU score": {}, "without": {"iou_score": False}},
    "grid": {f"{256 // cell}": {"cell": cell} for cell in (64, 32, 16, 8)},
    "ratios": {
        ".2 .4": {"dropped": (0.2, 0.4)},
        ".25 .5": {"dropped": (0.25, 0.5)},
        ".3 .6": {"dropped": (0.3, 0.6)},
        "- .25": {"dropped": (None, 0.25)},
        "none": {"dropped": (None, None)},
    },
}
_COLUMNS = (
    *("miou", "niou", "pd", "fa", "recall3", "recall2", "IoU", "nIoU", "Pd", "Fa"),
    *("nIoU (adsnet)", "Pd (adsnet)", "Fa (adsnet)"),
)


def ablation(name: str, base: AdsnetConfig) -> dict[str, AdsnetConfig]:
    """The variants of an ablation, by what a variant is called in its table.

    Args:
      name: a key of `ABLATIONS`.
      base: what all variants share.

    Raises:
      UserError: if there is no such ablation.
    """
    if name not in ABLATIONS:
        raise UserError(f"there is no ablation {name!r}; there are {tuple(ABLATIONS)}")
    return {variant: changed(base, model=changes) for variant, changes in ABLATIONS[name].items()}


# --- command ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Command(Flags, AdsnetConfig):
    """Trains ADSNet, chooses the checkpoint on validation, tests it, and says where everything lies.

    Attributes:
      recipe: sets the other flags' defaults: `quick`, the paper's `official`, or irjax's own `sirst` and `sirst-tune`.
        Without data.root, all train on synthetic scenes.
      ablation: train the variants of one of the paper's ablations (Tables 4 to 8) instead.
    """

    config_class: ClassVar[type] = AdsnetConfig

    recipe: Literal["quick", "official", "sirst", "sirst-tune"] = "quick"
    ablation: Literal["", "attention", "distribution", "score", "grid", "ratios"] = ""


EXPERIMENT = command.Experiment(
    "adsnet",
    Command,
    RECIPES,
    train,
    summary=functools.partial(common.mask_summary, "ADSNet"),
    ablation=ablation,
    columns=_COLUMNS,
    **common.masks(),
)
parse, main = EXPERIMENT.parse, EXPERIMENT.main

if __name__ == "__main__":
    main()
