"""Convolutions with explicit symmetric padding; `irjax.layers.cpu` has their implementations for the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from irjax.layers import cpu

_Pair = tuple[jax.Array, jax.Array]

# The default of PyTorch's Conv2d: uniform in +-1/sqrt(fan_in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


# --- depthwise ------------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Computes a depthwise convolution with an odd square kernel and zero padding of k // 2.

    Args:
      x: [B, H, W, C] floating point.
      kernel: [k, k, 1, C] of the same dtype, k odd.
      stride: at least 1.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C].

    Note:
      The derivative is defined for reverse mode only; `jax.jvp` raises.
    """
    return _depthwise(stride, x, kernel)


@functools.partial(jax.jit, static_argnums=0)  # blocks of equal shapes are traced once
def _depthwise(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    default = functools.partial(cpu.plain_conv, stride=stride, groups=x.shape[-1])
    return cpu.by_platform(x, kernel, cpu=functools.partial(cpu.depthwise, stride=stride), default=default)


@functools.partial(jax.jit, static_argnums=0)
def _depthwise_vjp(stride: int, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> _Pair:
    default = functools.partial(cpu.plain_conv_vjp, stride, x.shape[-1])
    return cpu.by_platform(x, kernel, grad, cpu=functools.partial(cpu.depthwise_vjp, stride), default=default)


def _depthwise_fwd(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, _Pair]:
    return depthwise_conv(x, kernel, stride), (x, kernel)


depthwise_conv.defvjp(_depthwise_fwd, lambda stride, saved, grad: _depthwise_vjp(stride, *saved, grad))


# --- dense ----------------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Computes a dense convolution with zero padding of k // 2 on every side, as PyTorch's ``padding=k // 2``.

    Args:
      x: [B, H, W, C] floating point.
      kernel: [k, k, C, D] of the same dtype, k odd.
      stride: at least 1.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), D].

    Note:
      The derivative is defined for reverse mode only; `jax.jvp` raises.
    """
    return _dense(stride, x, kernel)


@functools.partial(jax.jit, static_argnums=0)
def _dense(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    default = functools.partial(cpu.plain_conv, stride=stride)
    return cpu.by_platform(x, kernel, cpu=functools.partial(cpu.dense, stride), default=default)


@functools.partial(jax.jit, static_argnums=0)
def _dense_vjp(stride: int, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> _Pair:
    default = functools.partial(cpu.plain_conv_vjp, stride, 1)
    return cpu.by_platform(x, kernel, grad, cpu=functools.partial(cpu.dense_vjp, stride), default=default)


def _conv_fwd(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, _Pair]:
    return conv(x, kernel, stride), (x, kernel)


conv.defvjp(_conv_fwd, lambda stride, saved, grad: _dense_vjp(stride, *saved, grad))


# --- modules --------------------------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution [B, H, W, C] to [B, H', W', D], padding k // 2; parameters ``kernel`` [k, k, C, D], ``bias`` [D].

    Attributes:
      features: D.
      size: k, odd.
      stride: at least 1.
      use_bias: whether to add a bias [D].
      dtype: dtype of the computation; parameters are float32.
      kernel_init: initializer of the kernel.
    """

    features: int
    size: int = 1
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = torch_uniform

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        order: Sequence[int] | None = None,
        conv: Callable[[jax.Array, jax.Array, int], jax.Array] = conv,
    ) -> jax.Array:
        """Applies the convolution.

        Args:
          x: [B, H, W, C], or the input that `conv` accepts.
          order: channel i of x is the kernel's channel ``order[i]``; None if they agree.
          conv: ``(x, kernel [k, k, C, D], stride) -> y``, such as that of a domain (`irjax.layers.masked_sparse`).
        """
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
      stride: at least 1.
      use_bias: whether to add a bias [C].
      dtype: dtype of the computation; parameters are float32.
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
