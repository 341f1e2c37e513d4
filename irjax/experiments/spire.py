"""SPIRE: training, validation and test; without arguments on synthetic scenes.

    python -m irjax.experiments.spire
    python -m irjax.experiments.spire --recipe official --data.root DIR --data.train train_full --data.val val_full

Source: "Rethinking IRSTD: Single-Point Supervision Guided Encoder-only Framework is Enough for Infrared Small Target
Detection", arXiv 2604.05363.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from irjax.data.augment import AugmentConfig
from irjax.data.splits import DataConfig
from irjax.experiments.ablation import change
from irjax.experiments.command import Experiment
from irjax.experiments.run import RunConfig
from irjax.methods.spire import METHOD, DecodeConfig, ModelConfig, TargetConfig
from irjax.moved import moved
from irjax.training.configs import LoopConfig, replace_parts
from irjax.training.optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class SpireConfig(RunConfig):
    """Everything a run depends on; saved with it."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    target: TargetConfig = dataclasses.field(default_factory=TargetConfig)
    decode: DecodeConfig = dataclasses.field(default_factory=DecodeConfig)


def quick() -> SpireConfig:
    """The built-in default: synthetic scenes of 256x256 and a network of half the width, for a CPU with 2 cores."""
    return SpireConfig(
        data=DataConfig(size=256, synthetic_train=1500, synthetic_val=100),
        model=ModelConfig(width=32),
        augment=AugmentConfig(crop=128, crop_on_target=0.3, flips=True, rotations=True),
        optimizer=OptimizerConfig(rate=4e-3, warmup_epochs=0.5, clip_norm=1.0),
        loop=LoopConfig(steps=2600, batch_size=8, eval_epochs=5, steps_per_dispatch=20, averaging=0.99),
    )


def paper() -> SpireConfig:
    """The paper's recipe (Section 4.1): Adam, rate 0.01, plateau factor 0.01 and patience 3, batch 10, 400 epochs.

    Published on SIRST4 at 512: precision 95.00, recall 94.21, F1 94.60, Fa 28.53e-8. Cost: 400 passes over SIRST4's
    2,285 training images are 91,400 steps of 10 images, 4.8 GMAC forward each.
    """
    return SpireConfig(
        target=TargetConfig(centre="peak"),
        optimizer=OptimizerConfig(
            name="adam", rate=0.01, warmup_epochs=0, schedule="constant", plateau_factor=0.01, plateau_patience=3
        ),
        loop=LoopConfig(epochs=400, batch_size=10, eval_epochs=10),
    )


def official() -> SpireConfig:
    """The published code's recipe: AdamW, rate 0.005, warm-up, plateau factor 0.1 every 10 epochs, batch 8, 230 epochs.

    Its published SIRST4 weights reach an F1 of .979 on SIRST-v2 val_full, measured with irjax at 512, tau .35, N_max 8.
    It uses 3 equal channels, a random zoom in [1, 1.15] about the centre, and averaged targets.
    """
    return SpireConfig(
        model=ModelConfig(channels=3),
        target=TargetConfig(aggregate="average"),
        augment=AugmentConfig(zoom=(1.0, 1.15)),
        optimizer=OptimizerConfig(rate=0.005, schedule="constant", plateau_factor=0.1, plateau_patience=3),
        loop=LoopConfig(epochs=230, batch_size=8, eval_epochs=10),
    )


def sirst() -> SpireConfig:
    """The recipe of the shipped weights `spire-sirst`: crops, injected targets, balanced draws, averaged weights."""
    return SpireConfig(
        data=DataConfig(balance=True),
        augment=AugmentConfig(
            crop=160,
            zoom=(0.7, 1.4),
            flips=True,
            rotations=True,
            gain=0.25,
            offset=0.1,
            noise=0.015,
            inject=2,
            inject_share=0.2,
            inject_scr=(4.0, 25.0),
            inject_sigma=(1.0, 3.5),
        ),
        optimizer=OptimizerConfig(rate=3e-3, weight_decay=0.01, warmup_epochs=1.0, clip_norm=1.0),
        loop=LoopConfig(steps=6500, batch_size=12, eval_epochs=10, averaging=0.998),
    )


def sirst_tune() -> SpireConfig:
    """The second stage of `spire-sirst`, from the first stage's weights: large crops at the density of real images.

    The first stage draws its crops around targets, so targets are about ten times as dense there as in whole images and
    scores are too high; this stage corrects them.
    """
    return replace_parts(
        sirst(),
        augment={
            "crop": 320,
            "crop_on_target": 0.3,
            "zoom": (0.75, 1.33),
            "inject_share": 0.1,
            "inject_scr": (6.0, 30.0),
        },
        optimizer={"rate": 1.5e-3, "warmup_epochs": 0.5},
        loop={"steps": 5000, "batch_size": 4, "eval_epochs": 3},
    )


RECIPES: dict[str, Callable[[], SpireConfig]] = {
    "quick": quick,
    "paper": paper,
    "official": official,
    "sirst": sirst,
    "sirst-tune": sirst_tune,
}

# The paper's Tables 2 (`supervision`, `scale`) and 3 (`stride`, `components`).
ABLATIONS = {
    "supervision": {form: change(target={"form": form}) for form in ("impulse", "gaussian", "prps")},
    "scale": {f"sigma {sigma:g}, r {3 * sigma:g}": change(target={"sigma": sigma}) for sigma in (1.0, 2.0, 3.0)},
    "stride": {f"stride {stride}": change(model={"stride": stride}) for stride in (2, 4, 8)},
    "components": {
        "neither": change(model={"shuffle": False, "reweight": False}),
        "channel reorganisation": change(model={"reweight": False}),
        "reweighting": change(model={"shuffle": False}),
        "both": change(),
    },
}
_COLUMNS = ("f1", "precision", "recall", "fa", "best_f1", "best_threshold", "F1", "Precision", "Recall", "Fa")

EXPERIMENT = Experiment(METHOD, "SPIRE", SpireConfig, RECIPES, ABLATIONS, _COLUMNS)
train, parse, main = EXPERIMENT.train, EXPERIMENT.parse, EXPERIMENT.main
__getattr__ = moved(__name__, {"spire_method": "irjax.methods.spire:objective"})

if __name__ == "__main__":
    main()
