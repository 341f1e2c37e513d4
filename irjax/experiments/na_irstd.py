"""Na-IRSTD: training in two stages, validation and test; without arguments on synthetic scenes.

    python -m irjax.experiments.na_irstd
    python -m irjax.experiments.na_irstd --recipe official --data.root DIR --data.train train --data.val val
    python -m irjax.experiments.na_irstd --ablation labels

The first stage trains the native branch and its scorer to predict which patches are relevant; the second stage trains
everything except the scorer to segment. Source: Na-IRSTD (arXiv 2605.05804); `irjax.models.na_irstd`,
`irjax.targets.patch_relevance` and `irjax.losses.na_irstd` state what is from the paper and what is not.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Literal

from irjax.data.augment import AugmentConfig
from irjax.data.splits import DataConfig
from irjax.errors import MissingFileError, UsageError, UserError
from irjax.evaluation.detectors import MASK_PROTOCOLS
from irjax.experiments import run as one_run
from irjax.experiments.ablation import Change, change
from irjax.experiments.command import Experiment
from irjax.experiments.run import RunConfig
from irjax.io.files import read_json
from irjax.methods.common import MaskDecodeConfig
from irjax.methods.na_irstd import METHOD, LossConfig, ModelConfig, RelevanceConfig, relevance_objective
from irjax.moved import moved
from irjax.training.checkpoints import saved_steps
from irjax.training.configs import LoopConfig, replace_parts
from irjax.training.loop import TrainedRun
from irjax.training.optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class NaIrstdConfig(RunConfig):
    """Everything a run depends on; saved with it.

    Attributes:
      stages: `two`, or `one` that trains relevance and masks together.
      stage: which of the two stages to train: 1 only; 2 only, starting from `initial` or the first stage in RUN/stage1;
        or 0 for both.
    """

    stages: Literal["two", "one"] = "two"
    stage: Literal[0, 1, 2] = 0
    data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(size=256))
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    relevance: RelevanceConfig = dataclasses.field(default_factory=RelevanceConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    decode: MaskDecodeConfig = dataclasses.field(default_factory=MaskDecodeConfig)

    def __post_init__(self) -> None:
        if self.stage and not self.two:
            raise UserError("stage picks one of two stages: stages one, or a model.branch of none, has no second")

    @property
    def two(self) -> bool:
        """Whether there are two stages; without a native branch there is nothing to train first."""
        return self.stages == "two" and self.model.branch != "none"


def quick() -> NaIrstdConfig:
    """The built-in default: synthetic scenes of 256x256, narrow and shallow, for a CPU with 2 cores."""
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

    The paper's rates are missing in the available text, which states that the native branch's rate is smaller in the
    second stage: 1e-3, then 1e-4 and a tenth of it are irjax's own. Clipping to a norm of 1, mirrored images and right
    angles are not in the paper. The paper reports an IoU of .9745 on NUDT-SIRST.
    """
    return NaIrstdConfig(
        augment=AugmentConfig(flips=True, rotations=True),
        optimizer=OptimizerConfig(name="adam", rate=1e-4, warmup_epochs=0, clip_norm=1.0),
        loop=LoopConfig(epochs=1500, batch_size=8, eval_epochs=10),
    )


def sirst() -> NaIrstdConfig:
    """For SIRST-v2 and NUDT-SIRST together: native windows, balanced draws, small crops, Muon.

    Crops of 128x128 have 16 patches, windows in validation have 64. The cross-entropy is divided by the number of
    target pixels.
    """
    return NaIrstdConfig(
        data=DataConfig(size=256, enlarge=False, slide=True, balance=True),
        relevance=RelevanceConfig(steps=750, eval_epochs=100, rate=2e-3),
        loss=LossConfig(cross_entropy="targets"),
        augment=AugmentConfig(crop=128, flips=True, rotations=True, gain=0.15, offset=0.05),
        optimizer=OptimizerConfig(name="muon", rate=2e-3, weight_decay=0.01, warmup_epochs=0.7, clip_norm=1.0),
        loop=LoopConfig(steps=3000, batch_size=8, eval_epochs=6.3, averaging=0.998),
    )


RECIPES: dict[str, Callable[[], NaIrstdConfig]] = {"quick": quick, "official": official, "sirst": sirst}


def first_stage(config: NaIrstdConfig, minutes: float = 0.0) -> NaIrstdConfig:
    """Returns the config of the first stage alone; with `minutes` given, the stage ends after them."""
    own = config.relevance
    groups = (*config.optimizer.groups, "backbone=0", "injection=0", "decoder=0")
    length = {"minutes": minutes} if minutes else {"steps": own.steps, "epochs": own.epochs}
    loop = {**length, "eval_epochs": own.eval_epochs}
    return dataclasses.replace(
        replace_parts(config, optimizer={"rate": own.rate, "groups": groups}, loop=loop), stage=1
    )


def second_stage(config: NaIrstdConfig, first: pathlib.Path, minutes: float = 0.0) -> NaIrstdConfig:
    """Returns the config of the second stage, which starts from the first stage's run; the scorer is frozen."""
    groups = (*config.optimizer.groups, "scorer=0", f"native={config.relevance.native_rate:g}")
    config = replace_parts(config, optimizer={"groups": groups}, loop={"minutes": minutes})
    return dataclasses.replace(config, stage=2, initial=config.initial or str(first))


def train(config: NaIrstdConfig, run: pathlib.Path) -> TrainedRun:
    """Trains or resumes a run, with one or two stages; its directory can then be given to `irjax.load`.

    Args:
      config: everything the run depends on.
      run: the run directory; the first of two stages is in its folder stage1. It gets a quarter of `loop.minutes`;
        minutes that are added after the second stage has begun all go to the second.

    Returns:
      The result of the last stage that was trained.

    Raises:
      MissingFileError: if only the second stage is requested and there is neither `initial` nor a first stage.
    """
    if not config.two:
        return one_run.train(METHOD, config, run)
    first, minutes = run / "stage1", 0.0
    if config.stage != 2:
        minutes = config.loop.minutes if config.stage == 1 else config.loop.minutes / 4
        if minutes and saved_steps(run):
            minutes = read_json(first / "config.json")["config"]["loop"]["minutes"]
        result = one_run.train(METHOD, first_stage(config, minutes), first, objective=relevance_objective)
        if config.stage == 1:
            return result
        config = dataclasses.replace(config, initial="")
    elif not config.initial and not first.is_dir():
        raise MissingFileError(f"stage 2 starts from stage 1: train that first, or give --initial; no {first}")
    return one_run.train(METHOD, second_stage(config, first, config.loop.minutes - minutes), run)


# --- ablations --------------------------------------------------------------------------------------------------------


def _one_stage(base: NaIrstdConfig) -> NaIrstdConfig:
    """Returns the config with one stage that is as long as both together."""
    loop, first = base.loop, base.relevance
    if (loop.steps > 0) != (first.steps > 0):
        raise UsageError(
            "the ablation of stages adds up the lengths of both: give --loop.steps and --relevance.steps, or neither "
            f"(epochs), got {loop.steps} and {first.steps}"
        )
    unit = "steps" if loop.steps else "epochs"
    both = getattr(loop, unit) + getattr(first, unit)
    return dataclasses.replace(replace_parts(base, loop={unit: both}), stages="one")


def _of_both(stages: str, label: str, base: NaIrstdConfig) -> NaIrstdConfig:
    return replace_parts(_one_stage(base) if stages == "one" else base, relevance={"label": label})


# The paper's Tables IV and V (`stages-labels` is all of V, `stages` and `labels` are its halves) and its Figure 7.
ABLATIONS: dict[str, dict[str, Change]] = {
    "branch": {branch: change(model={"branch": branch}) for branch in ("none", "cnn", "patch")},
    "stages": {"one": _one_stage, "two": change()},
    "labels": {label: change(relevance={"label": label}) for label in ("soft", "hard")},
    "stages-labels": {
        f"{stages} {label}": functools.partial(_of_both, stages, label)
        for stages in ("one", "two")
        for label in ("hard", "soft")
    },
    "k": {str(number): change(model={"selected": number}) for number in (1, 2, 3, 5, 8, 16)},
}
_COLUMNS = ("miou", "niou", "pd", "fa", "coverage", "recall", "IoU", "nIoU", "Pd", "Fa")

EXPERIMENT = Experiment(
    METHOD,
    "Na-IRSTD",
    NaIrstdConfig,
    RECIPES,
    ABLATIONS,
    _COLUMNS,
    protocols=(*MASK_PROTOCOLS, "na_irstd"),
    train_stages=train,
    untested=lambda config: "stage 1 finds no targets yet: go on with --stage 2" if config.stage == 1 else "",
)
parse, main = EXPERIMENT.parse, EXPERIMENT.main
__getattr__ = moved(
    __name__,
    {
        "na_irstd_method": "irjax.methods.na_irstd:objective",
        "relevance_method": "irjax.methods.na_irstd:relevance_objective",
    },
)

if __name__ == "__main__":
    main()
