"""MSHNet with scale losses: training, validation and test; without arguments on synthetic scenes.

    python -m irjax.experiments.mshnet
    python -m irjax.experiments.mshnet --recipe official --data.root DIR --data.train train --data.val val
    python -m irjax.experiments.mshnet --loss.variant ratio --model.spatial-attention gaussian_pinwheel_rotated

Sources: Liu et al., "Infrared Small Target Detection with Scale and Location Sensitivity", CVPR 2024, and its published
code, for the network, the weight `variance`, the location loss and the recipe `official`. The other weights and kinds
of spatial attention reconstruct "Revisiting the Scale Loss Function and Gaussian-Shape Convolution for Infrared Small
Target Detection" (arXiv 2604.09991) from its abstract and the public repository ECTCV; the paper itself was not
available (`irjax.losses.scale`, `irjax.layers.gaussian_pinwheel`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from irjax.data.augment import AugmentConfig
from irjax.data.splits import DataConfig
from irjax.errors import UserError
from irjax.evaluation.detectors import MASK_PROTOCOLS
from irjax.experiments.ablation import Change, change
from irjax.experiments.command import Experiment
from irjax.experiments.run import RunConfig
from irjax.layers.attention import SPATIAL_KINDS
from irjax.losses.scale import VARIANTS
from irjax.methods.common import MaskDecodeConfig
from irjax.methods.mshnet import METHOD, LossConfig, ModelConfig
from irjax.moved import moved
from irjax.training.configs import LoopConfig, replace_parts
from irjax.training.optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class MshnetConfig(RunConfig):
    """Everything a run depends on; saved with it."""

    data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(size=256))
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    decode: MaskDecodeConfig = dataclasses.field(default_factory=MaskDecodeConfig)


def quick() -> MshnetConfig:
    """The built-in default: synthetic scenes of 256x256, half the width, one block a scale, for a CPU with 2 cores.

    Cost: 1,000 steps of 8 crops of 96x96, 0.27 s on one core each.
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

    Its warm phase is the six epochs 0 to 5. Like the published code it scales by 0.5 to 2, crops anywhere and mirrors.
    Unlike the published code, it has no random blur, and images are letterboxed instead of stretched. Cost: 400 passes
    over the 530 images of NUDT-SIRST's `train` are 53,200 steps of 4 images, 6.0 GMAC forward each.
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

    At 256 the images of NUDT-SIRST are cropped at their own resolution; larger images are scaled down to the canvas,
    and `--data.size` can be raised for them at the same cost per step. There are no published results for it. Cost: 200
    passes over the 961 images of SIRST-v2's `train_full` and NUDT-SIRST's `train` are 24,200 steps of 8 crops, 3.4 GMAC
    forward each.
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

    Cost: 4,100 steps of 8 crops of 128x128, 0.9 s on one core each.
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

    Channel attention pools over its whole input, so it has to be trained on inputs like those in prediction: whole
    windows, with fewer targets per area.
    """
    return replace_parts(
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


def _weighing(variant: str) -> Change:
    def weigh(base: MshnetConfig) -> MshnetConfig:
        if base.loss.name == "soft_iou":
            raise UserError("the ablation loss varies the weight of the IoU, and loss.name soft_iou has none")
        own = {} if variant == "diff" else {"over": 1.0, "under": 1.0}  # these apply to that variant only
        return replace_parts(base, loss={"variant": variant, **own})

    return weigh


ABLATIONS = {
    "loss": {variant: _weighing(variant) for variant in VARIANTS},
    "attention": {kind: change(model={"spatial_attention": kind}) for kind in SPATIAL_KINDS},
}
_COLUMNS = ("miou", "niou", "pd", "fa", "f1", "IoU", "nIoU", "Pd", "Fa", "F1")

EXPERIMENT = Experiment(
    METHOD, "MSHNet", MshnetConfig, RECIPES, ABLATIONS, _COLUMNS, protocols=(*MASK_PROTOCOLS, "scale_loss")
)
train, parse, main = EXPERIMENT.train, EXPERIMENT.parse, EXPERIMENT.main
__getattr__ = moved(__name__, {"mshnet_method": "irjax.methods.mshnet:objective"})

if __name__ == "__main__":
    main()
