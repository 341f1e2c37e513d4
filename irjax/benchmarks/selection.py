"""The savings from Na-IRSTD's patch selection, for `irjax benchmark --selection`.

Times the injection alone, the network, and a training step's gradient, for several numbers of selected patches and for
all of them (the dense variant, which gathers nothing), in turns within one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from irjax.benchmarks.timing import Call, circumstances, compare_calls, random_variables
from irjax.errors import UsageError
from irjax.losses.na_irstd import mask_loss
from irjax.models.na_irstd import NaIRSTD
from irjax.models.na_native import PATCH, Injection
from irjax.models.repvit import WIDTHS
from irjax.ops.patches import top_patches

ALL = "all"
_STRIDES = (4, 8, 16, 32)


def benchmark_selection(
    *,
    sizes: Sequence[int] = (256,),
    batches: Sequence[int] = (1,),
    selected: Sequence[int] = (5, 16),
    train_batch: int = 0,
    repeats: int = 9,
    bf16: bool = False,
    network: Callable[..., NaIRSTD] = NaIRSTD,
) -> dict[str, Any]:
    """Times Na-IRSTD with random weights for numbers K of selected patches, and for all patches.

    Args:
      sizes: sides of the images in pixels, multiples of 32.
      batches: numbers of images in a call.
      selected: values of K; for the injection alone, the patches are drawn at random.
      train_batch: images in a training step, whose gradient is also measured, with and without recomputing the native
        branch; 0: no training.
      repeats: timed calls of each.
      bf16: compute in bfloat16.
      network: builds the network from keyword arguments; tests use a smaller one.

    Returns:
      JSON values: those of `irjax.benchmarks.timing.circumstances`, and "runs", for each size and batch and each of
      `injection`, `network`, `gradient` and `gradient, remat`: "size", "batch", "what", and "forms",
      {K or "all": the result of `irjax.benchmarks.timing.compare_calls`}.

    Raises:
      UserError: if a size, a batch or a K cannot be used.
    """
    where = circumstances(sizes, batches, bf16)
    if min(selected) < 1:
        raise UsageError(f"numbers of selected patches must be at least 1, got {selected}")
    dtype = jnp.bfloat16 if bf16 else jnp.float32
    make = lambda number, **options: network(  # noqa: E731
        selected=None if number == ALL else number, dtype=dtype, **options
    )
    numbers: list[int | str] = [*selected, ALL]
    runs = []
    for size in sizes:
        if size % PATCH or max(selected) > (size // PATCH) ** 2:
            raise UsageError(f"a size must be a multiple of {PATCH} with at least {max(selected)} patches, got {size}")
        for batch in batches:
            shape = {"size": size, "batch": batch}
            runs += [
                {
                    **shape,
                    "what": "injection",
                    "forms": compare_calls(_injections(size, batch, numbers, dtype), repeats),
                },
                {**shape, "what": "network", "forms": compare_calls(_networks(size, batch, numbers, make), repeats)},
            ]
        for remat in (False, True) if train_batch else ():
            forms = compare_calls(_gradients(size, train_batch, numbers, make, remat), repeats)
            what = "gradient, remat" if remat else "gradient"
            runs.append({"size": size, "batch": train_batch, "what": what, "forms": forms})
    return {**where, "runs": runs}


def _normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def _injections(size: int, batch: int, numbers: Sequence[int | str], dtype: Any) -> dict[str, Call]:
    grid = (size // PATCH, size // PATCH)
    patches = grid[0] * grid[1]
    maps = [
        _normal(batch, size // s, size // s, width).astype(dtype) for s, width in zip(_STRIDES, WIDTHS, strict=True)
    ]
    features = [_normal(batch, patches, PATCH**2, 32).astype(dtype) for _ in maps]
    module = Injection(dtype)
    small = [x[:1, : 2 * PATCH // s, : 2 * PATCH // s] for x, s in zip(maps, _STRIDES, strict=True)]
    variables = random_variables(module, small, [x[:1, :4] for x in features], None, (2, 2))
    scores = _normal(batch, *grid)
    run = lambda variables, maps, features, indices: module.apply(variables, maps, features, indices, grid)  # noqa: E731
    chosen = {number: None if isinstance(number, str) else top_patches(scores, number)[:, None] for number in numbers}
    return {str(number): (run, (variables, maps, features, indices)) for number, indices in chosen.items()}


def _networks(size: int, batch: int, numbers: Sequence[int | str], make: Callable[..., NaIRSTD]) -> dict[str, Call]:
    given = _variables(make), _normal(batch, size, size, 1)
    run = lambda module: lambda variables, images: module.apply(variables, images).logits  # noqa: E731
    return {str(number): (run(make(number)), given) for number in numbers}


def _gradients(
    size: int, batch: int, numbers: Sequence[int | str], make: Callable[..., NaIRSTD], remat: bool
) -> dict[str, Call]:
    images, calls = _normal(batch, size, size, 1), {}
    target = images[..., 0] > 3
    variables = _variables(make)
    for number in numbers:
        module = make(number, remat=remat)

        def loss(params: Any, stats: Any, images: jax.Array, target: jax.Array, module: NaIRSTD = module) -> jax.Array:
            given = {"params": params, "batch_stats": stats}
            outputs, _ = module.apply(given, images, train=True, mutable=["batch_stats"])
            return jnp.mean(mask_loss(outputs, target))

        calls[str(number)] = (jax.grad(loss), (variables["params"], variables["batch_stats"], images, target))
    return calls


def _variables(make: Callable[..., NaIRSTD]) -> Any:
    return random_variables(make(ALL), jnp.zeros((1, 2 * PATCH, 2 * PATCH, 1)))
