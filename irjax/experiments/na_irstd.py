"""Na-IRSTD: train in two stages, validate and test; without arguments on synthetic scenes.

    python -m irjax.experiments.na_irstd
    python -m irjax.experiments.na_irstd --recipe official --data.root DIR --data.train train --data.val val
    python -m irjax.experiments.na_irstd --ablation labels

The first stage teaches the native branch and its scorer which patches are relevant; the second everything but the
scorer to segment. Source: Na-IRSTD (arXiv 2605.05804); see `irjax.models.na_irstd`, `irjax.targets.relevance` and
`irjax.losses.na_irstd` for what is the paper's and what is not.
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
from irjax.errors import MissingFileError, UsageError, UserError
from irjax.experiments import command, common
from irjax.experiments.command import Flags
from irjax.experiments.common import MaskDecodeConfig
from irjax.inference import DetectorConfig
from irjax.losses.na_irstd import na_irstd_loss, score_loss, selection_counts
from irjax.models import NaIRSTD
from irjax.models.na_irstd import NaIrstdOutputs
from irjax.models.repvit import DEPTHS, WIDTHS
from irjax.reports.files import read_json
from irjax.targets.relevance import relevance
from irjax.training.checkpoints import saved_steps
from irjax.training.configs import LoopConfig, changed
from irjax.training.data import DataConfig
from irjax.training.loop import Result
from irjax.training.optimizers import OptimizerConfig
from irjax.training.steps import Method


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
      branch: of native resolution: patch by patch, `cnn` on the whole image without the mixer, or `none`.
      selected: K, how many patches tell their details; none: all.
      score_per_stage: select for each of the four stages by its own score.
      native_width: channels of the native branch.
      widths: channels of the backbone's stages.
      depths: blocks in the backbone's stages.
      stem_stride: 4, or 1 for a backbone that starts at full resolution.
      decoder_width: channels of the decoder.
      decoder_hidden: channels of the decoder's feed-forward layers.
      remat: compute the native branch again in the backward pass: less memory, more time.
      channels: input channels, 1 or 3 equal ones.
      normalization: `unit` or `imagenet`.
    """

    branch: Literal["patch", "cnn", "none"] = "patch"
    selected: int | None = 5
    score_per_stage: bool = False
    native_width: int = 32
    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    stem_stride: int = 4
    decoder_width: int = 128
    decoder_hidden: int = 1024
    remat: bool = False
    channels: int = 1
    normalization: str = "imagenet"


@dataclasses.dataclass(frozen=True)
class RelevanceConfig:
    """What the scorer learns, and the first stage, which teaches it.

    Attributes:
      label: `soft`, falling with the distance to the nearest target, or `hard`: is there a target's pixel.
      decay: of the soft label, for each pixel of distance.
      weight: of the scorer's loss where there is one stage alone.
      native_rate: of the native branch in the second stage, as a part of the others' rate.
      steps: of the first stage; 0: as many epochs as `epochs`.
      epochs: of the first stage.
      eval_epochs: epochs from one validation of the first stage to the next.
      rate: highest learning rate of the first stage.
    """

    label: Literal["soft", "hard"] = "soft"
    decay: float = 0.1
    weight: float = 1.0
    native_rate: float = 0.1
    steps: int = 0
    epochs: float = 500
    eval_epochs: float = 10
    rate: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.decay, self.rate) <= 0 or min(self.weight, self.native_rate) < 0:
            raise UserError("relevance.decay and rate must be positive, weight and native_rate not negative")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of the masks.

    Attributes:
      cross_entropy: what its sum over the pixels is divided by: all `pixels`, or those of `targets`, at least 32.
    """

    cross_entropy: Literal["pixels", "targets"] = "pixels"


@dataclasses.dataclass(frozen=True)
class NaIrstdConfig:
    """Everything a run depends on; saved in it.

    Attributes:
      initial: weights to start from instead of random ones: a run directory, a .safetensors, or the name of shipped
        weights.
      stages: `two`, or `one` that learns relevance and masks together.
      stage: of two, the only one to train: 1, or 2, which starts from `initial` or the first in RUN/stage1; 0 both.
    """

    initial: str = ""
    stages: Literal["two", "one"] = "two"
    stage: Literal[0, 1, 2] = 0
    data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(size=256))
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    relevance: RelevanceConfig = dataclasses.field(default_factory=RelevanceConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    decode: MaskDecodeConfig = dataclasses.field(default_factory=MaskDecodeConfig)

    def __post_init__(self) -> None:
        if self.stage and not self.two:
            raise UserError("stage picks one of two stages: stages one, or a model.branch of none, has no second")

    @property
    def two(self) -> bool:
        """Whether there are two stages: without a native branch there is nothing to learn first."""
        return self.stages == "two" and self.model.branch != "none"


def quick() -> NaIrstdConfig:
    """The embedded default: synthetic scenes of 256x256, narrow and shallow, for a CPU with 2 cores."""
    return NaIrstdConfig(
        data=DataConfig(size=256, synthetic_train=600, synthetic_val=60),
        model=ModelConfig(
            native_width=16, widths=(16, 32, 48, 64), depths=(1, 1, 2, 1), decoder_width=32, decoder_hidden=64
        ),
        relevance=RelevanceConfig(steps=150, eval_epochs=2, rate=3e-3),
        augment=AugmentConfig(flips=True, rotations=True),
        optimizer=OptimizerConfig(rate=3e-3, warmup_epochs=0.5, clip_norm=1.0),
        loop=LoopConfig(steps=300, batch_size=8, eval_epochs=2, steps_per_dispatch=10, averaging=0.99),
    )


def official() -> NaIrstdConfig:
    """The paper's schedule: Adam, batches of 8, 500 epochs of relevance, 1,500 of masks, a cosine in each.

    The paper's rates are lost in the text at hand, which says that the native branch's is smaller in the second stage:
    1e-3, then 1e-4 and a tenth of that are irjax's own. Clipping to a norm of 1, mirrored images and right angles are
    not in the paper. The paper reports an IoU of .9745 on NUDT-SIRST.
    """
    return NaIrstdConfig(
        augment=AugmentConfig(flips=True, rotations=True),
        optimizer=OptimizerConfig(name="adam", rate=1e-4, warmup_epochs=0, clip_norm=1.0),
        loop=LoopConfig(epochs=1500, batch_size=8, eval_epochs=10),
    )


def sirst() -> NaIrstdConfig:
    """For SIRST-v2 and NUDT-SIRST together: native windows, balanced draws, small crops, Muon.

    Crops of 128x128 have 16 patches, windows in validation 64. The cross-entropy is over the pixels of targets.
    """
    return NaIrstdConfig(
        data=DataConfig(size=256, enlarge=False, slide=True, balance=True),
        relevance=RelevanceConfig(steps=1500, eval_epochs=100, rate=2e-3),
        loss=LossConfig(cross_entropy="targets"),
        augment=AugmentConfig(crop=128, flips=True, rotations=True, gain=0.15, offset=0.05),
        optimizer=OptimizerConfig(name="muon", rate=2e-3, weight_decay=0.01, warmup_epochs=0.7, clip_norm=1.0),
        loop=LoopConfig(steps=6000, batch_size=4, eval_epochs=6.3, averaging=0.998),
    )


RECIPES: dict[str, Callable[[], NaIrstdConfig]] = {"quick": quick, "official": official, "sirst": sirst}


# --- methods ----------------------------------------------------------------------------------------------------------

_NETWORK = (
    "branch", "selected", "score_per_stage", "native_width", "widths", "depths", "stem_stride", "decoder_width",
    "decoder_hidden", "remat",
)  # fmt: skip


def _network(config: NaIrstdConfig, axis_name: str | None, **options: Any) -> NaIRSTD:
    return NaIRSTD(
        **{name: getattr(config.model, name) for name in _NETWORK},
        axis_name=axis_name,
        dtype=jnp.bfloat16 if config.loop.bf16 else jnp.float32,
        **options,
    )


def _labels(config: NaIrstdConfig, target: jax.Array) -> jax.Array:
    return relevance(target, form=config.relevance.label, decay=config.relevance.decay)


def _coverage(counts: np.ndarray) -> dict[str, float]:
    """Coverage and recall of selected patches, from the sums [stages, 3] of `selection_counts`."""
    both, selected, true = counts.sum(axis=0)
    return {"coverage": float(both / selected), "recall": float(both / true) if true else float("nan")}


def relevance_method(config: NaIrstdConfig, axis_name: str | None = None) -> Method:
    """The first stage as the shared loop sees it: the native branch and the scorer alone learn and run."""
    return Method(
        "na_irstd",
        _network(config, axis_name, only_scores=True),
        common.mask_inputs(config),
        loss=lambda outputs, target: score_loss(outputs, _labels(config, target)),
        decode=lambda outputs, target: selection_counts(outputs.masks, target),
        score=lambda found: _coverage(np.sum([counts.sum(axis=0) for _, counts in found], axis=0, dtype=np.float64)),
        select="recall",
    )


def na_irstd_method(config: NaIrstdConfig, axis_name: str | None = None) -> Method:
    """The second stage, or the only one; predictions are probabilities [B, S, S], and patches with targets."""

    def loss(outputs: NaIrstdOutputs, target: jax.Array) -> jax.Array:
        scored = config.stages == "one" and outputs.scores is not None
        labels = _labels(config, target) if scored else None
        options = {"score_weight": config.relevance.weight, "cross_entropy": config.loss.cross_entropy}
        return na_irstd_loss(outputs, target, labels, **options)

    def decode(outputs: NaIrstdOutputs, target: jax.Array) -> Any:
        probabilities = jax.nn.sigmoid(outputs.logits)
        if not outputs.masks:
            return probabilities
        return {"maps": probabilities, "counts": selection_counts(outputs.masks, target)}

    selects = config.model.branch != "none"
    score = common.mask_and_count_score(config, _coverage) if selects else common.mask_score(config)
    return Method(
        "na_irstd",
        _network(config, axis_name),
        common.mask_inputs(config),
        loss=loss,
        decode=decode,
        score=score,
        select="miou",
    )


def detector_config(config: NaIrstdConfig) -> DetectorConfig:
    """How the run's weights are to be used."""
    return common.detector_config("na_irstd", config, tuple(name for name in _NETWORK if name != "remat"))


def first_stage(config: NaIrstdConfig, minutes: float = 0.0) -> NaIrstdConfig:
    """The config of the first stage by itself; it ends after the minutes, if there are any."""
    own = config.relevance
    groups = (*config.optimizer.groups, "backbone=0", "injection=0", "decoder=0")
    length = {"minutes": minutes} if minutes else {"steps": own.steps, "epochs": own.epochs}
    loop = {**length, "eval_epochs": own.eval_epochs}
    return dataclasses.replace(changed(config, optimizer={"rate": own.rate, "groups": groups}, loop=loop), stage=1)


def second_stage(config: NaIrstdConfig, first: pathlib.Path, minutes: float = 0.0) -> NaIrstdConfig:
    """The config of the second stage, which starts from the first's run; the scorer stays as it is."""
    groups = (*config.optimizer.groups, "scorer=0", f"native={config.relevance.native_rate:g}")
    config = changed(config, optimizer={"groups": groups}, loop={"minutes": minutes})
    return dataclasses.replace(config, stage=2, initial=config.initial or str(first))


def train(config: NaIrstdConfig, run: pathlib.Path) -> Result:
    """Trains or resumes a run, both stages or one, and leaves a directory that `irjax.load` takes.

    Args:
      config: everything the run depends on.
      run: its directory; the first of two stages is in its folder stage1. It gets a quarter of `loop.minutes`; minutes
        that a run is given when the second has begun are all the second's.

    Returns:
      Of the last stage that was trained.

    Raises:
      MissingFileError: if the second stage alone is asked for and there is neither `initial` nor a first stage.
    """
    fit = functools.partial(common.train, detector_config=detector_config, with_masks=True)
    if not config.two:
        return fit(config, run, method_for=na_irstd_method)
    first, minutes = run / "stage1", 0.0
    if config.stage != 2:
        minutes = config.loop.minutes if config.stage == 1 else config.loop.minutes / 4
        if minutes and saved_steps(run):
            minutes = read_json(first / "config.json")["config"]["loop"]["minutes"]
        result = fit(first_stage(config, minutes), first, method_for=relevance_method)
        if config.stage == 1:
            return result
        config = dataclasses.replace(config, initial="")
    elif not config.initial and not first.is_dir():
        raise MissingFileError(f"stage 2 starts from stage 1: train that first, or give --initial; no {first}")
    return fit(second_stage(config, first, config.loop.minutes - minutes), run, method_for=na_irstd_method)


# --- ablations --------------------------------------------------------------------------------------------------------


def _of_model(**changes: Any) -> Callable[[NaIrstdConfig], NaIrstdConfig]:
    return lambda base: changed(base, model=changes)


def _of_label(label: str) -> Callable[[NaIrstdConfig], NaIrstdConfig]:
    return lambda base: changed(base, relevance={"label": label})


def _one_stage(base: NaIrstdConfig) -> NaIrstdConfig:
    """As long as the two are."""
    loop, first = base.loop, base.relevance
    if (loop.steps > 0) != (first.steps > 0):
        raise UsageError(
            "the ablation of stages adds up the lengths of both: give --loop.steps and --relevance.steps, or neither "
            f"(epochs), got {loop.steps} and {first.steps}"
        )
    unit = "steps" if loop.steps else "epochs"
    both = getattr(loop, unit) + getattr(first, unit)
    return dataclasses.replace(changed(base, loop={unit: both}), stages="one")


def _of_both(stages: str, label: str, base: NaIrstdConfig) -> NaIrstdConfig:
    return _of_label(label)(_one_stage(base) if stages == "one" else base)


# The paper's Tables IV and V (`stages-labels` is all of V, `stages` and `labels` its halves) and its Figure 7.
ABLATIONS: dict[str, dict[str, Callable[[NaIrstdConfig], NaIrstdConfig]]] = {
    "branch": {branch: _of_model(branch=branch) for branch in ("none", "cnn", "patch")},
    "stages": {"one": _one_stage, "two": lambda base: base},
    "labels": {label: _of_label(label) for label in ("soft", "hard")},
    "stages-labels": {
        f"{stages} {label}": functools.partial(_of_both, stages, label)
        for stages in ("one", "two")
        for label in ("hard", "soft")
    },
    "k": {str(number): _of_model(selected=number) for number in (1, 2, 3, 5, 8, 16)},
}
_COLUMNS = ("miou", "niou", "pd", "fa", "coverage", "recall", "IoU", "nIoU", "Pd", "Fa")


def ablation(name: str, base: NaIrstdConfig) -> dict[str, NaIrstdConfig]:
    """The variants of an ablation, by what a variant is called in its table.

    Args:
      name: a key of `ABLATIONS`.
      base: what all variants share, with two stages; where there is one, it is as long as the two.

    Raises:
      UserError: if there is no such ablation.
      UsageError: if one stage's length is counted in steps and the other's in epochs.
    """
    if name not in ABLATIONS:
        raise UserError(f"there is no ablation {name!r}; there are {tuple(ABLATIONS)}")
    return {variant: change(base) for variant, change in ABLATIONS[name].items()}


# --- command ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Command(Flags, NaIrstdConfig):
    """Trains Na-IRSTD, chooses the checkpoints on validation, tests it, and says where everything lies.

    Attributes:
      recipe: sets the other flags' defaults: `quick`, the paper's `official`, or irjax's own `sirst`. Without
        data.root, all train on synthetic scenes.
      ablation: train the variants of one of the ablations (Tables IV and V, Figure 7) instead.
    """

    config_class: ClassVar[type] = NaIrstdConfig

    recipe: Literal["quick", "official", "sirst"] = "quick"
    ablation: Literal["", "branch", "stages", "labels", "stages-labels", "k"] = ""


EXPERIMENT = command.Experiment(
    "na_irstd",
    Command,
    RECIPES,
    train,
    summary=functools.partial(common.mask_summary, "Na-IRSTD"),
    ablation=ablation,
    columns=_COLUMNS,
    untested=lambda config: "stage 1 finds no targets yet: go on with --stage 2" if config.stage == 1 else "",
    **common.masks("na_irstd"),
)
parse, main = EXPERIMENT.parse, EXPERIMENT.main

if __name__ == "__main__":
    main()
