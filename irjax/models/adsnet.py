"""ADSNet: the aware fusion distribute module, and a cascade that computes fewer and fewer patches.

Source: "Aware Distribute and Sparse Network for Infrared Small Target Detection" (ADSNet, doi
10.1109/ACCESS.2024.3373436), Sections III-A and III-B. Where the paper is silent or contradicts itself, the choices are
irjax's own: F_local of Equation 5 is a 1x1 convolution of the backbone's map, as in Gold-YOLO; level 4 is pooled to
stride 16; a mask multiplies the one before; the residual is added outside of the mask, too; the pixels come from a
sub-pixel segmentation head.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.attention import max_along
from irjax.layers.blocks import ConvNorm
from irjax.layers.conv import Conv, torch_uniform
from irjax.layers.masked_sparse import KeptPatches, WholeMap, gumbel_keep, kept_number, scores_of
from irjax.layers.norm import BatchNorm
from irjax.layers.pool import max_pool2
from irjax.layers.resize import upsample_double
from irjax.models.resnet import WIDTHS, BasicBlock, ResNet18
from irjax.ops.keys import purpose_key
from irjax.ops.patches import expand_mask, join_patches, mask_of, top_patches

MODES = ("gather_sparse", "masked_dense", "dense_literal")
SELECTIONS = ("ranked", "decided")
DROPPED_LOGIT = -6.0  # of pixels in dropped patches
_PRIOR = 0.01
STRIDES = {2: 4, 3: 8, 4: 16}


@flax.struct.dataclass
class AdsnetOutputs:
    """What ADSNet predicts.

    Attributes:
      logits: [B, H, W] float32, of target pixels.
      classes: levels 4, 3, 2: logits [B, H / s, W / s] of sites with a target; strides s 16, 8, 4.
      scores: levels 4, 3, 2: logits [B, H / s, W / s] of the IoU, or None without an IoU score.
      decisions: levels 4, 3: logits [B, h, w, 2] of keeping and dropping each patch, or None where nothing is dropped.
      masks: of levels 3 and 2: [B, h, w] float32, which patches are kept.
    """

    logits: jax.Array
    classes: tuple[jax.Array, ...]
    scores: tuple[jax.Array, ...] | None
    decisions: tuple[jax.Array | None, ...]
    masks: tuple[jax.Array, ...]


class _Part(nn.Module):
    """What the parts share: the type of the computation and the axis of the statistics."""

    axis_name: str | None = None
    dtype: Any = jnp.float32

    @property
    def common(self) -> dict[str, Any]:
        return {"axis_name": self.axis_name, "dtype": self.dtype}


class Distribution(_Part):
    """Aware fusion distribute module (AFD; Section III-A, Equations 1 to 5): backbone maps to maps of one width.

    Attributes:
      width: C, channels of the result.
      levels: those that receive the global information; the others are projected alone.
      channel_attention: on the global part.
      spatial_attention: on the global part.
    """

    width: int = 128
    levels: tuple[int, ...] = (3, 4)
    channel_attention: bool = True
    spatial_attention: bool = True

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> dict[int, jax.Array]:
        """{level: [B, H / s, W / s, C]} of the maps at strides 4, 8, 16."""
        local = {
            level: Conv(self.width, dtype=self.dtype, name=f"local{level}")(x)
            for level, x in zip(STRIDES, maps, strict=True)
        }
        if not self.levels:
            return local
        x = jnp.concatenate([max_pool2(maps[0]), maps[1], upsample_double(maps[2])], axis=-1)
        x = Conv(self.width * len(self.levels), dtype=self.dtype, name="align")(x)
        x = BasicBlock(self.width * len(self.levels), name="mix", **self.common)(x, train=train)
        parts = jnp.split(x, len(self.levels), axis=-1)
        for level, part in zip(self.levels, parts, strict=True):
            if level == 4:
                part = max_pool2(part)
            elif level == 2:
                part = upsample_double(part)
            local[level] = self._inject(local[level], part, level, train)
        return local

    def _inject(self, local: jax.Array, part: jax.Array, level: int, train: bool) -> jax.Array:
        both, gate = local + part, 0.0
        if self.channel_attention:
            pooled = max_along(both.reshape(both.shape[0], -1, 1, self.width), 1)
            pooled = ConvNorm(self.width // 4, name=f"squeeze{level}", **self.common)(pooled, train=train)
            pooled = ConvNorm(self.width, relu=False, name=f"excite{level}", **self.common)(pooled, train=train)
            gate = gate + nn.sigmoid(pooled) * part
        if self.spatial_attention:
            where = ConvNorm(1, relu=False, name=f"where{level}", **self.common)(max_along(both, -1), train=train)
            gate = gate + nn.sigmoid(where) * part
        if not (self.channel_attention or self.spatial_attention):
            gate = part
        return gate * local + part


class DomainConvNorm(_Part):
    """Convolution, batch normalisation and ReLU over a domain (`irjax.layers.masked_sparse`); parameters as `ConvNorm`.

    Attributes:
      features: number of output channels.
      size: side of the kernel, odd.
    """

    features: int = 128
    size: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, domain: Any, *, train: bool) -> jax.Array:
        """Applies it to what the domain holds of a map."""
        x = DomainConv(self.features, self.size, dtype=self.dtype, name="conv")(x, domain)
        x = BatchNorm(axis_name=self.axis_name, name="norm")(x, train=train)
        return domain.clear(nn.relu(x))


class DomainConv(nn.Module):
    """A convolution over a domain; parameter ``kernel`` [k, k, C, D].

    Attributes:
      features: D.
      size: k, odd.
      dtype: type of the computation.
    """

    features: int
    size: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, domain: Any) -> jax.Array:
        """Applies it to what the domain holds of a map."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", torch_uniform, shape, jnp.float32)
        return domain.conv(x.astype(self.dtype), kernel.astype(self.dtype))


class Activation(_Part):
    """Dense or sparse activation (Section III-B): branches 1x1, 3x3 and twice 3x3, joined by a 1x1; C channels to C.

    Attributes:
      width: C.
    """

    width: int = 128

    @nn.compact
    def __call__(self, x: jax.Array, domain: Any, *, train: bool) -> jax.Array:
        """Applies the block to what the domain holds of a map, cleared."""

        def part(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            return DomainConvNorm(features=features, size=size, name=name, **self.common)(x, domain, train=train)

        point = part(x, self.width, 1, "point")
        near, far = jnp.split(part(x, 2 * self.width, 3, "near"), 2, axis=-1)  # two branches begin alike: one product
        far = part(far, self.width, 3, "far")
        return part(jnp.concatenate([point, near, far], axis=-1), self.width, 1, "join")


def _head(features: int, name: str, prior: float = 0.5) -> nn.Dense:
    """A 1x1 convolution with a bias, in float32, of arrays [..., C]; it starts from this probability.

    A low one keeps rare targets from drowning in false ones (RetinaNet).
    """
    bias = nn.initializers.constant(math.log(prior / (1 - prior)))
    return nn.Dense(features, dtype=jnp.float32, kernel_init=torch_uniform, bias_init=bias, name=name)


class Segmentation(_Part):
    """The head: a map at stride 4 to logits of the 4x4 pixels of every site.

    Attributes:
      width: C.
    """

    width: int = 128

    @nn.compact
    def __call__(self, x: jax.Array, domain: Any, *, train: bool) -> jax.Array:
        """What the domain holds of a map [..., C] to [..., 16]: the pixels of a site by rows."""
        x = DomainConvNorm(features=self.width, size=3, name="conv", **self.common)(x, domain, train=train)
        return _head(STRIDES[2] ** 2, "pixels", _PRIOR)(x)


def depth_to_space(x: jax.Array, side: int = 4) -> jax.Array:
    """[B, H, W, side^2] to [B, side H, side W]."""
    batch, height, width, _ = x.shape
    return join_patches(x.reshape(batch, height * width, side, side, 1), (height, width))[..., 0]


class ADSNet(_Part):
    """ADSNet: images [B, H, W, C] to `AdsnetOutputs`; H and W are multiples of 16 and of `cell`.

    The aware fusion distribute module (`Distribution`) gives the levels 4, 3 and 2; the aware cascaded sparse module
    (ACS; Section III-B) is the loop over them: `Activation`, heads, and at levels 3 and 2 the mask of the one before.

    Attributes:
      width: channels of the pyramid.
      widths: channels of the backbone's stages; tests use smaller ones.
      levels: that the distribution serves, of 2, 3, 4; none for the ablation without it.
      channel_attention: in the distribution.
      spatial_attention: in the distribution.
      iou_score: predict how well each site's neighbourhood is segmented.
      cell: side in pixels of the patches that are kept or dropped; at 256x256 a cell of 16 is the paper's 16x16 mask.
      dropped: fractions of all patches dropped at levels 3 and 2; None drops none there.
      temperature: of the decisions in training.
      mode: of prediction: `gather_sparse` computes kept patches alone, `masked_dense` gives the same from all,
        `dense_literal` masks only what enters a stage. Training is masked and dense.
      selection: of prediction: `ranked` keeps the wanted number of patches, those most worth keeping; `decided` keeps,
        as training does, those whose decision is to keep, many or few, with noise if there are `keys`. Their number is
        not known beforehand, so all is computed, as by `masked_dense`.
      heads: let the heads speak in prediction, too, as the loss needs.
      rescore: weigh probabilities with class and IoU score, p sqrt(class IoU), as SparseInst does.
      axis_name: device axis to synchronise the statistics over.
      dtype: type of the computation; parameters, statistics and logits are float32.
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

    @property
    def multiple(self) -> int:
        """What H and W must be multiples of."""
        return max(STRIDES[4], self.cell)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, keys: jax.Array | None = None) -> AdsnetOutputs:
        """The masks of images [B, H, W, C], normalised as in training.

        Args:
          images: [B, H, W, C] floating point.
          train: normalise with the batch's statistics and update the running ones; decide softly.
          keys: one for each image, for the noise of decisions; None for none. Ranked ones have none.

        Returns:
          Logits and, in training, with `heads` or to rescore, what the heads say; `classes` and `scores` are empty
          otherwise.

        Raises:
          UserError: if the images are not [B, H, W, C], a side is no multiple of 16 and the cell, an option is
            unknown, or the fractions leave no patch, or more at level 2 than at level 3.
        """
        self._check(images)
        maps = ResNet18(self.widths, name="backbone", **self.common)(images, train=train)
        features = Distribution(
            width=self.width,
            levels=self.levels,
            channel_attention=self.channel_attention,
            spatial_attention=self.spatial_attention,
            name="distribution",
            **self.common,
        )(maps, train=train)
        grid = images.shape[1] // self.cell, images.shape[2] // self.cell
        heads = train or self.heads or self.rescore or self.is_initializing()
        classes, scores, decisions, masks = [], [], [], []

        def look(x: jax.Array, level: int) -> None:
            if heads:
                classes.append(_head(1, f"class{level}", _PRIOR)(x)[..., 0])
            if heads and self.iou_score:
                scores.append(_head(1, f"score{level}")(x)[..., 0])

        def activation(level: int) -> Activation:
            return Activation(width=self.width, name=f"activation{level}", **self.common)

        x = activation(4)(features[4], WholeMap(), train=train)
        look(x, 4)
        kept = jnp.ones((images.shape[0], *grid), jnp.float32)
        indices = None
        for level, fraction in zip((3, 2), self.dropped, strict=True):
            decision = None
            if fraction is not None:
                decision = _head(2, f"decision{level + 1}")(to_cells(x, STRIDES[level + 1], self.cell))
                kept, indices = self._decide(decision, kept, fraction, train, keys, level)
            decisions.append(decision)
            masks.append(kept)
            x = upsample_double(x) + features[level]
            domain = self._domain(kept, indices, level, train)
            seen = domain.enter(x)
            added = activation(level)(seen, domain, train=train)
            x = x + domain.leave(added)  # never computed at level 2 unless the heads look at it
            look(x, level)
        segmentation = Segmentation(width=self.width, name="segmentation", **self.common)
        pixels = segmentation(seen + domain.restrict(added), domain, train=train)
        logits = depth_to_space(domain.fill(pixels, DROPPED_LOGIT))
        if self.rescore:
            logits = rescored(logits, classes[-1], scores[-1] if self.iou_score else None)
        return AdsnetOutputs(
            logits, tuple(classes), tuple(scores) if self.iou_score else None, tuple(decisions), tuple(masks)
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
        """The patches that stay: a mask, and of ranked ones their indices."""
        if train or self.selection == "decided":
            own = None if keys is None else jax.vmap(lambda key: decision_key(key, level))(keys)
            return kept * gumbel_keep(decision, own, self.temperature), None
        number = kept_number(kept.shape[1] * kept.shape[2], fraction)
        indices = top_patches(scores_of(decision, kept), number)
        return mask_of(indices, kept.shape[1:]), indices

    def _domain(self, kept: jax.Array, indices: jax.Array | None, level: int, train: bool) -> WholeMap | KeptPatches:
        """Where the stage computes: everywhere until something is dropped."""
        if all(fraction is None for fraction in self.dropped[: 4 - level]):
            return WholeMap()
        if indices is not None and self.mode == "gather_sparse":
            return KeptPatches(indices, kept.shape[1:])
        literal = not train and self.mode == "dense_literal"
        return WholeMap(expand_mask(kept, self.cell // STRIDES[level]), literal)


def decision_key(key: jax.Array, level: int) -> jax.Array:
    """The key of the noise on the decisions at a level, from an example's."""
    return jax.random.fold_in(purpose_key(key, "gumbel"), level)


def to_cells(x: jax.Array, stride: int, cell: int) -> jax.Array:
    """A map [B, H, W, C] at a stride, max-pooled to cells of this many pixels, or repeated where it is coarser."""
    if cell < stride:
        return jnp.repeat(jnp.repeat(x, stride // cell, axis=1), stride // cell, axis=2)
    while stride < cell:
        x, stride = max_pool2(x), 2 * stride
    return x


def rescored(logits: jax.Array, classes: jax.Array, scores: jax.Array | None) -> jax.Array:
    """The logits of p sqrt(class IoU), the last two from the sites [B, H / 4, W / 4] of the pixels [B, H, W].

    Source: Cheng et al., "Sparse Instance Activation for Real-Time Instance Segmentation", CVPR 2022.
    """
    factor = nn.sigmoid(classes) * (1.0 if scores is None else nn.sigmoid(scores))
    factor = jnp.repeat(jnp.repeat(jnp.sqrt(factor), STRIDES[2], axis=1), STRIDES[2], axis=2)
    p = jnp.clip(nn.sigmoid(logits) * factor, 1e-7, 1 - 1e-7)
    return jnp.log(p) - jnp.log1p(-p)
