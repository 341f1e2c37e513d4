"""The names of the methods, and the network of each.

A method has one name everywhere: here, in saved configurations, in converters and on the command line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.blocks import fold_batch_norm
from irjax.models.adsnet import ADSNet
from irjax.models.hrpe import HRPE
from irjax.models.mshnet import MSHNet
from irjax.models.na_irstd import NaIRSTD, reparameterize

MODELS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"adsnet": ADSNet, "mshnet": MSHNet, "na_irstd": NaIRSTD, "spire": HRPE}
)

_OWN_FIELDS = ("parent", "name")  # of every flax module


def model_class(method: str) -> type[nn.Module]:
    """The network class of a method.

    Raises:
      UserError: if the method is unknown; the message lists the known ones.
    """
    if method not in MODELS:
        raise UserError(f"unknown method {method!r}; known: {', '.join(sorted(MODELS))}")
    return MODELS[method]


def build(method: str, **options: Any) -> nn.Module:
    """The network of a method.

    Args:
      method: its name, a key of `MODELS`.
      **options: fields of the module; `dtype` may be a name such as ``"bfloat16"``, as configurations store it.

    Returns:
      The unbound flax module.

    Raises:
      UserError: if the method, an option or the dtype is unknown.
    """
    cls = model_class(method)
    fields = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in _OWN_FIELDS]
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise UserError(f"{cls.__name__} has no options {unknown}; known: {fields}")
    if isinstance(options.get("dtype"), str):
        try:
            options["dtype"] = jnp.dtype(options["dtype"])
        except TypeError as error:
            raise UserError(f"unknown dtype {options['dtype']!r} for {cls.__name__}") from error
    return cls(**options)


def fold(method: str, variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights of a method with normalisations folded into convolutions, and the module's options for them.

    Args:
      method: its name, a key of `MODELS`.
      variables: ``params`` and ``batch_stats`` of its network.

    Returns:
      The variables for prediction, and the fields of the module that differ.

    Raises:
      UserError: if the weights are folded already, where that changes their names.
    """
    if method == "na_irstd":
        return reparameterize(variables), {"folded": True}
    return fold_batch_norm(variables), {}
