"""Optimisers and learning rate schedules, from a config."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from irjax.errors import UserError

OPTIMIZERS = ("adagrad", "adam", "adamw", "muon", "sgd")
SCHEDULES = ("constant", "cosine", "steps")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its learning rate schedule.

    Attributes:
      name: `adagrad` (as in PyTorch: the sum of squares starts at zero), `adam`, `adamw`, `sgd` (momentum 0.9), or
        `muon`: orthogonalised momentum for kernels that mix channels, AdamW with Nesterov momentum for all other
        parameters; updates are scaled to the size of AdamW's, so that AdamW's rates can be used.
      rate: highest learning rate.
      weight_decay: decoupled for `adamw` and `muon`; added to the gradient for `sgd`, as in PyTorch.
      warmup_epochs: epochs of linear warm-up from rate / 1000.
      schedule: after the warm-up: `constant`, `cosine` down to rate / 1000, or `steps`: a tenth from 60 % of the run
        on, a hundredth from 80 % on.
      plateau_factor: reduce-on-plateau: factor on the rate when the validation loss stops falling; 1 is off.
      plateau_patience: validations without a relative fall of 1e-4 before that.
      clip_norm: highest norm of the gradient; 0 is off.
      groups: parts of the network with their own rate, as `PATH=FACTOR`: the path of a part's parameters, such as
        `backbone` or `backbone/stem`, and the factor on its updates; 0 freezes it, at no cost. The first match applies.
    """

    name: str = "adamw"
    rate: float = 3e-3
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    plateau_factor: float = 1.0
    plateau_patience: int = 3
    clip_norm: float = 0.0
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS or self.schedule not in SCHEDULES:
            given = f"{self.name!r} and {self.schedule!r}"
            raise UserError(f"optimizer.name must be one of {OPTIMIZERS} and schedule of {SCHEDULES}, got {given}")
        if not self.rate > 0:
            raise UserError(f"optimizer.rate must be positive, got {self.rate}")
        self.factors()

    def factors(self) -> dict[str, float]:
        """Returns the groups as {path: factor}.

        Raises:
          UserError: if one is not `PATH=FACTOR` with a factor of at least 0.
        """
        factors = {}
        for group in self.groups:
            path, _, factor = group.partition("=")
            try:
                factors[path] = float(factor)
            except ValueError:
                factors[path] = math.nan
            if not path or not 0 <= factors[path] < math.inf:
                raise UserError(f"optimizer.groups must be PATH=FACTOR with a factor of at least 0, got {group!r}")
        return factors

    def learns(self, path: str) -> bool:
        """Returns whether the parameter of this path, such as ``backbone/stem/kernel``, is in no frozen group."""
        factors = self.factors()
        group = _group_of(path, factors)
        return group is None or factors[group] > 0

    def learning_rate(self, steps: int | None, steps_per_epoch: int) -> optax.Schedule:
        """Returns the rate as a function of the step, before the plateau rule.

        If `steps` is None, the rate is constant after the warm-up.
        """
        warmup = round(self.warmup_epochs * steps_per_epoch)
        warmup = warmup if steps is None else min(warmup, steps // 2)
        if steps is None:
            after = optax.constant_schedule(self.rate)
        elif self.schedule == "cosine":
            after = optax.cosine_decay_schedule(self.rate, max(steps - warmup, 1), alpha=1e-3)
        elif self.schedule == "steps":
            drops = {round(share * steps) - warmup: 0.1 for share in (0.6, 0.8)}
            after = optax.piecewise_constant_schedule(self.rate, drops)
        else:
            after = optax.constant_schedule(self.rate)
        if not warmup:
            return after
        return optax.join_schedules([optax.linear_schedule(self.rate / 1000, self.rate, warmup), after], [warmup])

    def build(
        self, steps: int | None, steps_per_epoch: int, axis_name: str | None = None
    ) -> optax.GradientTransformation:
        """Builds the optimiser for a run of this many steps (None: not known).

        `axis_name` is the axis of the mapped devices that share the optimiser's work; the updates do not depend on it.
        """
        rate = self.learning_rate(steps, steps_per_epoch)
        if self.name == "adagrad":
            # PyTorch divides by sqrt(sum) + 1e-10, optax by sqrt(sum + eps), so eps is the square.
            optimiser = optax.adagrad(rate, initial_accumulator_value=0.0, eps=1e-20)
        elif self.name == "adamw":
            optimiser = optax.adamw(rate, weight_decay=self.weight_decay)
        elif self.name == "muon":
            optimiser = _muon(rate, self.weight_decay, axis_name)
        elif self.name == "sgd":
            optimiser = optax.chain(optax.add_decayed_weights(self.weight_decay), optax.sgd(rate, momentum=0.9))
        else:
            optimiser = optax.adam(rate)
        if self.clip_norm:
            optimiser = optax.chain(optax.clip_by_global_norm(self.clip_norm), optimiser)
        return _in_groups(optimiser, self.factors()) if self.groups else optimiser


def _group_of(path: str, groups: Iterable[str]) -> str | None:
    """Returns the first group that contains a parameter's path, or None."""
    return next((group for group in groups if f"{path}/".startswith(f"{group}/")), None)


def _in_groups(optimiser: optax.GradientTransformation, factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Returns the optimiser with the updates of the parameters below these paths multiplied by their factors.

    Frozen parameters are hidden from the optimiser: they have no moments, take no time, and their gradients are not in
    the norm.
    """

    def factor_of(parameters: Any) -> Any:
        flat = flax.traverse_util.flatten_dict(parameters, sep="/")
        groups = {path: _group_of(path, factors) for path in flat}
        unknown = set(factors) - set(groups.values())
        if unknown:
            parts = ", ".join(sorted({path.partition("/")[0] for path in flat}))
            raise UserError(f"optimizer.groups: no parameters are left for {sorted(unknown)}; the network has {parts}")
        by_path = {path: 1.0 if group is None else factors[group] for path, group in groups.items()}
        return flax.traverse_util.unflatten_dict(by_path, sep="/")

    def kinds(parameters: Any) -> Any:
        return jax.tree.map(lambda factor: "learning" if factor else "frozen", factor_of(parameters))

    def scale(updates: Any, parameters: Any = None) -> Any:
        return jax.tree.map(lambda update, factor: factor * update, updates, factor_of(updates))

    parts = optax.partition({"learning": optimiser, "frozen": optax.set_to_zero()}, kinds)
    return optax.chain(parts, optax.stateless(scale))


# --- Muon -------------------------------------------------------------------------------------------------------------

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al., "Muon", 2024
_ADAM_SIZE = 0.2  # root mean square of AdamW's updates (Liu et al., "Muon is Scalable for LLM Training", 2025)


def _muon(rate: optax.Schedule, weight_decay: float, axis_name: str | None) -> optax.GradientTransformation:
    """Builds `optax.contrib.muon` with a cheaper orthogonalisation of its matrices; same updates and same state."""

    def of_all(updates: Any, parameters: Any = None) -> Any:
        return jax.tree.map(
            lambda value: value * _ADAM_SIZE * _longer_side(value) ** 0.5, orthogonalize_all(updates, axis_name)
        )

    def axes(updates: Any) -> Any:
        numbers = optax.contrib.MuonDimensionNumbers
        return jax.tree.map(lambda value: numbers(tuple(range(value.ndim - 1)), value.ndim - 1), updates)

    matrices = optax.chain(
        optax.contrib.scale_by_muon(ns_steps=0, weight_dimension_numbers=axes),  # momentum, normalised to a norm of 1
        optax.stateless(of_all),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
    )
    rest = optax.adamw(rate, weight_decay=weight_decay, nesterov=True)
    return optax.partition({"muon": matrices, "adam": rest}, lambda values: jax.tree.map(_kind, values))


def _longer_side(kernel: jax.Array) -> int:
    return max(kernel.size // kernel.shape[-1], kernel.shape[-1])


def orthogonalize_all(kernels: Any, axis_name: str | None = None) -> Any:
    """Orthogonalises kernels [..., n] as matrices [m, n]; see `orthogonalize`.

    Matrices of one shape are stacked: they are compiled once.

    Args:
      kernels: a tree of arrays, equal on all devices.
      axis_name: axis of the mapped devices that share the matrices of each shape.

    Returns:
      A tree of arrays of the same shapes, equal on all devices.
    """
    leaves, structure = jax.tree.flatten(kernels)
    matrices = [_upright(leaf) for leaf in leaves]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.shape, []).append(index)
    for indices in by_shape.values():
        stack = _orthogonalize_stack(jnp.stack([matrices[index] for index in indices]), axis_name)
        for place, index in enumerate(indices):
            matrices[index] = stack[place]
    return jax.tree.unflatten(structure, [_as_kernel(*pair) for pair in zip(matrices, leaves, strict=True)])


def _upright(kernel: jax.Array) -> jax.Array:
    """Returns a kernel [..., n] as a matrix with at least as many rows as columns."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return matrix.T if matrix.shape[0] < matrix.shape[1] else matrix


def _as_kernel(matrix: jax.Array, kernel: jax.Array) -> jax.Array:
    """Reverses `_upright`: returns a matrix in the shape of the kernel."""
    return (matrix if matrix.shape[1] == kernel.shape[-1] else matrix.T).reshape(kernel.shape)


def _orthogonalize_stack(stack: jax.Array, axis_name: str | None) -> jax.Array:
    """Orthogonalises matrices [N, m, n]; returns at least N, those beyond N being zero."""
    if axis_name is not None:
        part = -(-len(stack) // jax.lax.axis_size(axis_name))
        stack = jnp.pad(stack, ((0, part * jax.lax.axis_size(axis_name) - len(stack)), (0, 0), (0, 0)))
        stack = jax.lax.dynamic_slice_in_dim(stack, jax.lax.axis_index(axis_name) * part, part)
    # One after the other on a CPU, where a matrix fits in cache and fills the core; otherwise all at once.
    one_by_one, at_once = functools.partial(jax.lax.map, orthogonalize), jax.vmap(orthogonalize)
    stack = jax.lax.platform_dependent(stack, cpu=one_by_one, default=at_once)
    return stack if axis_name is None else jax.lax.all_gather(stack, axis_name, tiled=True)


def _kind(value: jax.Array) -> str:
    """Returns "muon" for kernels with several input and output channels; Muon takes every tap as an input."""
    return "muon" if value.ndim >= 2 and min(value.shape[-2:]) > 1 else "adam"


def orthogonalize(matrix: jax.Array, steps: int = 5) -> jax.Array:
    """Moves all singular values of a matrix close to 1 by Newton-Schulz steps.

    Every step multiplies the matrix X by q = a + b A + c A^2 with A = X^T X. All q commute with A, so the steps are
    done on A and on the product of the q, whose size is only that of the smaller side, and X is multiplied once. For a
    3x3 kernel this takes a quarter of the time.

    Args:
      matrix: [m, n] float32, with a Frobenius norm of at most 1.
      steps: number of steps.

    Returns:
      [m, n].
    """
    if matrix.shape[0] < matrix.shape[1]:
        return orthogonalize(matrix.T, steps).T
    a, b, c = _NEWTON_SCHULZ
    gram, product = matrix.T @ matrix, None
    for step in range(steps):
        factor = a * jnp.eye(len(gram), dtype=gram.dtype) + b * gram + c * (gram @ gram)
        product = factor if product is None else product @ factor
        if step < steps - 1:
            gram = gram @ (factor @ factor)
    return matrix if product is None else matrix @ product


@dataclasses.dataclass
class Plateau:
    """Reduce-on-plateau, as in PyTorch: a fall counts if it is relative and larger than 1e-4.

    `optax.contrib.reduce_on_plateau` sees every step; the recipes' rule sees validations, which are many steps apart.

    Attributes:
      factor: factor on the rate at each reduction; 1 is off.
      patience: validations without a fall that are tolerated.
      best: lowest loss so far.
      waited: validations since then.
      scale: product of all reductions so far.
    """

    factor: float
    patience: int
    best: float = float("inf")
    waited: int = 0
    scale: float = 1.0

    def update(self, loss: float) -> float:
        """Records a validation loss and returns the factor on the learning rate."""
        if loss < self.best * (1 - 1e-4):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = self.scale * self.factor, 0
        return self.scale
