"""ADSNet: an aware fusion distribute module, and a cascade of stages that compute fewer and fewer patches.

Source: "Aware Distribute and Sparse Network for Infrared Small Target Detection" (ADSNet, doi
10.1109/ACCESS.2024.3373436), Sections III-A and III-B. Where the paper is silent or contradicts itself, the choices are
irjax's own: F_local of Equation 5 is a 1x1 convolution of the backbone's feature map, as in Gold-YOLO; level 4 is
pooled to stride 16; each mask is multiplied by the previous one; the residual is added outside the mask as well; the
pixel logits come from a sub-pixel segmentation head.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers import cpu
from irjax.layers.attention import max_along
from irjax.layers.blocks import ConvNorm, ModuleDef
from irjax.layers.conv import Conv, torch_uniform
from irjax.layers.masked_sparse import KeptPatches, WholeMap, gumbel_keep, kept_number, scores_of
from irjax.layers.pool import max_pool2
from irjax.layers.resize import upsample_double
from irjax.models.resnet import WIDTHS, BasicBlock, ResNet18
from irjax.ops.keys import purpose_key
from irjax.ops.patches import expand_mask, join_patches, mask_of, top_patches

MODES = ("gather_sparse", "masked_dense", "dense_literal")
SELECTIONS = ("ranked", "decided")
DROPPED_LOGIT = -6.0  # logit of the pixels in dropped patches
_PRIOR = 0.01
STRIDES = {2: 4, 3: 8, 4: 16}


@flax.struct.dataclass
class AdsnetOutputs:
    """Outputs of ADSNet.

    Attributes:
      logits: [B, H, W] float32, target logits of the pixels.
      classes: for levels 4, 3, 2: logits [B, H / s, W / s] that a site contains a target; the strides s are 16, 8, 4.
      scores: for levels 4, 3, 2: logits [B, H / s, W / s] of the IoU, or None without an IoU score.
      decisions: for levels 4, 3: logits [B, h, w, 2] of keeping and dropping each patch, or None where nothing is
        dropped.
      kept: for levels 3 and 2: masks [B, h, w] float32 of the kept patches.
    """

    logits: jax.Array
    classes: tuple[jax.Array, ...]
    scores: tuple[jax.Array, ...] | None
    decisions: tuple[jax.Array | None, ...]
    kept: tuple[jax.Array, ...]


class Distribution(nn.Module):
    """Aware fusion distribute module (AFD; Section III-A, Equations 1 to 5): backbone maps to maps of one width.

    Attributes:
      width: C, number of output channels.
      levels: levels that receive the global features; the other levels are only projected.
      channel_attention: apply channel attention to the global features.
      spatial_attention: apply spatial attention to the global features.
      conv: constructor of convolutions.
      block: constructor of convolutions with normalisation.
    """

    width: int = 128
    levels: tuple[int, ...] = (3, 4)
    channel_attention: bool = True
    spatial_attention: bool = True
    conv: ModuleDef = Conv
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> dict[int, jax.Array]:
        """Returns {level: [B, H / s, W / s, C]} for the backbone's maps at strides s of 4, 8, 16."""
        local = {level: self.conv(self.width, name=f"local{level}")(x) for level, x in zip(STRIDES, maps, strict=True)}
        if not self.levels:
            return local
        x = jnp.concatenate([max_pool2(maps[0]), maps[1], upsample_double(maps[2])], axis=-1)
        x = self.conv(self.width * len(self.levels), name="align")(x)
        x = BasicBlock(self.width * len(self.levels), block=self.block, name="mix")(x, train=train)
        parts = jnp.split(x, len(self.levels), axis=-1)
        for level, part in zip(self.levels, parts, strict=True):
            if level == 4:
                part = max_pool2(part)
            elif level == 2:
                part = upsample_double(part)
            local[level] = self._inject(local[level], part, level, train)
        return local

    def _inject(self, local: jax.Array, part: jax.Array, level: int, train: bool) -> jax.Array:
        both = local + part
        gate: jax.Array | float = 0.0
        if self.channel_attention:
            pooled = max_along(both.reshape(both.shape[0], -1, 1, self.width), 1)
            pooled = self.block(self.width // 4, name=f"squeeze{level}")(pooled, train=train)
            pooled = self.block(self.width, relu=False, name=f"excite{level}")(pooled, train=train)
            gate = gate + nn.sigmoid(pooled) * part
        if self.spatial_attention:
            where = self.block(1, relu=False, name=f"where{level}")(max_along(both, -1), train=train)
            gate = gate + nn.sigmoid(where) * part
        if not (self.channel_attention or self.spatial_attention):
            gate = part
        return gate * local + part


class Activation(nn.Module):
    """Dense or sparse activation (Section III-B): branches 1x1, 3x3 and 3x3-3x3, fused by a 1x1; C channels to C.

    Attributes:
      width: C.
      block: constructor of convolutions with normalisation.
    """

    width: int = 128
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, domain: WholeMap | KeptPatches, *, train: bool) -> jax.Array:
        """Applies the block to the part of a map that `domain` holds; every layer's result is cleared."""

        def part(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            return domain.clear(self.block(features, size, name=name)(x, train=train, conv=domain.conv))

        point = part(x, self.width, 1, "point")
        # Both branches begin with a 3x3 convolution: one product computes the two.
        near, far = jnp.split(part(x, 2 * self.width, 3, "near"), 2, axis=-1)
        far = part(far, self.width, 3, "far")
        return part(jnp.concatenate([point, near, far], axis=-1), self.width, 1, "join")


def _head(features: int, name: str, prior: float = 0.5) -> nn.Dense:
    """Returns a float32 1x1 convolution with bias for arrays [..., C], initialised to predict the probability `prior`.

    A low prior keeps the many negative sites from dominating the rare targets (RetinaNet).
    """
    bias = nn.initializers.constant(math.log(prior / (1 - prior)))
    return nn.Dense(features, dtype=jnp.float32, kernel_init=torch_uniform, bias_init=bias, name=name)


class Segmentation(nn.Module):
    """Segmentation head: a map at stride 4 to logits of the 4x4 pixels of every site.

    Attributes:
      width: C, number of channels.
      block: constructor of convolutions with normalisation.
    """

    width: int = 128
    block: ModuleDef = ConvNorm

    @nn.compact
    def __call__(self, x: jax.Array, domain: WholeMap | KeptPatches, *, train: bool) -> jax.Array:
        """Maps the domain's part of a map [..., C] to logits [..., 16] of each site's pixels in row-major order."""
        x = domain.clear(self.block(self.width, 3, name="conv")(x, train=train, conv=domain.conv))
        return _head(STRIDES[2] ** 2, "pixels", _PRIOR)(x)


def depth_to_space(x: jax.Array, side: int = 4) -> jax.Array:
    """Rearranges [B, H, W, side^2] to [B, side H, side W]."""
    batch, height, width, _ = x.shape
    return join_patches(x.reshape(batch, height * width, side, side, 1), (height, width))[..., 0]


class ADSNet(nn.Module):
    """ADSNet: images [B, H, W, C] to `AdsnetOutputs`; H and W are multiples of 16 and of `cell`.

    The aware fusion distribute module (`Distribution`) computes levels 4, 3 and 2. The aware cascaded sparse module
    (ACS; Section III-B) is the loop over these levels: `Activation`, the heads, and at levels 3 and 2 the mask that the
    previous level predicts.

    Attributes:
      width: number of channels of the feature pyramid.
      widths: channels of the backbone's stages; tests use smaller ones.
      levels: levels, of 2, 3 and 4, that receive the global features; empty for the ablation without distribution.
      channel_attention: use channel attention in the distribution.
      spatial_attention: use spatial attention in the distribution.
      iou_score: predict how well the neighbourhood of each site is segmented.
      cell: side in pixels of the patches that are kept or dropped; at 256x256 a cell of 16 gives the paper's 16x16
        mask.
      dropped: fractions of all patches that are dropped at levels 3 and 2; None drops none at that level.
      temperature: temperature of the decisions in training.
      mode: how prediction computes: `gather_sparse` computes only the kept patches, `masked_dense` computes all patches
        with the same result, `dense_literal` masks only the input of each stage. Training is masked and dense.
      selection: how prediction selects patches: `ranked` keeps the required number of patches with the highest scores;
        `decided` keeps every patch whose decision is to keep, as in training, with noise if there are `keys`. Their
        number is not known in advance, so everything is computed, as with `masked_dense`.
      heads: compute class and IoU scores in prediction, too, as the loss needs them.
      rescore: weight probabilities by class and IoU score, p sqrt(class IoU), as SparseInst does.
      axis_name: device axis over which the batch statistics are synchronised.
      dtype: dtype of the computation; parameters, statistics and logits are float32.
    """

    width: int = 128
    widths: tuple[int, ...] = WIDTHS
    levels: tuple[int, ...] = (3, 4)
    channel_attention: bool = True
    spatial_attention: bool = True
    iou_score: bool = True
    cell: int = 16
    dropped: tuple[float | None, float | None] = (0.25, 0.5)
    temperature: float = 1.0
    mode: str = "gather_sparse"
    selection: str = "ranked"
    heads: bool = False
    rescore: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @property
    def multiple(self) -> int:
        """The number that H and W must be multiples of."""
        return max(STRIDES[4], self.cell)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, keys: jax.Array | None = None) -> AdsnetOutputs:
        """Predicts target logits and the patches that are kept.

        Args:
          images: [B, H, W, C] floating point, normalised as in training.
          train: normalise with the batch's statistics, update the running ones, and decide with `gumbel_keep`.
          keys: one key for each image, for the noise of the decisions; None for no noise. Ranked selection has no
            noise.

        Returns:
          The outputs. `classes` and `scores` are empty except in training, with `heads` and with `rescore`.

        Raises:
          UserError: if the images are not [B, H, W, C], a side is not a multiple of 16 and of the cell, an option is
            unknown, or the dropped fractions leave no patch, or more patches at level 2 than at level 3.
        """
        self._check(images)
        block = functools.partial(ConvNorm, axis_name=self.axis_name, dtype=self.dtype)
        maps = ResNet18(self.widths, block, name="backbone")(images, train=train)
        features = Distribution(
            width=self.width,
            levels=self.levels,
            channel_attention=self.channel_attention,
            spatial_attention=self.spatial_attention,
            conv=functools.partial(Conv, dtype=self.dtype),
            block=block,
            name="distribution",
        )(maps, train=train)
        grid = images.shape[1] // self.cell, images.shape[2] // self.cell
        heads = train or self.heads or self.rescore or self.is_initializing()
        classes, scores, decisions, kept_patches = [], [], [], []

        def run_heads(x: jax.Array, level: int) -> None:
            if heads:
                classes.append(_head(1, f"class{level}", _PRIOR)(x)[..., 0])
            if heads and self.iou_score:
                scores.append(_head(1, f"score{level}")(x)[..., 0])

        def activation(level: int) -> Activation:
            return Activation(self.width, block, name=f"activation{level}")

        x = activation(4)(features[4], WholeMap(), train=train)
        run_heads(x, 4)
        kept = jnp.ones((images.shape[0], *grid), jnp.float32)
        indices = None
        for level, fraction in zip((3, 2), self.dropped, strict=True):
            decision = None
            if fraction is not None:
                decision = _head(2, f"decision{level + 1}")(to_cells(x, STRIDES[level + 1], self.cell))
                kept, indices = self._decide(decision, kept, fraction, train, keys, level)
            decisions.append(decision)
            kept_patches.append(kept)
            x = upsample_double(x) + features[level]
            domain = self._domain(kept, indices, level, train)
            seen = domain.enter(x)
            added = activation(level)(seen, domain, train=train)
            x = x + domain.leave(added)  # not computed at level 2 unless the heads use it
            run_heads(x, level)
        segmentation = Segmentation(self.width, block, name="segmentation")
        pixels = segmentation(seen + domain.restrict(added), domain, train=train)
        logits = depth_to_space(domain.fill(pixels, DROPPED_LOGIT))
        if self.rescore:
            logits = rescored(logits, classes[-1], scores[-1] if self.iou_score else None)
        return AdsnetOutputs(
            logits, tuple(classes), tuple(scores) if self.iou_score else None, tuple(decisions), tuple(kept_patches)
        )

    def _check(self, images: jax.Array) -> None:
        if images.ndim != 4:
            raise UserError(f"images must be [B, H, W, C], got shape {images.shape}")
        if self.cell % STRIDES[3] or self.cell & (self.cell - 1):
            raise UserError(f"a cell must be a power of two of at least {STRIDES[3]} pixels, got {self.cell}")
        if images.shape[1] % self.multiple or images.shape[2] % self.multiple:
            raise UserError(f"ADSNet needs sides that are multiples of {self.multiple}, got {images.shape[1:3]}")
        if self.mode not in MODES:
            raise UserError(f"mode must be one of {MODES}, got {self.mode!r}")
        if self.selection not in SELECTIONS:
            raise UserError(f"selection must be one of {SELECTIONS}, got {self.selection!r}")
        if set(self.levels) - set(STRIDES):
            raise UserError(f"levels must be of {tuple(STRIDES)}, got {self.levels}")
        cells = (images.shape[1] // self.cell) * (images.shape[2] // self.cell)
        numbers = [cells if fraction is None else kept_number(cells, fraction) for fraction in self.dropped]
        if numbers[1] > numbers[0] and self.dropped[1] is not None:
            raise UserError(f"level 2 cannot keep more patches than level 3, got dropped fractions {self.dropped}")

    def _decide(
        self, decision: jax.Array, kept: jax.Array, fraction: float, train: bool, keys: jax.Array | None, level: int
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns the mask of the kept patches and, if they are ranked, their indices."""
        if train or self.selection == "decided":
            own = None if keys is None else jax.vmap(lambda key: decision_key(key, level))(keys)
            return kept * gumbel_keep(decision, own, self.temperature), None
        number = kept_number(kept.shape[1] * kept.shape[2], fraction)
        indices = top_patches(scores_of(decision, kept), number)
        return mask_of(indices, (kept.shape[1], kept.shape[2])), indices

    def _domain(self, kept: jax.Array, indices: jax.Array | None, level: int, train: bool) -> WholeMap | KeptPatches:
        """Returns where the stage computes: on the whole map until some level drops patches."""
        if all(fraction is None for fraction in self.dropped[: 4 - level]):
            return WholeMap()
        # Converters do not know the gathers; the result is the same.
        if indices is not None and self.mode == "gather_sparse" and not cpu.converting():
            return KeptPatches(indices, (kept.shape[1], kept.shape[2]))
        literal = not train and self.mode == "dense_literal"
        return WholeMap(expand_mask(kept, self.cell // STRIDES[level]), literal)


def decision_key(key: jax.Array, level: int) -> jax.Array:
    """Derives the key of the decisions' noise at a level from the key of an example."""
    return jax.random.fold_in(purpose_key(key, "gumbel"), level)


def to_cells(x: jax.Array, stride: int, cell: int) -> jax.Array:
    """Max-pools a map [B, H, W, C] at a stride to cells of `cell` pixels, or repeats it where cells are finer."""
    if cell < stride:
        return jnp.repeat(jnp.repeat(x, stride // cell, axis=1), stride // cell, axis=2)
    while stride < cell:
        x, stride = max_pool2(x), 2 * stride
    return x


def rescored(logits: jax.Array, classes: jax.Array, scores: jax.Array | None) -> jax.Array:
    """Returns the logits [B, H, W] of p sqrt(class IoU).

    The class and IoU logits [B, H / 4, W / 4] of a site apply to its 4x4 pixels.

    Source: Cheng et al., "Sparse Instance Activation for Real-Time Instance Segmentation", CVPR 2022.
    """
    factor = nn.sigmoid(classes) * (1.0 if scores is None else nn.sigmoid(scores))
    factor = jnp.repeat(jnp.repeat(jnp.sqrt(factor), STRIDES[2], axis=1), STRIDES[2], axis=2)
    p = jnp.clip(nn.sigmoid(logits) * factor, 1e-7, 1 - 1e-7)
    return jnp.log(p) - jnp.log1p(-p)
