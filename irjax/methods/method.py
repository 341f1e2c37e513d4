"""The interface of a method to detectors, trainings and commands."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.types import Batch, Example

_NOT_OPTIONS = ("parent", "name", "axis_name", "dtype")  # fields of a network that configurations do not set


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is trained and validated: a method with a run's config. All functions except `score` are pure and jitted.

    Attributes:
      model: the Flax module; called as ``model.apply(variables, inputs, train=...)``.
      prepare: ``(batch, keys [B] or None) -> (inputs, targets)``: augmentation if there are keys, targets,
        normalisation.
      loss: ``(outputs, targets) -> [B]`` float32.
      decode: ``(outputs, targets) -> predictions``, a struct of arrays with leading axis B.
      score: ``images with their predictions -> {metric: value}`` on the host. The argument is an iterator over the
        validation images: each an `Example` with the predictions of its canvas or windows, numpy with leading axis n.
      select: the metric that selects the checkpoint; higher is better.
      warm_loss: replaces `loss` in the first epochs of training, if given. Validation always uses `loss`.
      warm_epochs: number of epochs with `warm_loss`.
      extra: ``keys [B] -> {name: value}``: further arguments of the model in training, from the examples' keys.
    """

    model: nn.Module
    prepare: Callable[[Batch, jax.Array | None], tuple[jax.Array, Any]]
    loss: Callable[[Any, Any], jax.Array]
    decode: Callable[[Any, Any], Any]
    score: Callable[[Iterator[tuple[Example, Any]]], dict[str, float]]
    select: str
    warm_loss: Callable[[Any, Any], jax.Array] | None = None
    warm_epochs: float = 0
    extra: Callable[[jax.Array], dict[str, Any]] = lambda keys: {}


@dataclasses.dataclass(frozen=True)
class Method:
    """A method and its name.

    Attributes:
      name: its name on the command line, in configurations and in weight files.
      network: class of its Flax module. Its fields are the method's options; it also has the fields `axis_name` (device
        axis to synchronise statistics over, or None) and `dtype` (of the computation). It returns heatmaps
        [B, H / s, W / s] and has an attribute `stride`, or it returns an object with `logits` [B, H, W], such as
        `irjax.types.SegmentationLogits`.
      objective: ``(config, axis_name) -> Objective``, for a run's config and a device axis of this name or one device.
      parts: parts of a run's config besides data, augmentation, optimiser and loop: {name: dataclass}. They include
        `model` (`irjax.methods.method.options_of` the network, `channels` and `normalization`) and `decode`
        (`threshold` and `max_detections`).
      masks: whether it is trained with masks and predicts them.
      training_only: options that have no effect on predictions.
      fold: ``variables -> (variables, options)``: folds normalisations into convolutions, for prediction, and returns
        the network's options for that.
    """

    name: str
    network: type[nn.Module]
    objective: Callable[[Any, str | None], Objective]
    parts: Mapping[str, type]
    masks: bool
    training_only: tuple[str, ...] = ()
    fold: Callable[[Mapping[str, Any]], tuple[dict[str, Any], dict[str, Any]]] | None = None

    def build(self, **options: Any) -> nn.Module:
        """Builds the network, without weights.

        Args:
          **options: fields of the module; `dtype` may be a name such as ``"bfloat16"``, as stored in configurations.

        Raises:
          UserError: if an option or the dtype is unknown.
        """
        known = [*network_options(self.network), "axis_name", "dtype"]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise UserError(f"{self.network.__name__} has no options {unknown}; known: {known}")
        if isinstance(options.get("dtype"), str):
            try:
                options["dtype"] = jnp.dtype(options["dtype"])
            except TypeError as error:
                raise UserError(f"unknown dtype {options['dtype']!r} for {self.network.__name__}") from error
        return self.network(**options)


def network_options(network: type[nn.Module]) -> dict[str, dataclasses.Field]:
    """Returns the fields of a network that a configuration may set, by name."""
    return {field.name: field for field in dataclasses.fields(network) if field.init and field.name not in _NOT_OPTIONS}


def options_of(network: type[nn.Module], *omit: str) -> type:
    """Returns a frozen dataclass of a network's options, for a run's config to inherit from.

    Args:
      network: class of the module, with annotated fields that its docstring explains under ``Attributes:``.
      *omit: fields that no run sets.

    Returns:
      The dataclass, with the same names, types and defaults; its docstring is the network's.
    """
    hints = typing.get_type_hints(network)
    fields = [
        (name, hints[name], dataclasses.field(default=field.default))
        for name, field in network_options(network).items()
        if name not in omit
    ]
    options = dataclasses.make_dataclass(f"{network.__name__}Options", fields, frozen=True)
    options.__doc__ = inspect.getdoc(network)
    return options


def network_of(network: type[nn.Module], config: Any, axis_name: str | None, **options: Any) -> nn.Module:
    """Builds the network that a run trains.

    Args:
      network: class of the module.
      config: config of the run, with `model` and `loop.bf16`.
      axis_name: axis of the devices, or None.
      **options: options of the module that replace the config's.
    """
    own = {name: getattr(config.model, name) for name in network_options(network) if hasattr(config.model, name)}
    dtype = jnp.bfloat16 if config.loop.bf16 else jnp.float32
    return network(**{**own, **options}, axis_name=axis_name, dtype=dtype)
