"""SPIRE: train, validate and test; without arguments on synthetic scenes.

    python -m irjax.experiments.spire
    python -m irjax.experiments.spire --recipe official --data.root DIR --data.train train_full --data.val val_full

Source: "Rethinking IRSTD: Single-Point Supervision Guided Encoder-only Framework is Enough for Infrared Small Target
Detection", arXiv 2604.05363.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from irjax.data.augment import AugmentConfig, augment
from irjax.errors import UserError
from irjax.experiments import command, common
from irjax.experiments.command import Flags
from irjax.experiments.common import test
from irjax.inference import Detector, DetectorConfig
from irjax.losses import heatmap_mse
from irjax.models import HRPE
from irjax.ops.normalize import normalize, to_unit
from irjax.ops.peaks import decode_heatmap
from irjax.targets import prps
from irjax.training.configs import LoopConfig, changed
from irjax.training.data import DataConfig
from irjax.training.loop import Result
from irjax.training.optimizers import OptimizerConfig
from irjax.training.points import score_points
from irjax.training.steps import Method
from irjax.types import Batch, Detections

# Validation decodes down to this score, so that one pass serves every threshold of the sweep.
_SWEEP_FLOOR = 0.05


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network (Table 3's switches).

    Attributes:
      stride: pixels per heatmap cell: 2, 4 or 8.
      shuffle: channel reorganisation.
      reweight: channel weighting; off: plain shuffle units in place of the channel-weighting units.
      width: channels of the stem; the paper's network has 64.
      channels: input channels, 1 or 3 equal ones.
      normalization: `unit` or `imagenet`.
    """

    stride: int = 4
    shuffle: bool = True
    reweight: bool = True
    width: int = 64
    channels: int = 1
    normalization: str = "imagenet"


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """What the network regresses (Table 2).

    Attributes:
      form: `prps`, `gaussian` or `impulse`.
      sigma: deviation of the Gaussian in heatmap cells; its support has the radius 3 sigma.
      aggregate: `max` or `average` where targets overlap.
      centre: of the Gaussian: the `cell` of the point, as in the published code, or that of the radiometric `peak`, as
        in the paper (Eq. 3).
    """

    form: str = "prps"
    sigma: float = 2.0
    aggregate: str = "max"
    centre: Literal["cell", "peak"] = "cell"


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """How heatmaps become points (the paper's Section 3.4).

    Attributes:
      threshold: lowest score of a detection; the checkpoint is chosen at it.
      max_detections: most points an image can have.
    """

    threshold: float = 0.35
    max_detections: int = 32


@dataclasses.dataclass(frozen=True)
class SpireConfig:
    """Everything a run depends on; saved in it.

    Attributes:
      initial: weights to start from instead of random ones: a run directory, a .safetensors, a .pth, or the name of
        shipped weights.
    """

    initial: str = ""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    target: TargetConfig = dataclasses.field(default_factory=TargetConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    decode: DecodeConfig = dataclasses.field(default_factory=DecodeConfig)


def quick() -> SpireConfig:
    """The embedded default: synthetic scenes of 256x256 and a network of half the width, for a CPU with 2 cores."""
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

    Its published SIRST4 weights, measured here at 512, tau .35, N_max 8: F1 .979 on SIRST-v2 val_full. It takes 3 equal
    channels, a random zoom in [1, 1.15] about the centre, and averaged targets.
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
    scores come out too high; this stage settles them.
    """
    return changed(
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


def spire_method(config: SpireConfig, axis_name: str | None = None) -> Method:
    """SPIRE as the shared loop sees it."""
    model, target = config.model, config.target
    network = HRPE(
        stride=model.stride,
        shuffle=model.shuffle,
        reweight=model.reweight,
        width=model.width,
        axis_name=axis_name,
        dtype=jnp.bfloat16 if config.loop.bf16 else jnp.float32,
    )

    def prepare(batch: Batch, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        images, points, mask = to_unit(batch.images), batch.points, batch.mask
        if keys is not None:
            varied = jax.vmap(functools.partial(augment, config=config.augment))(
                keys, images, points, mask, None, batch.extent
            )
            images, points, mask = varied.image, varied.points, varied.mask
        wanted = prps(
            images,
            points,
            mask,
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
    return Method("spire", network, prepare, heatmap_mse, decode, score, select="f1")


def detector_config(config: SpireConfig) -> DetectorConfig:
    """How the run's weights are to be used."""
    return common.detector_config("spire", config, ("stride", "shuffle", "reweight", "width"))


def train(config: SpireConfig, run: pathlib.Path) -> Result:
    """Trains or resumes a run, and leaves a directory that `irjax.load` takes.

    Args:
      config: everything the run depends on.
      run: its directory.
    """
    return common.train(config, run, method_for=spire_method, detector_config=detector_config)


# --- ablations --------------------------------------------------------------------------------------------------------


def ablation(name: str, base: SpireConfig) -> dict[str, SpireConfig]:
    """The variants of one of the paper's ablations: Table 2 `supervision`, `scale`; Table 3 `stride`, `components`.

    Args:
      name: of the ablation.
      base: what all variants share.

    Raises:
      UserError: if there is no such ablation.
    """
    target = lambda **changes: changed(base, target=changes)  # noqa: E731
    model = lambda **changes: changed(base, model=changes)  # noqa: E731
    if name == "supervision":
        return {form: target(form=form) for form in ("impulse", "gaussian", "prps")}
    if name == "scale":
        return {f"sigma {sigma:g}, r {3 * sigma:g}": target(sigma=sigma) for sigma in (1.0, 2.0, 3.0)}
    if name == "stride":
        return {f"stride {stride}": model(stride=stride) for stride in (2, 4, 8)}
    if name == "components":
        return {
            "neither": model(shuffle=False, reweight=False),
            "channel reorganisation": model(reweight=False),
            "reweighting": model(shuffle=False),
            "both": base,
        }
    raise UserError(f"there is no ablation {name!r}; there are {ABLATIONS}")


ABLATIONS = ("supervision", "scale", "stride", "components")
_COLUMNS = ("f1", "precision", "recall", "fa", "best_f1", "best_threshold", "F1", "Precision", "Recall", "Fa")


# --- command ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Command(Flags, SpireConfig):
    """Trains SPIRE, chooses the checkpoint on validation, tests it, and says where everything lies.

    Attributes:
      recipe: sets the other flags' defaults: `quick`, the paper's `paper`, the published code's `official`, or `sirst`
        and `sirst-tune`, the two stages of the shipped weights. Without data.root, all train on synthetic scenes.
      ablation: train the variants of one of the paper's ablations (Tables 2 and 3) instead.
    """

    config_class: ClassVar[type] = SpireConfig

    recipe: Literal["quick", "paper", "official", "sirst", "sirst-tune"] = "quick"
    ablation: Literal["", "supervision", "scale", "stride", "components"] = ""


def _summary(report: dict[str, Any], detector: Detector, tophat: dict[str, float]) -> list[str]:
    f1, best = report["metrics"]["F1"], report["best"]["f1"]
    return [
        f"SPIRE    F1 {f1:.3f} at threshold {detector.config.threshold:g}; best of the sweep {best:.3f}",
        f"top-hat  F1 {tophat['f1']:.3f} at its best threshold, {f1 - tophat['f1']:.3f} lower",
    ]


EXPERIMENT = command.Experiment("spire", Command, RECIPES, train, test, _summary, ablation, _COLUMNS)
parse, main = EXPERIMENT.parse, EXPERIMENT.main

if __name__ == "__main__":
    main()
