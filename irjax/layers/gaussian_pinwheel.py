"""Kernels shaped like a small target: a Gaussian window, a rotated pinwheel, and the pinwheel-shaped convolution.

Only the abstract of "Revisiting the Scale Loss Function and Gaussian-Shape Convolution for Infrared Small Target
Detection" (arXiv 2604.09991) was available. The window and the rotated mask are a reconstruction from that abstract and
from the public repository ECTCV, assumed to be its code. Where both leave a choice, or the code contradicts its intent,
the choice is irjax's and documented as such. `PinwheelConv` is the published PConv ("Pinwheel-shaped Convolution and
Scale-based Dynamic Loss for Infrared Small Target Detection", AAAI 2025), the baseline.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from irjax.errors import UserError
from irjax.layers.conv import conv, torch_uniform
from irjax.layers.norm import BatchNorm

MIN_SIGMA, MAX_SIGMA = 0.3, 10.0  # pixels
INITIAL_SIGMA = 1.5
KINDS = ("gaussian", "gaussian_pinwheel", "gaussian_pinwheel_rotated")
_BANK = 4  # number of orientations with `orient="bank"`


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the offsets (u, v) of the cells from the centre, each [size, size]; u points right, v down."""
    if size < 1 or size % 2 == 0:
        raise UserError(f"a window has an odd side, got {size}")
    offset = np.arange(size) - size // 2
    return np.meshgrid(offset.astype(np.float32), offset.astype(np.float32), indexing="xy")


def gaussian_window(log_sigma: jax.Array, size: int = 7) -> jax.Array:
    """Computes exp(-(u^2 + v^2) / 2 sigma^2), whose largest value is 1.

    Args:
      log_sigma: scalar; sigma = exp(log_sigma), clipped to [0.3, 10] pixels.
      size: side of the window, odd.

    Returns:
      [size, size] float32.
    """
    u, v = _grid(size)
    sigma = jnp.clip(jnp.exp(jnp.asarray(log_sigma, jnp.float32)), MIN_SIGMA, MAX_SIGMA)
    return jnp.exp(-(u**2 + v**2) / (2 * sigma**2))


def pinwheel_mask(
    theta: jax.Array, *, size: int = 7, lines: int = 2, width: float = 0.75, temperature: float = 0.25
) -> jax.Array:
    """Computes a pinwheel of straight arms through the centre: binary in the forward pass, differentiable in its angle.

    A cell is 1 if it is nearer than `width` to one of the lines at theta + k pi / lines and inside the disc of radius
    size / 2, and exactly 0 otherwise. The gradient is that of sigmoids in place of both steps (a straight-through
    estimator).

    Args:
      theta: scalar angle in radians, from the x axis towards y (down).
      size: side of the window, odd.
      lines: number of lines through the centre, half the number of arms; the mask has period pi / lines.
      width: half width of an arm in pixels.
      temperature: temperature of the sigmoids in pixels; gradients become erratic below 0.2.

    Returns:
      [size, size] float32.

    Note:
      Two lines (four arms, as in PConv), width 0.75 and temperature 0.25 are irjax's choice. ECTCV rotates eight arms
      by steps of 45 degrees, the period of its mask, so that all its kernels are alike, and its disc never reaches the
      outer ring of cells.
    """
    if lines < 1 or width <= 0 or temperature <= 0:
        raise UserError(f"need lines >= 1, width > 0, temperature > 0; got {lines}, {width}, {temperature}")
    u, v = _grid(size)
    angles = jnp.asarray(theta, jnp.float32) + np.pi / lines * np.arange(lines, dtype=np.float32)
    # Not `jnp.min`, whose gradient can be 0 / 0; see `irjax.layers.attention.max_along`.
    distance = functools.reduce(jnp.minimum, [jnp.abs(jnp.cos(angle) * v - jnp.sin(angle) * u) for angle in angles])
    radius, reach = np.hypot(u, v), size / 2
    hard = ((distance < width) & (radius < reach)).astype(jnp.float32)
    soft = jax.nn.sigmoid((reach - radius) / temperature) * jax.nn.sigmoid((width - distance) / temperature)
    # In this order the forward value is exact, because soft - soft is exactly zero.
    return hard + (soft - lax.stop_gradient(soft))


def window(kind: str, log_sigma: jax.Array, theta: jax.Array, size: int = 7) -> jax.Array:
    """Computes the window of a kernel, normalised to sum to one.

    Args:
      kind: `gaussian`, or `gaussian_pinwheel` and `gaussian_pinwheel_rotated`, which multiply it by a pinwheel mask.
      log_sigma: scalar; see `gaussian_window`.
      theta: scalar angle in radians; ignored for `gaussian`.
      size: side of the window, odd.

    Returns:
      [size, size] float32.

    Raises:
      UserError: if the kind is unknown.
    """
    if kind not in KINDS:
        raise UserError(f"unknown window {kind!r}; known: {', '.join(KINDS)}")
    shape = gaussian_window(log_sigma, size)
    if kind != "gaussian":
        shape = shape * pinwheel_mask(theta, size=size)
    return shape / jnp.sum(shape)


class GaussianPinwheelConv(nn.Module):
    """Convolution [B, H, W, C] to [B, H, W, 1] whose kernel has a Gaussian window and, optionally, a pinwheel mask.

    Parameters: ``log_sigma`` (), ``theta`` () if the pinwheel rotates, ``kernel`` [k, k, C, 1] with `free_weight`.

    Attributes:
      kind: one of `KINDS`: without pinwheel, with a fixed pinwheel, or with a pinwheel whose angle is learned.
      size: k, odd.
      free_weight: learn a weight for every cell under the window, initially 1, so that training starts from the window
        itself. Without it the kernel is the window alone, as in ECTCV, and cannot learn contrast.
      orient: `learned` learns one angle per layer. `bank` takes, at each pixel, the strongest response of 4 rotations
        of the pinwheel, which follows single targets instead of the data set's mean.
      dtype: dtype of the computation; parameters are float32.
    """

    kind: str = "gaussian_pinwheel_rotated"
    size: int = 7
    free_weight: bool = True
    orient: str = "learned"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the convolution to x [B, H, W, C] with zero padding."""
        if self.orient not in ("learned", "bank"):
            raise UserError(f"orient must be 'learned' or 'bank', got {self.orient!r}")
        channels = x.shape[-1]
        log_sigma = self.param("log_sigma", nn.initializers.constant(math.log(INITIAL_SIGMA)), (), jnp.float32)
        theta = jnp.zeros((), jnp.float32)
        if self.kind == "gaussian_pinwheel_rotated":
            theta = self.param("theta", nn.initializers.zeros_init(), (), jnp.float32)
        turns = 1
        if self.orient == "bank" and self.kind != "gaussian":
            turns = _BANK
        windows = [window(self.kind, log_sigma, theta + j * np.pi / (2 * turns), self.size) for j in range(turns)]
        kernel = jnp.broadcast_to(jnp.stack(windows, -1)[:, :, None, :], (self.size, self.size, channels, turns))
        if self.free_weight:
            shape = (self.size, self.size, channels, 1)
            kernel = kernel * self.param("kernel", nn.initializers.ones_init(), shape, jnp.float32)
        y = conv(x.astype(self.dtype), kernel.astype(self.dtype))
        if turns == 1:
            return y
        strongest = jnp.argmax(jnp.abs(y), axis=-1, keepdims=True)
        return jnp.take_along_axis(y, strongest, axis=-1)


class PinwheelConv(nn.Module):
    """Pinwheel-shaped convolution: four asymmetrically padded strips joined by a 2x2, [B, H, W, C] to [B, H, W, D].

    Two strips, 1xk and kx1, are each used twice with the padding on opposite sides; every convolution is followed by
    batch normalisation and SiLU.

    Attributes:
      features: D, a multiple of 4.
      size: k.
      norm: constructor of normalisations.
      dtype: dtype of the computation; parameters are float32.

    Source: Yang et al., AAAI 2025 (PConv); paddings as in its published code.
    """

    features: int
    size: int = 3
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block to x [B, H, W, C]."""
        if self.features % 4:
            raise UserError(f"a pinwheel-shaped convolution needs a multiple of 4 features, got {self.features}")
        k, strip = self.size, self.features // 4
        common = {"make_norm": self.norm, "dtype": self.dtype}
        across = _PaddedConv(strip, (1, k), name="across", **common)
        down = _PaddedConv(strip, (k, 1), name="down", **common)
        parts = [
            across(x, ((1, 0), (k, 0)), train=train),
            across(x, ((0, 1), (0, k)), train=train),
            down(x, ((k, 0), (0, 1)), train=train),
            down(x, ((0, k), (1, 0)), train=train),
        ]
        joined = jnp.concatenate(parts, axis=-1)
        return _PaddedConv(self.features, (2, 2), name="join", **common)(joined, ((0, 0), (0, 0)), train=train)


class _PaddedConv(nn.Module):
    """Convolution with padding ((top, bottom), (left, right)), batch normalisation and SiLU."""

    features: int
    size: tuple[int, int]
    make_norm: Callable[..., nn.Module]
    dtype: Any

    def setup(self) -> None:
        self.norm = self.make_norm()

    @nn.compact
    def __call__(self, x: jax.Array, padding: Any, *, train: bool) -> jax.Array:
        kernel = self.param("kernel", torch_uniform, (*self.size, x.shape[-1], self.features), jnp.float32)
        y = lax.conv_general_dilated(
            x.astype(self.dtype), kernel.astype(self.dtype), (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return nn.silu(self.norm(y, train=train))
