"""Decoder of Na-IRSTD: a feature pyramid that exchanges features with a few tokens, and a two-way transformer.

Source: SimIR, the detector that Na-IRSTD (arXiv 2605.05804) builds on; the transformer is that of Kirillov et al.,
"Segment Anything", ICCV 2023. It predicts one mask and no class, so no matching is needed. Where the sources are
silent, the choices are irjax's own: sine positions in every attention to the map, residuals around every attention, and
upscaling to pixels after the transformer as in Segment Anything, by the factor that the finest map requires.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from irjax.layers.conv import Conv
from irjax.layers.cpu import materialize_if_differentiated
from irjax.layers.norm import GroupNorm, LayerNorm
from irjax.layers.tokens import Attention, Mlp, sine_positions
from irjax.ops.patches import join_patches

HEADS = 8
PIXEL_WIDTH = 32  # number of channels at full resolution


class _Part(nn.Module):
    """Base class of the decoder's modules.

    Attributes:
      width: C, number of channels of the maps and tokens.
      hidden: number of channels inside the feed-forward layers.
      dtype: dtype of the computation.
    """

    width: int = 128
    hidden: int = 1024
    dtype: Any = jnp.float32

    @property
    def common(self) -> dict[str, Any]:
        return {"width": self.width, "hidden": self.hidden, "dtype": self.dtype}

    def attend(self, name: str, width: int = 0) -> Attention:
        """Returns an attention layer with C output channels and `width` inner channels; 0 means C."""
        return Attention(self.width, width, HEADS, dtype=self.dtype, name=name)

    def norm(self, name: str) -> Callable[[jax.Array], jax.Array]:
        """Returns a normalisation over the channels."""
        layer = LayerNorm(dtype=self.dtype, name=name)
        # Several layers and a residual read it: without this, each of their gradients repeats what came before, and the
        # program to compile is more than twice as long.
        return lambda x: materialize_if_differentiated(layer(x))

    def forward(self, name: str) -> Mlp:
        """Returns the feed-forward layers of a transformer."""
        return Mlp((self.hidden, self.width), dtype=self.dtype, name=name)

    def group_norm(self, name: str) -> nn.GroupNorm:
        """Returns a normalisation over gcd(32, C) groups of channels."""
        return GroupNorm(num_groups=math.gcd(32, self.width), dtype=self.dtype, name=name)


def _flat(x: jax.Array) -> jax.Array:
    """Reshapes [B, H, W, C] to [B, H W, C]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _places(x: jax.Array) -> jax.Array:
    """Returns the sine positions [H W, C] of a map [B, H, W, C] in float32; the attention casts its inputs."""
    return jnp.asarray(sine_positions(*x.shape[1:]))


class Level(_Part):
    """One level of the pyramid: attention between the tokens and a map, to which the coarser level is then added.

    The tokens attend to the map, pass through feed-forward layers and attend to each other; then the map attends to
    them.
    """

    @nn.compact
    def __call__(self, x: jax.Array, tokens: jax.Array, coarser: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Returns a map and tokens from a map [B, H, W, C], tokens [B, T, C] and a coarser [B, H / 2, W / 2, C]."""
        places, sites = _places(x), _flat(x)
        tokens = self.norm("norm1")(tokens + self.attend("read")(tokens, sites + places, sites))
        tokens = self.norm("norm2")(tokens + self.forward("forward")(tokens))
        tokens = self.norm("norm3")(tokens + self.attend("among")(tokens, tokens))
        sites = self.norm("norm4")(sites + self.attend("write")(sites + places, tokens))
        x = sites.reshape(x.shape)
        if coarser is not None:
            x = x + jnp.repeat(jnp.repeat(coarser, 2, axis=1), 2, axis=2)
        x = Conv(self.width, 3, dtype=self.dtype, name="conv")(x)
        return nn.relu(self.group_norm("norm5")(x)), tokens


class TwoWay(_Part):
    """Layer of the two-way transformer.

    The tokens attend to each other and to the map and pass through feed-forward layers; then the map attends to the
    tokens.
    """

    @nn.compact
    def __call__(
        self, tokens: jax.Array, sites: jax.Array, marks: jax.Array, places: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Updates tokens [B, T, C] and sites [B, H W, C]; `marks` and `places` are added to queries and keys."""
        half = self.width // 2
        marked = tokens + marks
        tokens = self.norm("norm1")(tokens + self.attend("among")(marked, marked, tokens))
        tokens = self.norm("norm2")(tokens + self.attend("read", half)(tokens + marks, sites + places, sites))
        tokens = self.norm("norm3")(tokens + self.forward("forward")(tokens))
        sites = self.norm("norm4")(sites + self.attend("write", half)(sites + places, tokens + marks, tokens))
        return tokens, sites


class Upscale(_Part):
    """Doubles the resolution by a 2x2 transposed convolution of stride 2: [B, H, W, D] to [B, 2 H, 2 W, C]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Doubles the resolution of x [B, H, W, D]."""
        batch, height, width, _ = x.shape
        # The windows do not overlap, so each site determines its own four pixels.
        y = nn.Dense(4 * self.width, use_bias=False, dtype=self.dtype, name="pixels")(x)
        y = join_patches(y.reshape(batch, height * width, 2, 2, self.width), (height, width))
        return (y + self.param("bias", nn.initializers.zeros_init(), (self.width,), jnp.float32)).astype(self.dtype)


class Decoder(_Part):
    """Decodes maps at four strides to the logits of every pixel and of every site of the finest map.

    Attributes:
      tokens: T, number of learned tokens.
      stride: stride of the finest map, 1 or 4.
    """

    tokens: int = 8
    stride: int = 4

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        """Computes the logits from maps [B, H / s, W / s, C_i], finest first.

        Returns:
          Pixel logits [B, H, W] float32, and coarse logits [B, H / stride, W / stride] float32, computed from the
          tokens before the transformer.
        """
        batch, normal = maps[0].shape[0], nn.initializers.normal(0.02)
        learned = self.param("tokens", normal, (self.tokens, self.width), jnp.float32).astype(self.dtype)
        tokens = jnp.broadcast_to(learned, (batch, *learned.shape))
        y: jax.Array | None = None
        for level in range(len(maps), 0, -1):
            x = Conv(self.width, dtype=self.dtype, name=f"lateral{level}")(maps[level - 1])
            x = self.group_norm(f"norm{level}")(x)
            y, tokens = Level(name=f"level{level}", **self.common)(x, tokens, y)
        assert y is not None  # there is at least one map
        finest = Conv(self.width, 3, use_bias=True, dtype=self.dtype, name="mask_features")(y)
        query = Mlp((self.width,) * 3, dtype=self.dtype, name="coarse_query")(self.norm("coarse_norm")(tokens[:, 0]))
        coarse = jnp.einsum("bhwc,bc->bhw", finest, query, preferred_element_type=jnp.float32)
        finest = finest + self._prompt(coarse)

        mask = self.param("mask_token", normal, (1, self.width), jnp.float32).astype(self.dtype)
        marks = jnp.concatenate([jnp.broadcast_to(mask, (batch, 1, self.width)), tokens], axis=1)
        places, sites, tokens = _places(finest), _flat(finest), marks
        for index in (1, 2):
            tokens, sites = TwoWay(name=f"two_way{index}", **self.common)(tokens, sites, marks, places)
        seen = self.attend("last_read", self.width // 2)(tokens + marks, sites + places, sites)
        tokens = self.norm("last_norm")(tokens + seen)
        pixels = self._pixels(sites.reshape(finest.shape))
        widths = (self.width, self.width, pixels.shape[-1])
        query = Mlp(widths, dtype=self.dtype, name="mask_query")(tokens[:, 0])
        return jnp.einsum("bhwc,bc->bhw", pixels, query, preferred_element_type=jnp.float32), coarse

    def _prompt(self, coarse: jax.Array) -> jax.Array:
        """Encodes the coarse logits [B, H, W] as features [B, H, W, C]."""
        conv = lambda features, size, name: Conv(features, size, use_bias=True, dtype=self.dtype, name=name)  # noqa: E731
        x = nn.gelu(self.norm("prompt_norm1")(conv(4, 1, "prompt1")(coarse[..., None])))
        x = nn.gelu(self.norm("prompt_norm2")(conv(16, 3, "prompt2")(x)))
        return conv(self.width, 1, "prompt3")(x)

    def _pixels(self, x: jax.Array) -> jax.Array:
        """Upscales a map at the finest stride to features of every pixel."""
        if self.stride == 1:
            return nn.gelu(Conv(PIXEL_WIDTH, use_bias=True, dtype=self.dtype, name="pixels")(x))
        x = nn.gelu(self.norm("up_norm")(Upscale(width=self.width // 4, dtype=self.dtype, name="up1")(x)))
        return nn.gelu(Upscale(width=PIXEL_WIDTH, dtype=self.dtype, name="up2")(x))
