"""ADSNet: training, validation and test; without arguments on synthetic scenes.

    python -m irjax.experiments.adsnet
    python -m irjax.experiments.adsnet --recipe official --data.root DIR --data.train train --data.val val
    python -m irjax.experiments.adsnet --ablation ratios

Source: ADSNet (doi 10.1109/ACCESS.2024.3373436); `irjax.models.adsnet` and `irjax.losses.adsnet` state what is from the
paper and what is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from irjax.data.augment import AugmentConfig
from irjax.data.splits import DataConfig
from irjax.experiments.ablation import change
from irjax.experiments.command import Experiment
from irjax.experiments.run import RunConfig
from irjax.methods.adsnet import METHOD, LossConfig, ModelConfig
from irjax.methods.common import MaskDecodeConfig
from irjax.moved import moved
from irjax.training.configs import LoopConfig, replace_parts
from irjax.training.optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class AdsnetConfig(RunConfig):
    """Everything a run depends on; saved with it."""

    data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(size=256))
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    decode: MaskDecodeConfig = dataclasses.field(default_factory=MaskDecodeConfig)


def quick() -> AdsnetConfig:
    """The built-in default: synthetic scenes of 256x256, a quarter of the width, for a CPU with 2 cores."""
    return AdsnetConfig(
        data=DataConfig(size=256, synthetic_train=1000, synthetic_val=60),
        model=ModelConfig(width=32, widths=(16, 32, 64)),
        augment=AugmentConfig(crop=128, crop_on_target=0.8, flips=True, rotations=True),
        optimizer=OptimizerConfig(rate=3e-3, warmup_epochs=0.5, clip_norm=1.0),
        loop=LoopConfig(steps=1000, batch_size=8, eval_epochs=2, steps_per_dispatch=20, averaging=0.99),
    )


def official() -> AdsnetConfig:
    """The paper's loss and schedule: SGD, 50,000 steps, rate 0.02 after 4,000, a tenth of it at 30,000 and 40,000.

    Momentum, weight decay, clipping, batch size and augmentation are not in the paper. Used here: 0.9, 1e-4, a norm of
    10, 16 (the batch size that this rate belongs to in detectron2) and mirrored images. `optimizer.warmup_epochs` is
    computed for the 530 images of NUDT-SIRST's `train`, 34 steps an epoch. The paper reports an nIoU of .8594 and a Pd
    of .9816 on NUDT-SIRST.
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

    L_seg is cross-entropy and soft IoU, and the weight on the recall of patches is doubled;
    experiments/adsnet/README.md describes their effect. There is no zoom and no noise: on NUDT-SIRST alone, 900 steps
    gave an nIoU of .613 with mirrored and rotated crops only, and .553 with changes of size, contrast and noise as
    well. Cost: 10,000 steps of 8 crops of 96x96, 0.43 s on one core each.
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

    Channel attention pools over its whole input, so it has to be trained on inputs like those in prediction.
    """
    return replace_parts(
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

# The paper's Tables 4 to 8.
ABLATIONS = {
    "attention": {
        "both": change(),
        "without channel": change(model={"channel_attention": False}),
        "without spatial": change(model={"spatial_attention": False}),
        "without distribution": change(model={"levels": ()}),
    },
    "distribution": {
        "4": change(model={"levels": (4,)}),
        "3 4": change(model={"levels": (3, 4)}),
        "2 3 4": change(model={"levels": (2, 3, 4)}),
    },
    "score": {"with IoU score": change(), "without": change(model={"iou_score": False})},
    "grid": {f"{256 // cell}": change(model={"cell": cell}) for cell in (64, 32, 16, 8)},
    "ratios": {
        ".2 .4": change(model={"dropped": (0.2, 0.4)}),
        ".25 .5": change(model={"dropped": (0.25, 0.5)}),
        ".3 .6": change(model={"dropped": (0.3, 0.6)}),
        "- .25": change(model={"dropped": (None, 0.25)}),
        "none": change(model={"dropped": (None, None)}),
    },
}
_COLUMNS = (
    *("miou", "niou", "pd", "fa", "recall3", "recall2", "IoU", "nIoU", "Pd", "Fa"),
    *("nIoU (adsnet)", "Pd (adsnet)", "Fa (adsnet)"),
)

EXPERIMENT = Experiment(METHOD, "ADSNet", AdsnetConfig, RECIPES, ABLATIONS, _COLUMNS)
train, parse, main = EXPERIMENT.train, EXPERIMENT.parse, EXPERIMENT.main
__getattr__ = moved(__name__, {"adsnet_method": "irjax.methods.adsnet:objective"})

if __name__ == "__main__":
    main()
