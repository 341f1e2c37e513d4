"""Parameters and operations at 640x640 of structures that the rows of the paper's Table 3 could have, as Markdown.

    python experiments/spire/table3.py

FLOPs are the multiply-adds of the convolutions and two operations for each value that batch normalisation gives: so the
whole network has the paper's 7.68 G.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.benchmarks.counting import count_macs
from irjax.layers.blocks import ConvNorm, SqueezeExcitation
from irjax.layers.conv import Conv, DepthwiseConv
from irjax.layers.norm import BatchNorm
from irjax.models import HRPE
from irjax.models.hrpe import Bottleneck, ChannelWeighting, ShuffleUnit
from irjax.reports.tables import markdown_table

SIZE = 640


class Weighting(nn.Module):
    """A channel-weighting unit whose gates have another inner width (0: no gates), on half of the channels or all."""

    refine: bool = False
    gates: int = 4
    split: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the unit to x [B, H, W, C]."""
        kept, y = jnp.split(x, [x.shape[-1] // 2 if self.split else 0], axis=-1)
        y = ConvNorm(y.shape[-1], 3, relu=False, depthwise=True)(y, train=train)
        if self.gates:
            gate = nn.relu(Conv(self.gates)(jnp.mean(y, axis=(1, 2), keepdims=True)))
            y = y * nn.sigmoid(Conv(y.shape[-1])(gate))
        return jnp.concatenate([kept, DepthwiseConv(3)(y) if self.refine else y], axis=-1)


class Separable(nn.Module):
    """Depthwise 3x3 and 1x1 on all channels, with gates or without."""

    gates: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the unit to x [B, H, W, C]."""
        x = ConvNorm(x.shape[-1], 3, relu=False, depthwise=True)(x, train=train)
        x = ConvNorm(x.shape[-1])(x, train=train)
        return SqueezeExcitation()(x) if self.gates else x


def refined(unit: Callable[..., nn.Module], **options: Any) -> tuple[Callable[..., nn.Module], ...]:
    """The two weighting units of a stage, the second with local refinement."""
    return tuple(functools.partial(unit, refine=refine, **options) for refine in (False, True))


class Variant(nn.Module):
    """HRPE with parts exchanged: (features, size, stride) of the convolutions, and the units of a stage."""

    stem: tuple[tuple[int, int, int], ...] = ((64, 3, 2), (64, 3, 2))
    transition: tuple[tuple[int, int, int], ...] = ((32, 3, 1),)
    units: tuple[Callable[..., nn.Module], ...] = (*refined(ChannelWeighting), ShuffleUnit)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Applies the network to images [B, H, W, C]."""
        for features, size, stride in self.stem:
            x = ConvNorm(features, size, stride)(x, train=train)
        x = Bottleneck(256, 64)(x, train=train)
        for _ in range(3):
            x = ShuffleUnit()(x, train=train)
        for features, size, stride in self.transition:
            x = ConvNorm(features, size, stride)(x, train=train)
        for unit in 2 * self.units:
            x = unit()(x, train=train)
        return Conv(1, use_bias=True)(x)


STRUCTURES: dict[tuple[str, str, str], dict[str, nn.Module]] = {
    ("stride 4", "29.47", "7.68"): {"`HRPE()`": HRPE()},
    ("without reweighting", "29.63", "7.72"): {
        "`HRPE(reweight=False)`: shuffle units in place of channel-weighting units": HRPE(reweight=False),
        "channel-weighting units without gates": Variant(units=(*refined(Weighting, gates=0), ShuffleUnit)),
        "neither channel-weighting units nor others in their place": Variant(units=(ShuffleUnit,)),
    },
    ("without channel reorganisation", "29.45", "7.70"): {
        "`HRPE(shuffle=False)`: nothing is shuffled": HRPE(shuffle=False),
        "channel-weighting units on all channels": Variant(units=(*refined(Weighting, split=False), ShuffleUnit)),
        "the same without the stages' shuffle units": Variant(units=refined(Weighting, split=False)),
        "depthwise 3x3 and 1x1 on all channels, gates, in their place": Variant(units=(Separable, ShuffleUnit)),
        "the same without gates": Variant(units=(functools.partial(Separable, gates=False), ShuffleUnit)),
    },
    ("stride 2", "26.56", "26.77"): {
        "`HRPE(stride=2)`: the stem's second convolution with stride 1": HRPE(stride=2),
        "the stem's first convolution with stride 1": Variant(stem=((64, 3, 1), (64, 3, 2))),
        "the stem without its second convolution": Variant(stem=((64, 3, 2),)),
        "the stem's second convolution 1x1": Variant(stem=((64, 3, 2), (64, 1, 1))),
        "the same, gates with an inner width of 32 for 4": Variant(
            stem=((64, 3, 2), (64, 1, 1)), units=(*refined(Weighting, gates=32), ShuffleUnit)
        ),
    },
    ("stride 8", "33.27", "3.05"): {
        "`HRPE(stride=8)`: a third convolution of stride 2 in the stem": HRPE(stride=8),
        "the transition with stride 2": Variant(transition=((32, 3, 2),)),
        "a second transition of stride 2": Variant(transition=((32, 3, 1), (32, 3, 2))),
        "a third convolution of stride 2 and a fourth, 1x1, in the stem": Variant(
            stem=((64, 3, 2), (64, 3, 2), (64, 3, 2), (64, 1, 1))
        ),
        "a third convolution 7x7 of stride 2 from 32 channels": Variant(stem=((64, 3, 2), (32, 3, 2), (64, 7, 2))),
    },
}


def measure(module: nn.Module) -> tuple[int, int, int]:
    """Parameters, multiply-adds of the convolutions and FLOPs of one image of three channels."""
    normalised = 0

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal normalised
        result = call(*args, **kwargs)
        if isinstance(context.module, BatchNorm):
            normalised += result.size
        return result

    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    with nn.intercept_methods(watch):
        multiply_adds = sum(count_macs(module.apply, variables, images).values())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return parameters, multiply_adds, multiply_adds + 2 * normalised


def main() -> None:
    """Prints the table."""
    rows = []
    for (row, parameters, flops), structures in STRUCTURES.items():
        rows.append([row, "the paper's", parameters, "", flops])
        for name, module in structures.items():
            counted, *operations = measure(module)
            rows.append(["", name, f"{counted / 1e4:.2f} ({counted:,})", *(f"{each / 1e9:.2f}" for each in operations)])
    print(markdown_table(["row", "structure", "parameters, 1e-2 M", "multiply-adds, G", "FLOPs, G"], rows))


if __name__ == "__main__":
    main()
