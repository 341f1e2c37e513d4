"""Implementations that XLA runs fast on the CPU, and the choice between them and the plain ones.

XLA's CPU backend runs grouped convolutions and the gradients of strided ones far from the machine's peak. Here, a
depthwise 3x3 is nine shifted multiply-adds, a convolution of a few planes is one multiply-add for each pair of planes
and tap, weight gradients are accumulated block by block in cache, and the input gradient of a stride-2 convolution is
split into its four phases. Everything else uses the plain convolution. Only `irjax.layers` uses this
module, but for `for_converters`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from irjax.ops.patches import take_rows

_Pair = tuple[jax.Array, jax.Array]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


_converting = contextvars.ContextVar("converting", default=False)


@contextlib.contextmanager
def for_converters() -> Iterator[None]:
    """Traces networks for converters to other programs than XLA's: without forms for XLA's CPU backend."""
    before = _converting.set(True)
    try:
        yield
    finally:
        _converting.reset(before)


def converting() -> bool:
    """Returns whether the network is traced for a converter."""
    return _converting.get()


def by_platform(*arguments: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Computes ``cpu(*arguments)`` if the program is lowered for a CPU, else ``default(*arguments)``."""
    if converting():
        return default(*arguments)
    return lax.platform_dependent(*arguments, cpu=cpu, default=default)


def plain_conv(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
    """Computes XLA's own convolution with zero padding of k // 2."""
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT, feature_group_count=groups
    )


def plain_conv_vjp(stride: int, groups: int, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> _Pair:
    """Returns the gradients of `plain_conv` for x and the kernel."""
    return jax.vjp(lambda a, b: plain_conv(a, b, stride, groups), x, kernel)[1](grad)


# --- depthwise ------------------------------------------------------------------------------------------------------


def _pad(x: jax.Array, reach: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))


def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Computes a depthwise convolution as a sum of shifted products, one fused loop on the CPU, in float32."""
    size = kernel.shape[0]
    height, width = x.shape[1:3]
    padded = _pad(x, size // 2).astype(jnp.float32)
    taps = kernel.reshape(size, size, -1).astype(jnp.float32)
    shifted = [
        padded[:, i : i + height : stride, j : j + width : stride] * taps[i, j]
        for i in range(size)
        for j in range(size)
    ]
    return functools.reduce(jnp.add, shifted).astype(x.dtype)


def _divisor(number: int, most: int) -> int:
    """Returns the largest divisor of `number` that is at most `most`, or 1."""
    return next(d for d in range(max(1, min(most, number)), 0, -1) if number % d == 0)


def _rows(x: jax.Array, image: jax.Array, top: jax.Array, rows: int) -> jax.Array:
    """Returns rows [rows, W, C] of one of the images [B, H, W, C], from the row `top` on."""
    sizes = (1, rows, *x.shape[2:])
    return lax.dynamic_slice(x, (image, top, 0, 0), sizes, allow_negative_indices=False)[0]


def _sum_over_rows(
    product: Callable[[jax.Array, jax.Array], jax.Array],
    around: jax.Array,
    other: jax.Array,
    rows: int,
    size: int,
    stride: int = 1,
) -> jax.Array:
    """Sums over blocks of rows of all images; a block is small enough to stay in cache.

    Args:
      product: the summand, a function of rows [stride (rows - 1) + size, W', C'] and [rows, W, C] to float32.
      around: [B, H', W', C'], padded by size // 2.
      other: [B, H, W, C]; H a multiple of `rows`.
      rows: number of rows of `other` in a block.
      size: side of the kernel.
      stride: number of rows of `around` for each row of `other`.
    """
    batch, blocks = other.shape[0], other.shape[1] // rows
    tall = stride * (rows - 1) + size

    def part(index: jax.Array) -> jax.Array:
        # Indices are not negative; without saying so, each division and slice is ten operations more to compile.
        image, top = lax.div(index, blocks), lax.rem(index, blocks) * rows
        return product(_rows(around, image, stride * top, tall), _rows(other, image, top, rows))

    zeros = jnp.zeros(jax.eval_shape(part, jax.ShapeDtypeStruct((), jnp.int32)).shape, jnp.float32)
    return lax.scan(lambda total, index: (total + part(index), None), zeros, jnp.arange(batch * blocks))[0]


def _depthwise_kernel_grad(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    """Returns the weight gradient of a depthwise convolution: row by row, one fused multiply-add for each tap."""
    batch, height, width, channels = x.shape
    padded, grad = _pad(x, size // 2).astype(jnp.float32), grad.astype(jnp.float32)

    def add(totals: tuple[jax.Array, ...], top: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        around = lax.dynamic_slice_in_dim(padded, top, size, 1, allow_negative_indices=False)
        row = lax.dynamic_index_in_dim(grad, top, 1, keepdims=False, allow_negative_indices=False)
        taps = [around[:, i, j : j + width] for i in range(size) for j in range(size)]
        return tuple(total + tap * row for total, tap in zip(totals, taps, strict=True)), None

    zeros = (jnp.zeros((batch, width, channels), jnp.float32),) * size**2
    totals, _ = lax.scan(add, zeros, jnp.arange(height))
    return jnp.stack([jnp.sum(total, (0, 1)) for total in totals]).reshape(size, size, 1, channels).astype(x.dtype)


def depthwise_vjp(stride: int, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> _Pair:
    """Returns the gradients of `depthwise` for x and the kernel."""
    # A strided convolution outputs every stride-th site of that with stride 1; the others have no gradient.
    gaps = [(0, (size - 1) % stride, stride - 1) for size in x.shape[1:3]]
    grad = lax.pad(grad, jnp.zeros((), grad.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
    flipped = kernel[::-1, ::-1]
    return depthwise(grad, flipped), _depthwise_kernel_grad(x, grad, kernel.shape[0])


# --- few planes -----------------------------------------------------------------------------------------------------

_FEW = 4  # pairs of planes up to which multiply-adds beat a matrix product: by 8 times for 2 planes at 7x7
_LARGE = 48 * 48  # pixels of a plane below which the saved time does not outweigh the longer compilation


def _few_planes(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    pairs, pixels = kernel.shape[2] * kernel.shape[3], x.shape[1] * x.shape[2]
    return stride == 1 and kernel.shape[0] > 1 and pairs <= _FEW and pixels >= _LARGE


def _planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a convolution as one multiply-add per tap and pair of planes, in one fused loop with float32 sums."""
    size, _, channels, features = kernel.shape
    height, width = x.shape[1:3]
    reach = size // 2
    # Without the barrier the loop would read the interleaved planes.
    planes = lax.optimization_barrier(
        [jnp.pad(x[..., c], ((0, 0), (reach, reach), (reach, reach))).astype(jnp.float32) for c in range(channels)]
    )
    kernel = kernel.astype(jnp.float32)
    taps = [(i, j, c) for c in range(channels) for i in range(size) for j in range(size)]
    sums = [
        functools.reduce(
            jnp.add, [planes[c][:, i : i + height, j : j + width] * kernel[i, j, c, d] for i, j, c in taps]
        )
        for d in range(features)
    ]
    return jnp.stack(sums, axis=-1).astype(x.dtype)


def _planes_kernel_grad(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    """Returns the weight gradient of `_planes`, for each image one product of shifted planes and the gradient."""
    height, width, features = grad.shape[1:]
    channels, reach = x.shape[-1], size // 2
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0))).transpose(0, 3, 1, 2)

    def image(total: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        planes, part = pair
        shifted = [planes[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
        left = jnp.stack(shifted).reshape(size * size * channels, -1)
        product = jnp.matmul(left, part.reshape(-1, features), preferred_element_type=jnp.float32)
        return total + product, None

    total, _ = lax.scan(image, jnp.zeros((size * size * channels, features), jnp.float32), (padded, grad))
    return total.reshape(size, size, channels, features).astype(x.dtype)


# --- dense ----------------------------------------------------------------------------------------------------------

_IN_CACHE = 1 << 19  # elements of the shifted copies: few products that still fit in cache


def _taps(padded: jax.Array, size: int, stride: int, height: int, width: int) -> jax.Array:
    """Concatenates the size^2 shifted, strided copies of padded rows [H, W, C]: [height, width, size^2 C]."""
    rows, cols = stride * (height - 1) + 1, stride * (width - 1) + 1
    parts = [padded[i : i + rows : stride, j : j + cols : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(parts, axis=-1) if size > 1 else parts[0]


def _kernel_grad(x: jax.Array, grad: jax.Array, size: int, stride: int) -> jax.Array:
    """Returns the weight gradient of a convolution, a matrix product every few rows to stay in cache."""
    height, width, features = grad.shape[1:]
    channels = x.shape[-1]
    if size == 1 and stride == 1:
        pair = (image.reshape(len(x), height * width, -1) for image in (x, grad))
        whole = jnp.einsum("bnc,bnd->bcd", *pair, preferred_element_type=jnp.float32)
        return jnp.sum(whole, 0).reshape(1, 1, channels, features).astype(x.dtype)
    # At stride 1 the array with fewer channels is copied: sum_n x[n + k] g[n] = sum_n x[n] g[n - k].
    shift_grad = stride == 1 and features <= channels
    copied, other = (grad, x) if shift_grad else (x, grad)
    rows = _divisor(height, _IN_CACHE // (width * size * size * copied.shape[-1]))

    def product(window: jax.Array, part: jax.Array) -> jax.Array:
        taps = _taps(window, size, stride, rows, width)
        pair = (part, taps) if shift_grad else (taps, part)
        return lax.dot_general(*pair, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32)

    total = _sum_over_rows(product, _pad(copied, size // 2), other, rows, size, stride)
    if shift_grad:
        total = total.reshape(channels, size, size, features)[:, ::-1, ::-1].transpose(1, 2, 0, 3)
    return total.reshape(size, size, channels, features).astype(x.dtype)


def _input_grad_in_phases(kernel: jax.Array, grad: jax.Array) -> jax.Array:
    """Returns the input gradient of a stride-2 3x3 convolution with even input sides, one small convolution per phase.

    With y[o] = sum_k x[2o + k - 1] w[k], even inputs meet only w[1], odd inputs meet w[2] at o and w[0] at o + 1.
    """
    turned = jnp.swapaxes(kernel, 2, 3)

    def phase(row_odd: bool, col_odd: bool) -> jax.Array:
        part = turned[2::-2] if row_odd else turned[1:2]
        part = part[:, 2::-2] if col_odd else part[:, 1:2]
        pads = [(0, int(row_odd)), (0, int(col_odd))]
        return lax.conv_general_dilated(grad, part, (1, 1), pads, dimension_numbers=_LAYOUT)

    rows = [jnp.stack([phase(odd, False), phase(odd, True)], axis=3) for odd in (False, True)]
    both = jnp.stack(rows, axis=2)
    batch, height, _, width, _, channels = both.shape
    return both.reshape(batch, 2 * height, 2 * width, channels)


def dense(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a dense convolution with zero padding of k // 2."""
    if kernel.shape[:2] == (1, 1) and stride == 1:
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
    return _planes(x, kernel) if _few_planes(x, kernel, stride) else plain_conv(x, kernel, stride)


def dense_vjp(stride: int, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> _Pair:
    """Returns the gradients of `dense` for x and the kernel."""
    size = kernel.shape[0]
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    if stride == 2 and size == 3 and even:
        input_grad = _input_grad_in_phases(kernel, grad)
    elif stride == 1:
        input_grad = dense(1, grad, jnp.swapaxes(kernel[::-1, ::-1], 2, 3))
    else:
        input_grad = jax.vjp(lambda a: plain_conv(a, kernel, stride), x)[1](grad)[0]
    if _few_planes(x, kernel, stride):
        return input_grad, _planes_kernel_grad(x, grad, size)
    return input_grad, _kernel_grad(x, grad, size, stride)


# --- the rest -------------------------------------------------------------------------------------------------------


def conv_of_rows(x: jax.Array, rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a convolution of patches by matrix products that fit in cache.

    XLA's CPU convolutions of many tiny images are slow, its gathers of rows fast.

    Args:
      x: [B, K, p, p, C].
      rows: [B, K, p + 2 r, p + 2 r], the row numbers of the sites of x that lie in and around each patch.
      kernel: [k, k, C, D], k = 2 r + 1.
    """
    size, side = kernel.shape[0], x.shape[2]
    shifted = [rows[:, :, i : i + side, j : j + side] for i in range(size) for j in range(size)]
    taps = jnp.stack(shifted, axis=-1).reshape(-1, size * size)
    # In an exported program the batch has no size yet: the chunks are those of each image.
    sites = taps.shape[0]
    chunks = x.shape[0] * _chunks(rows.shape[1] * side**2) if is_symbolic_dim(sites) else _chunks(sites)
    flat = kernel.reshape(-1, kernel.shape[-1])
    product = lambda rows: take_rows(x, rows).reshape(rows.shape[0], -1) @ flat  # noqa: E731
    if chunks == 1:
        return product(taps).reshape(*x.shape[:-1], -1)
    return lax.map(product, taps.reshape(chunks, -1, size * size)).reshape(*x.shape[:-1], -1)


def _chunks(sites: int, most: int = 2048) -> int:
    """Returns into how many equal chunks to split the sites.

    A chunk has at most `most` sites, and not many fewer; if no such number divides the sites, there is one chunk.
    """
    least = -(-sites // most)
    return next((n for n in range(least, min(4 * least, sites) + 1) if sites % n == 0), 1)


def copied(x: jax.Array) -> jax.Array:
    """Returns a copy of an array, made by a loop that the compiler does not remove."""
    if x.size % 2 or not x.size:
        return x
    # The loop runs over the indices of two parts: XLA removes a loop that runs once or only forwards its input.
    parts = x.reshape(2, -1)
    part = functools.partial(lax.dynamic_index_in_dim, parts, keepdims=False, allow_negative_indices=False)
    return lax.map(part, jnp.arange(2)).reshape(x.shape)


def one_by_one(function: Callable[..., jax.Array], *arguments: jax.Array) -> jax.Array:
    """Maps a function of the last two axes over its arguments' leading axes, one index after the other.

    So does the backward pass. The intermediate values then stay in cache.
    """
    flat = tuple(x.reshape(-1, *x.shape[-2:]) for x in arguments)
    result = lax.map(jax.checkpoint(lambda one: function(*one)), flat)
    return result.reshape(*arguments[0].shape[:-2], *result.shape[-2:])


@jax.custom_vjp
def materialize(x: jax.Array) -> jax.Array:
    """Returns an array [...] unchanged, written to memory once on the CPU; the same holds for its gradient.

    XLA's CPU backend recomputes sums and products in every loop that reads them. Where a residual passes through many
    blocks of shifted sums, each block therefore repeats all blocks before it, and RepViT's time grows with the square
    of its depth. An optimisation barrier does not help, because it is removed before loops are fused; a loop that
    copies the array does. On other platforms the array is returned as it is.
    """
    return by_platform(x, cpu=copied, default=lambda value: value)


@jax.custom_vjp
def materialize_if_differentiated(x: jax.Array) -> jax.Array:
    """Is `materialize` where the gradient is computed, and else costs nothing.

    For values that the backward pass reads again many times, but the forward pass only a few times.
    """
    return x


for _function in (materialize, materialize_if_differentiated):
    _function.defvjp(lambda x: (materialize(x), None), lambda _, grad: (materialize(grad),))
