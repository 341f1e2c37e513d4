"""Convolutions with explicit symmetric padding, in the forms that XLA runs fast on each platform.

XLA's CPU backend runs grouped convolutions and the gradients of strided ones far from the machine's peak, so on the
CPU a depthwise 3x3 is nine shifted multiply-adds, a convolution of a few planes one for each pair and tap, weight
gradients are accumulated block by block in cache, and the input gradient of a stride-2 convolution is split into its
four phases. Other platforms get the plain convolution.
`jax.lax.platform_dependent` chooses when the program is lowered; nothing is read at run time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_Pair = tuple[jax.Array, jax.Array]
_LAYOUT = ("NHWC", "HWIO", "NHWC")

# The default of PyTorch's Conv2d: uniform in +-1/sqrt(fan_in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _plain(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT, feature_group_count=groups
    )


def _plain_vjp(stride: int, groups: int, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> _Pair:
    return jax.vjp(lambda a, b: _plain(a, b, stride, groups), x, kernel)[1](grad)


# --- depthwise ------------------------------------------------------------------------------------------------------


def _pad(x: jax.Array, reach: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))


def _depthwise_shifted(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Depthwise convolution as a sum of shifted products, one fused loop on the CPU; the sum is float32."""
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
    """The largest divisor that is at most `most`, or 1."""
    return next(d for d in range(max(1, min(most, number)), 0, -1) if number % d == 0)


def _sum_over_rows(
    product: Callable[[jax.Array, jax.Array], jax.Array],
    around: jax.Array,
    other: jax.Array,
    rows: int,
    size: int,
    stride: int = 1,
) -> jax.Array:
    """A sum over blocks of rows of all images, small enough to stay in cache.

    Args:
      product: what is summed, of rows [stride (rows - 1) + size, W', C'] and [rows, W, C], float32.
      around: [B, H', W', C'], padded by size // 2.
      other: [B, H, W, C]; H a multiple of rows.
      rows: of `other` in a block.
      size: of the kernel.
      stride: rows of `around` for each of `other`.
    """
    batch, blocks = other.shape[0], other.shape[1] // rows
    tall = stride * (rows - 1) + size

    def part(index: jax.Array) -> jax.Array:
        image, top = index // blocks, index % blocks * rows
        window = lax.dynamic_slice(around, (image, stride * top, 0, 0), (1, tall, *around.shape[2:]))[0]
        return product(window, lax.dynamic_slice(other, (image, top, 0, 0), (1, rows, *other.shape[2:]))[0])

    zeros = jnp.zeros(jax.eval_shape(part, jax.ShapeDtypeStruct((), jnp.int32)).shape, jnp.float32)
    return lax.scan(lambda total, index: (total + part(index), None), zeros, jnp.arange(batch * blocks))[0]


def _depthwise_kernel_grad_blocked(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    """Weight gradient of a depthwise convolution, summed over row blocks small enough to stay in cache."""
    height, width, channels = x.shape[1:]
    rows = _divisor(height, 8)

    def product(window: jax.Array, part: jax.Array) -> jax.Array:
        window, part = window.astype(jnp.float32), part.astype(jnp.float32)
        sums = [jnp.sum(window[i : i + rows, j : j + width] * part, (0, 1)) for i in range(size) for j in range(size)]
        return jnp.stack(sums)

    total = _sum_over_rows(product, _pad(x, size // 2), grad, rows, size)
    return total.reshape(size, size, 1, channels).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Depthwise convolution with an odd square kernel and zero padding of k // 2.

    Args:
      x: [B, H, W, C] floating point.
      kernel: [k, k, 1, C] of the same type, k odd.
      stride: 1 or more.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C].

    Note:
      The derivative rule is for reverse mode; `jax.jvp` through it raises.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_depthwise_shifted, stride=stride),
        default=lambda a, b: _plain(a, b, stride, groups=a.shape[-1]),
    )


def _depthwise_fwd(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, _Pair]:
    return depthwise_conv(x, kernel, stride), (x, kernel)


def _depthwise_bwd(stride: int, saved: _Pair, grad: jax.Array) -> _Pair:
    def cpu(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> _Pair:
        # The outputs of a stride are every so many of those of stride 1; the others have no gradient.
        gaps = [(0, (size - 1) % stride, stride - 1) for size in x.shape[1:3]]
        grad = lax.pad(grad, jnp.zeros((), grad.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
        flipped = kernel[::-1, ::-1]
        return _depthwise_shifted(grad, flipped), _depthwise_kernel_grad_blocked(x, grad, kernel.shape[0])

    default = functools.partial(_plain_vjp, stride, saved[0].shape[-1])
    return lax.platform_dependent(*saved, grad, cpu=cpu, default=default)


depthwise_conv.defvjp(_depthwise_fwd, _depthwise_bwd)


# --- few planes -----------------------------------------------------------------------------------------------------

_FEW = 4  # pairs of planes, up to which multiply-adds one by one beat a matrix product: by 8 for 2 planes at 7x7
_LARGE = 48 * 48  # pixels of a plane, below which that saves less than its longer compilation is worth


def _few_planes(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    pairs, pixels = kernel.shape[2] * kernel.shape[3], x.shape[1] * x.shape[2]
    return stride == 1 and kernel.shape[0] > 1 and pairs <= _FEW and pixels >= _LARGE


def _planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution as one shifted multiply-add for each tap and pair of planes in one fused loop; sums are float32."""
    size, _, channels, features = kernel.shape
    height, width = x.shape[1:3]
    reach = size // 2
    # Without the barrier the loop reads the interleaved planes.
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
    """Its weight gradient, one product of the shifted planes and the gradient's planes an image."""
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

_IN_CACHE = 1 << 19  # elements of the shifted copies: few products, and still in cache


def _taps(padded: jax.Array, size: int, stride: int, height: int, width: int) -> jax.Array:
    """The size^2 shifted (and strided) copies of padded rows [H, W, C] side by side: [height, width, size^2 C]."""
    rows, cols = stride * (height - 1) + 1, stride * (width - 1) + 1
    parts = [padded[i : i + rows : stride, j : j + cols : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(parts, axis=-1) if size > 1 else parts[0]


def _kernel_grad_blocked(x: jax.Array, grad: jax.Array, size: int, stride: int) -> jax.Array:
    """Weight gradient of a convolution as a matrix product every few rows, so that shifted copies stay in cache."""
    height, width, features = grad.shape[1:]
    channels = x.shape[-1]
    # At stride 1 the narrower side is copied: sum_n x[n + k] g[n] = sum_n x[n] g[n - k].
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
    """Input gradient of a stride-2 3x3 convolution over an even-sided input, one small convolution a phase.

    With y[o] = sum_k x[2o + k - 1] w[k], even inputs meet w[1] only, odd inputs w[2] at o and w[0] at o + 1.
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


def _dense_cpu(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    if kernel.shape[:2] == (1, 1) and stride == 1:
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
    return _planes(x, kernel) if _few_planes(x, kernel, stride) else _plain(x, kernel, stride)


def _dense_vjp_cpu(stride: int, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    size = kernel.shape[0]
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    if stride == 2 and size == 3 and even:
        input_grad = _input_grad_in_phases(kernel, grad)
    elif stride == 1:
        input_grad = _dense_cpu(1, grad, jnp.swapaxes(kernel[::-1, ::-1], 2, 3))
    else:
        input_grad = jax.vjp(lambda a: _plain(a, kernel, stride), x)[1](grad)[0]
    if _few_planes(x, kernel, stride):
        return input_grad, _planes_kernel_grad(x, grad, size)
    return input_grad, _kernel_grad_blocked(x, grad, size, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Dense convolution with zero padding of k // 2 on every side, as PyTorch's ``padding=k // 2``.

    Args:
      x: [B, H, W, C] floating point.
      kernel: [k, k, C, D] of the same type, k odd.
      stride: 1 or more.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), D].

    Note:
      The derivative rule is for reverse mode; `jax.jvp` through it raises.
    """
    return lax.platform_dependent(
        x, kernel, cpu=functools.partial(_dense_cpu, stride), default=functools.partial(_plain, stride=stride)
    )


def _conv_fwd(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv(x, kernel, stride), (x, kernel)


def _conv_bwd(stride: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    cpu, default = functools.partial(_dense_vjp_cpu, stride), functools.partial(_plain_vjp, stride, 1)
    return lax.platform_dependent(*saved, grad, cpu=cpu, default=default)


conv.defvjp(_conv_fwd, _conv_bwd)


# --- modules --------------------------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution [B, H, W, C] to [B, H', W', D], padding k // 2; parameters ``kernel`` [k, k, C, D], ``bias`` [D].

    Attributes:
      features: D.
      size: k, odd.
      stride: 1 or more.
      use_bias: adds a bias [D].
      dtype: type of the computation; parameters stay float32.
      kernel_init: initializer of the kernel.
    """

    features: int
    size: int = 1
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = torch_uniform

    @nn.compact
    def __call__(self, x: jax.Array, *, order: Sequence[int] | None = None) -> jax.Array:
        """Applies the convolution to x [B, H, W, C], whose channel i is the kernel's channel ``order[i]`` if given."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if order is not None and list(order) != sorted(order):
            kernel = kernel[:, :, np.asarray(order)]
        y = conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            y = (y + self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)).astype(self.dtype)
        return y


class DepthwiseConv(nn.Module):
    """Depthwise convolution [B, H, W, C] to [B, H', W', C]; parameters ``kernel`` [k, k, 1, C], ``bias`` [C].

    Attributes:
      size: k, odd.
      stride: 1 or more.
      use_bias: adds a bias [C].
      dtype: type of the computation; parameters stay float32.
      kernel_init: initializer of the kernel.
    """

    size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = torch_uniform

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the convolution to x [B, H, W, C]."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, 1, x.shape[-1]), jnp.float32)
        y = depthwise_conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            y = (y + self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],), jnp.float32)).astype(self.dtype)
        return y
