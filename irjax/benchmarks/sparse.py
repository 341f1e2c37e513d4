"""The savings from ADSNet's cascade, for `irjax benchmark --sparse`.

Times each stage alone and the whole network, with nothing dropped, with dropped patches left out (`gather_sparse`), and
with dropped patches computed and cleared (`masked_dense`), in turns within one process.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from irjax.benchmarks.timing import Call, circumstances, compare_calls, random_variables
from irjax.errors import UsageError
from irjax.layers.blocks import ConvNorm
from irjax.layers.masked_sparse import KeptPatches, WholeMap, kept_number
from irjax.models.adsnet import STRIDES, Activation, ADSNet, Segmentation, depth_to_space
from irjax.ops.patches import expand_mask, mask_of, top_patches

FORMS = ("nothing_dropped", "gather_sparse", "masked_dense")


class _Stage(nn.Module):
    """Level 3, or level 2 with the head, alone: maps [B, H / s, W / s, C] to a map, or to logits."""

    level: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, domain: WholeMap | KeptPatches) -> jax.Array:
        block = functools.partial(ConvNorm, dtype=self.dtype)
        seen = domain.enter(x)
        added = Activation(self.width, block, name="activation")(seen, domain, train=False)
        if self.level == 3:
            return x + domain.leave(added)
        pixels = Segmentation(self.width, block, name="segmentation")(
            seen + domain.restrict(added), domain, train=False
        )
        return depth_to_space(domain.fill(pixels, 0.0))


def benchmark_sparse(
    *,
    sizes: Sequence[int] = (256, 512, 1024),
    batches: Sequence[int] = (1, 8),
    dropped: tuple[float, float] = (0.25, 0.5),
    width: int = 128,
    repeats: int = 9,
    bf16: bool = False,
) -> dict[str, Any]:
    """Times ADSNet with random weights in its three forms.

    Args:
      sizes: sides of the images in pixels, multiples of 16.
      batches: numbers of images in a call.
      dropped: fractions of all patches dropped at levels 3 and 2; for a stage alone, the patches are drawn at random.
      width: channels of the pyramid.
      repeats: timed calls of each.
      bf16: compute in bfloat16.

    Returns:
      JSON values: those of `irjax.benchmarks.timing.circumstances`, and "runs", for each size and batch and each of
      `level 3`, `level 2 and head` and `network`: "size", "batch", "what", for each form the result of
      `irjax.benchmarks.timing.compare_calls`, and "ratio" and "least_ratio", the time and the multiply-adds of
      `gather_sparse` divided by those of `nothing_dropped`.

    Raises:
      UserError: if a size, a batch, or a fraction cannot be used.
    """
    where = circumstances(sizes, batches, bf16)
    dtype = jnp.bfloat16 if bf16 else jnp.float32
    runs = [
        row
        for size in sizes
        for batch in batches
        for row in (
            _time("level 3", size, batch, _stage(3, size, batch, dropped[0], width, dtype), repeats),
            _time("level 2 and head", size, batch, _stage(2, size, batch, dropped[1], width, dtype), repeats),
            _time("network", size, batch, _network(size, batch, dropped, width, dtype), repeats),
        )
    ]
    return {**where, "runs": runs}


def _stage(level: int, size: int, batch: int, dropped: float, width: int, dtype: Any) -> dict[str, Call]:
    if size % STRIDES[4]:
        raise UsageError(f"a size must be a multiple of {STRIDES[4]}, got {size}")
    side, cells = size // STRIDES[level], size // STRIDES[4]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, side, side, width)), jnp.float32)
    scores = jnp.asarray(rng.normal(size=(batch, cells, cells)), jnp.float32)
    indices = top_patches(scores, kept_number(cells * cells, dropped))
    mask = expand_mask(mask_of(indices, (cells, cells)), side // cells)
    module = _Stage(level, width, dtype)
    variables = random_variables(module, jnp.zeros((1, 16, 16, width)), WholeMap())

    def gathered(variables: Any, x: jax.Array, indices: jax.Array) -> jax.Array:
        return cast(jax.Array, module.apply(variables, x, KeptPatches(indices, (cells, cells))))

    return {
        "nothing_dropped": (lambda variables, x: module.apply(variables, x, WholeMap()), (variables, x)),
        "gather_sparse": (gathered, (variables, x, indices)),
        "masked_dense": (lambda variables, x, mask: module.apply(variables, x, WholeMap(mask)), (variables, x, mask)),
    }


def _network(size: int, batch: int, dropped: tuple[float, float], width: int, dtype: Any) -> dict[str, Call]:
    images = jnp.asarray(np.random.default_rng(0).normal(size=(batch, size, size, 1)), jnp.float32)
    calls = {}
    for form in FORMS:
        some = form != "nothing_dropped"
        network = ADSNet(
            width=width, dtype=dtype, dropped=dropped if some else (None, None), mode=form if some else FORMS[1]
        )
        variables = random_variables(network, jnp.zeros((1, 64, 64, 1)))
        calls[form] = (lambda variables, x, network=network: network.apply(variables, x).logits, (variables, images))
    return calls


def _time(what: str, size: int, batch: int, calls: dict[str, Call], repeats: int) -> dict[str, Any]:
    forms = compare_calls(calls, repeats)
    ratio = lambda name: forms["gather_sparse"][name] / forms["nothing_dropped"][name]  # noqa: E731
    shape = {"size": size, "batch": batch, "what": what}
    return {**shape, **forms, "ratio": ratio("median"), "least_ratio": ratio("multiply_adds")}
