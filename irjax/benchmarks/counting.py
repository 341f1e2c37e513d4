"""Counts the multiply-adds of any function from its shapes."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.extend.core
import numpy as np


def count_macs(fn: Callable[..., Any], *args: Any) -> dict[str, int]:
    """Counts the multiply-adds of the convolutions and matrix products in a function, by layer.

    They are counted from the shapes in the function's jaxpr, including positions in the padding, as papers do. Where
    platforms run different forms, the form with more of these operations counts (a depthwise convolution that runs as
    shifted products is still counted as one). A while loop counts once.

    Args:
      fn: a function of arrays.
      *args: arrays or `jax.ShapeDtypeStruct`.

    Returns:
      {name of the flax module, or "" outside of any: multiply-adds}.
    """
    total: collections.Counter[str] = collections.Counter()
    _count(jax.make_jaxpr(fn)(*args).jaxpr, "", total)
    return dict(total)


def _count(jaxpr: Any, scope: str, total: collections.Counter[str]) -> None:
    for equation in jaxpr.eqns:
        inner = str(equation.source_info.name_stack)
        here = f"{scope}/{inner}" if scope and inner else scope or inner
        params = equation.params
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total[here] += equation.outvars[0].aval.size * int(np.prod([left[i] for i in contracted], dtype=np.int64))
        elif equation.primitive.name == "conv_general_dilated":
            kernel, output = equation.invars[1].aval, equation.outvars[0].aval
            features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
            total[here] += output.size * (kernel.size // features)
        elif equation.primitive.name == "cond":
            branches: list[collections.Counter[str]] = []
            for branch in params["branches"]:
                branches.append(collections.Counter())
                _count(branch.jaxpr, here, branches[-1])
            total.update(max(branches, key=lambda counted: sum(counted.values())))
        else:
            times = params["length"] if equation.primitive.name == "scan" else 1
            for value in params.values():
                if isinstance(value, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr):
                    part: collections.Counter[str] = collections.Counter()
                    _count(getattr(value, "jaxpr", value), here, part)
                    total.update({name: times * number for name, number in part.items()})


def by_module(macs: Mapping[str, int]) -> dict[str, int]:
    """Sums the result of `count_macs` by the network's direct submodules, in the order of the network."""
    sums: collections.Counter[str] = collections.Counter()
    for name, number in macs.items():
        parts = name.split("/")
        sums[parts[1] if len(parts) > 1 else name] += number
    return dict(sums)
