"""Native branch of Na-IRSTD: full-resolution features of patches, their relevance, and injection into the backbone.

Source: Na-IRSTD (arXiv 2605.05804), Section III-B: patchwise detail extraction (PDE, Equations 5 and 6) and the global
patch mixer (GPM, Equations 7 to 9), which together form the patchwise detail-context encoder (PDCE); the relevance
scorer; and the cross-scale injection from patches to the windows of the backbone's maps (Equation 13). The injection's
learned factor is the paper's. Its initial value is irjax's own, as are widths, blocks and learned positions, which the
paper does not give.

Note:
  No projection after a layer normalisation has a bias, because the bias of the normalisation passes through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.layers.attention import max_along
from irjax.layers.blocks import ConvNorm, ModuleDef
from irjax.layers.norm import LayerNorm
from irjax.layers.tokens import Attention, Mlp, sine_positions
from irjax.ops.patches import grid_of, join_patch_windows, put_patches, split_patches, split_windows, take_patches

PATCH = 32  # side in pixels
STAGES = 4
HEADS = 4
_LATTICE = 8  # side of the grid of learned positions: 256 / 32
_INNER = 128  # upper limit of the channels inside the injection's attention
_LONGEST = 100.0  # the injection's longest wavelength / 2 pi, longer than a patch

_gelu = jax.checkpoint(nn.gelu)  # saves only its input for the gradient: less memory in training


class PatchMixer(nn.Module):
    """Global patch mixer (GPM): attention between the patches of an image, [B, N, p, p, D] to [B, N, D].

    Attributes:
      grid: rows and columns of patches.
      positions: add learned positions first; they are resized if the grid is not 8x8.
      dtype: dtype of the computation.
    """

    grid: tuple[int, int]
    positions: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns one vector for each patch of x [B, N, p, p, D]; zero at initialisation."""
        width = x.shape[-1]
        norm = lambda name: LayerNorm(dtype=self.dtype, name=name)  # noqa: E731
        tokens = jnp.mean(x, axis=(2, 3), dtype=jnp.float32)
        if self.positions:
            shape = (_LATTICE, _LATTICE, width)
            places = self.param("positions", nn.initializers.normal(0.02), (shape[0] * shape[1], width), jnp.float32)
            if self.grid != shape[:2]:
                places = jax.image.resize(places.reshape(shape), (*self.grid, width), "bilinear", antialias=False)
            tokens = tokens + places.reshape(-1, width)
        attention = Attention(width, heads=HEADS, use_bias=False, dtype=self.dtype, name="attention")
        normed = norm("norm1")(tokens)
        tokens = tokens + attention(normed, normed)
        forward = Mlp((2 * width, width), nn.gelu, use_bias=False, dtype=self.dtype, name="forward")
        tokens = tokens + forward(norm("norm2")(tokens))
        zero = nn.initializers.zeros_init()
        return nn.Dense(width, use_bias=False, kernel_init=zero, dtype=self.dtype, name="out")(tokens)


class NativeStage(nn.Module):
    """One stage of the patchwise detail-context encoder (PDCE): [M, h, w, C] to [M, h, w, D] at full resolution.

    It consists of patchwise detail extraction (PDE), here a residual block of two 3x3 convolutions, and the mixer.

    Attributes:
      width: D.
      grid: rows and columns of the patches that the M = B N maps are, for the mixer; None for whole images and no
        mixer.
      positions: use learned positions in the mixer.
      block: constructor of convolutions with normalisation.
    """

    width: int = 32
    grid: tuple[int, int] | None = None
    positions: bool = False
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the stage to x [M, h, w, C]; every map is padded with zeros."""
        y = _gelu(self.block(self.width, 3, relu=False, name="conv1")(x, train=train))
        y = self.block(self.width, 3, relu=False, name="conv2")(y, train=train)
        if x.shape[-1] != self.width:
            x = self.block(self.width, relu=False, name="shortcut")(x, train=train)
        y = _gelu(x + y)
        if self.grid is None:
            return y
        patches = y.reshape(-1, self.grid[0] * self.grid[1], *y.shape[1:])
        mixer = PatchMixer(self.grid, self.positions, y.dtype, name="mixer")
        return y + mixer(patches).reshape(-1, 1, 1, self.width)


class NativeBranch(nn.Module):
    """Maps images [B, H, W, C] to features of every pixel of every patch, after each of four stages.

    104,832 parameters and 4.25 G multiply-adds at 256x256 with one input channel.

    Attributes:
      patchwise: convolve each patch separately and join the patches by the mixer; otherwise convolve the whole image,
        without the mixer.
      width: D.
      remat: recompute the stages in the backward pass instead of storing their intermediate values.
      block: constructor of convolutions with normalisation.
    """

    patchwise: bool = True
    width: int = 32
    remat: bool = False
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Returns each stage's features [B, N, 1024, D] of images whose sides are multiples of 32."""
        grid, batch = grid_of(images.shape[1], images.shape[2], PATCH), images.shape[0]
        x = images
        if self.patchwise:
            x = split_patches(x, PATCH).reshape(-1, PATCH, PATCH, x.shape[-1])
        stage = nn.remat(NativeStage, static_argnums=(2,)) if self.remat else NativeStage
        features = []
        for index in range(STAGES):
            x = stage(
                width=self.width,
                grid=grid if self.patchwise else None,
                positions=index == 0,
                block=self.block,
                name=f"stage{index + 1}",
            )(x, train)
            sites = x if self.patchwise else split_patches(x, PATCH)
            features.append(sites.reshape(batch, grid[0] * grid[1], PATCH * PATCH, self.width))
        return tuple(features)


class PatchScorer(nn.Module):
    """Scores the relevance of each patch from the mean and the maximum of its features, in float32.

    It has no batch statistics, so that freezing its parameters freezes it completely.
    """

    @nn.compact
    def __call__(self, stages: Sequence[jax.Array]) -> jax.Array:
        """Returns the logits [B, S, N] from the features of S stages, each [B, N, n, D]."""
        scores = []
        for index, features in enumerate(stages, 1):
            features = features.astype(jnp.float32)
            # The mean of a patch hardly shows a target of a few pixels, so the maximum is added.
            pooled = jnp.concatenate([jnp.mean(features, axis=2), max_along(features, 2)[:, :, 0]], axis=-1)
            pooled = LayerNorm(name=f"norm{index}")(pooled)
            scores.append(Mlp((features.shape[-1], 1), nn.gelu, name=f"score{index}")(pooled)[..., 0])
        return jnp.stack(scores, axis=1)


class Injection(nn.Module):
    """Cross-attention from windows of the backbone's maps to the pixels of the same patch, at selected patches.

    The result of the attention is added with one learned gate per level, initially 0.1: the native branch is already
    trained when the injection begins, and with a gate of 0 no gradient would reach the attention until the gate has
    moved.

    Attributes:
      dtype: dtype of the computation.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, maps: Sequence[jax.Array], features: Sequence[jax.Array], indices: jax.Array | None, grid: tuple[int, int]
    ) -> tuple[jax.Array, ...]:
        """Adds the native features to the maps.

        Args:
          maps: [B, H / s, W / s, C] each; C a multiple of 16.
          features: features of the native branch, [B, N, 1024, D] each.
          indices: [B, S, K] of the selected patches, for all maps (S = 1) or for each map; None for all patches.
          grid: rows and columns of patches.

        Returns:
          The maps, changed only at the selected patches.
        """
        fused = []
        for level, (x, native) in enumerate(zip(maps, features, strict=True)):
            chosen = None if indices is None else indices[:, min(level, indices.shape[1] - 1)]
            fused.append(self._inject(x, native, chosen, grid, f"{level + 1}"))
        return tuple(fused)

    def _inject(
        self, x: jax.Array, native: jax.Array, chosen: jax.Array | None, grid: tuple[int, int], level: str
    ) -> jax.Array:
        windows = split_windows(x, grid)
        queries = windows if chosen is None else take_patches(windows, chosen)
        native = native if chosen is None else take_patches(native, chosen)
        width, side = min(x.shape[-1], _INNER), x.shape[1] // grid[0]
        head = width // HEADS
        positions = (
            sine_positions(side, side, head, step=PATCH / side, longest=_LONGEST),
            sine_positions(PATCH, PATCH, head, longest=_LONGEST),
        )
        norm = lambda name: LayerNorm(dtype=self.dtype, name=f"{name}{level}")  # noqa: E731
        options: dict[str, Any] = {"use_bias": False, "absorb": True, "dtype": self.dtype}
        attention = Attention(x.shape[-1], width, HEADS, name=f"attention{level}", **options)
        added = attention(norm("query_norm")(queries), norm("native_norm")(native), positions=positions)
        gate = self.param(f"gate{level}", nn.initializers.constant(0.1), (), jnp.float32)
        mixed = (queries + gate * added).astype(queries.dtype)
        return join_patch_windows(mixed if chosen is None else put_patches(windows, chosen, mixed), grid)
