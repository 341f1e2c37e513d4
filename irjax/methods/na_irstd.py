"""Na-IRSTD: details at native resolution from a few selected patches.

The first stage trains the native branch and its scorer to predict which patches are relevant; the second stage trains
everything except the scorer to segment. Source: Na-IRSTD (arXiv 2605.05804); `irjax.models.na_irstd`,
`irjax.targets.patch_relevance` and `irjax.losses.na_irstd` state what is from the paper and what is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, cast

import jax
import numpy as np

from irjax.errors import UserError
from irjax.losses.na_irstd import na_irstd_loss, score_loss, selection_counts
from irjax.methods.common import InputConfig, MaskDecodeConfig, mask_and_count_score, mask_inputs, mask_score
from irjax.methods.method import Method, Objective, network_of, options_of
from irjax.models import NaIRSTD
from irjax.models.na_irstd import NaIrstdOutputs, reparameterize
from irjax.targets.patch_relevance import relevance


@dataclasses.dataclass(frozen=True)
class ModelConfig(InputConfig, options_of(NaIRSTD, "folded", "only_scores")):  # type: ignore[misc]
    """Options of the network."""


@dataclasses.dataclass(frozen=True)
class RelevanceConfig:
    """The target of the scorer, and the first stage, which trains it.

    Attributes:
      label: `soft`, falling with the distance to the nearest target, or `hard`: whether there is a target pixel.
      decay: decay of the soft label per pixel of distance.
      weight: weight of the scorer's loss if there is only one stage.
      native_rate: rate of the native branch in the second stage, as a fraction of the others' rate.
      steps: steps of the first stage; 0: given by `epochs`.
      epochs: epochs of the first stage.
      eval_epochs: epochs between validations of the first stage.
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
      cross_entropy: divisor of the sum over the pixels: the number of all `pixels`, or of those of `targets`, at least
        32.
    """

    cross_entropy: Literal["pixels", "targets"] = "pixels"


def _labels(config: Any, target: jax.Array) -> jax.Array:
    return relevance(target, form=config.relevance.label, decay=config.relevance.decay)


def _total(counts: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the sum of arrays of one shape, in float64."""
    return cast(np.ndarray, np.sum(list(counts), axis=0, dtype=np.float64))


def _coverage(counts: np.ndarray) -> dict[str, float]:
    """Returns coverage and recall of the selected patches, from the sums [stages, 3] of `selection_counts`."""
    both, selected, true = counts.sum(axis=0)
    return {"coverage": float(both / selected), "recall": float(both / true) if true else float("nan")}


def relevance_objective(config: Any, axis_name: str | None = None) -> Objective:
    """Returns the objective of the first stage, like `objective`; only the native branch and the scorer run."""
    return Objective(
        network_of(NaIRSTD, config, axis_name, only_scores=True),
        mask_inputs(config),
        loss=lambda outputs, target: score_loss(outputs, _labels(config, target)),
        decode=lambda outputs, target: selection_counts(outputs.selected, target),
        score=lambda found: _coverage(_total(counts.sum(axis=0) for _, counts in found)),
        select="recall",
    )


def objective(config: Any, axis_name: str | None = None) -> Objective:
    """Returns the objective of the second stage, or of the only one.

    The config has the parts of `METHOD` and those of every run. Predictions are probabilities [B, S, S], or {"maps":
    probabilities, "counts": of selected patches}. If the config's `stages` is ``"one"``, the scorer is trained as well.
    """
    alone = getattr(config, "stages", "two") == "one"

    def loss(outputs: NaIrstdOutputs, target: jax.Array) -> jax.Array:
        scored = alone and outputs.scores is not None
        labels = _labels(config, target) if scored else None
        options = {"score_weight": config.relevance.weight, "cross_entropy": config.loss.cross_entropy}
        return na_irstd_loss(outputs, target, labels, **options)

    def decode(outputs: NaIrstdOutputs, target: jax.Array) -> Any:
        assert outputs.logits is not None  # the network is not built with `only_scores`
        probabilities = jax.nn.sigmoid(outputs.logits)
        if not outputs.selected:
            return probabilities
        return {"maps": probabilities, "counts": selection_counts(outputs.selected, target)}

    selects = config.model.branch != "none"
    score = mask_and_count_score(config, _coverage) if selects else mask_score(config)
    return Objective(network_of(NaIRSTD, config, axis_name), mask_inputs(config), loss, decode, score, select="miou")


METHOD = Method(
    "na_irstd",
    NaIRSTD,
    objective,
    parts={"model": ModelConfig, "relevance": RelevanceConfig, "loss": LossConfig, "decode": MaskDecodeConfig},
    masks=True,
    training_only=("remat",),
    fold=lambda variables: (reparameterize(variables), {"folded": True}),
)
