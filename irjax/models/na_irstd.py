"""Na-IRSTD: a backbone with large strides, and native-resolution details from a few selected patches.

Source: "Enhancing Infrared Small Target Detection via Native-Resolution Feature Selection and Fusion" (Na-IRSTD), arXiv
2605.05804, Section III. The backbone is RepViT-M1.1 and the decoder SimIR's, see `irjax.models.repvit` and
`irjax.models.na_decoder`; `irjax.models.na_native` states which choices in the native branch are irjax's own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.layers.blocks import ConvNorm
from irjax.models import repvit
from irjax.models.na_decoder import Decoder
from irjax.models.na_native import PATCH, Injection, NativeBranch, PatchScorer
from irjax.ops.patches import grid_of, mask_of, top_patches

BRANCHES = ("none", "cnn", "patch")


@flax.struct.dataclass
class NaIrstdOutputs:
    """Outputs of Na-IRSTD. Patches of 32x32 pixels form a grid with h = H / 32 rows and w = W / 32 columns.

    Attributes:
      logits: [B, H, W] float32, target logits of the pixels; None where only the scores are computed.
      coarse: [B, H / s, W / s] float32, logits that a site contains a target, s the stride of the backbone's finest
        map; None where only the scores are computed.
      scores: [B, h, w] float32, relevance logits of the patches, or [B, 4, h, w] with one score per stage; None without
        a native branch.
      indices: [B, K] int32, row-major indices of the selected patches in ascending order, or [B, 4, K]; None without a
        native branch.
      selected: one mask [B, h, w] float32 of the selected patches, or four; empty without a native branch.
    """

    logits: jax.Array | None
    coarse: jax.Array | None
    scores: jax.Array | None = None
    indices: jax.Array | None = None
    selected: tuple[jax.Array, ...] = ()


class NaIRSTD(nn.Module):
    """Na-IRSTD: images [B, H, W, C] to `NaIrstdOutputs`, H and W multiples of 32.

    11.8 M parameters and 8.6 G multiply-adds at 256x256. The top-level parameters are ``backbone``, ``native``,
    ``scorer``, ``injection`` and ``decoder``. The scorer receives gradients only through its scores.

    Attributes:
      branch: native-resolution branch: `patch` processes patch by patch, `cnn` processes the whole image without the
        mixer, `none` leaves the branch out.
      selected: K, number of patches whose native features are injected; None for all patches, the dense variant.
      score_per_stage: select patches for each of the four stages by the stage's own score; otherwise select them once,
        by the score of the last stage.
      native_width: number of channels of the native branch, a multiple of 4.
      widths: channels of the backbone's stages, multiples of 16; tests use smaller ones.
      depths: number of blocks in each stage of the backbone.
      stem_stride: stride of the stem: 4, or 1 for a backbone that starts at full resolution.
      decoder_width: number of channels of the decoder, a multiple of 16.
      decoder_hidden: number of channels inside the decoder's feed-forward layers.
      remat: recompute the native branch in the backward pass: less memory, more time.
      folded: use a backbone folded by `reparameterize`, for prediction.
      only_scores: run only the native branch and the scorer, as the first stage of training requires.
      axis_name: device axis over which the batch statistics are synchronised.
      dtype: dtype of the computation; parameters, statistics, scores and logits are float32.
    """

    branch: Literal["patch", "cnn", "none"] = "patch"
    selected: int | None = 5
    score_per_stage: bool = False
    native_width: int = 32
    widths: tuple[int, ...] = repvit.WIDTHS
    depths: tuple[int, ...] = repvit.DEPTHS
    stem_stride: int = 4
    decoder_width: int = 128
    decoder_hidden: int = 1024
    remat: bool = False
    folded: bool = False
    only_scores: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @property
    def multiple(self) -> int:
        """The number that H and W must be multiples of."""
        return PATCH

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> NaIrstdOutputs:
        """Predicts target logits.

        Args:
          images: [B, H, W, C] floating point, normalised as in training.
          train: normalise with the batch's statistics and update the running ones.

        Returns:
          The logits, the scores of the patches and the selected patches.

        Raises:
          UserError: if the images are not [B, H, W, C], a side is not a multiple of 32, there are fewer patches than
            are to be selected, or an option is unknown.
        """
        self._check(images, train)
        common = {"axis_name": self.axis_name, "dtype": self.dtype}
        scores, indices = None, None
        selected: tuple[jax.Array, ...] = ()
        if self.branch != "none":
            grid = grid_of(images.shape[1], images.shape[2], PATCH)
            block = functools.partial(ConvNorm, **common)
            native = NativeBranch(self.branch == "patch", self.native_width, self.remat, block, name="native")
            features = native(images.astype(self.dtype), train=train)
            scores = PatchScorer(name="scorer")(features if self.score_per_stage else features[-1:])
            scores = scores.reshape(*scores.shape[:2], *grid)
            count = grid[0] * grid[1] if self.selected is None else self.selected
            indices = jnp.stack([top_patches(scores[:, i], count) for i in range(scores.shape[1])], axis=1)
            selected = tuple(mask_of(indices[:, i], grid) for i in range(indices.shape[1]))
            chosen = None if self.selected is None else indices
            if not self.score_per_stage:
                scores, indices = scores[:, 0], indices[:, 0]
            if self.only_scores and not self.is_initializing():
                return NaIrstdOutputs(None, None, scores, indices, selected)
        backbone = repvit.RepViT(
            widths=self.widths,
            depths=self.depths,
            stem_stride=self.stem_stride,
            folded=self.folded,
            name="backbone",
            **common,
        )
        maps = backbone(images, train=train)
        if self.branch != "none":
            maps = Injection(self.dtype, name="injection")(maps, features, chosen, grid)
        logits, coarse = Decoder(
            width=self.decoder_width,
            hidden=self.decoder_hidden,
            stride=self.stem_stride,
            dtype=self.dtype,
            name="decoder",
        )(maps)
        return NaIrstdOutputs(logits, coarse, scores, indices, selected)

    def _check(self, images: jax.Array, train: bool) -> None:
        if images.ndim != 4:
            raise UserError(f"images must be [B, H, W, C], got shape {images.shape}")
        height, width = images.shape[1:3]
        if height % PATCH or width % PATCH or not height or not width:
            raise UserError(f"Na-IRSTD needs sides that are multiples of {PATCH}, got {images.shape[1:3]}")
        if self.branch not in BRANCHES:
            raise UserError(f"branch must be one of {BRANCHES}, got {self.branch!r}")
        patches = height * width // PATCH**2
        if self.branch != "none" and self.selected is not None and not 1 <= self.selected <= patches:
            raise UserError(f"selected must be in 1..{patches}, the patches of {height}x{width}, got {self.selected}")
        if self.score_per_stage and self.branch == "none":
            raise UserError("score_per_stage needs a native branch, and branch is 'none'")
        if len(self.widths) != 4 or len(self.depths) != 4:
            raise UserError(f"widths and depths must be of four stages, got {self.widths} and {self.depths}")
        if self.only_scores and self.branch == "none":
            raise UserError("only_scores needs a native branch, and branch is 'none'")
        if self.folded and train:
            raise UserError("a folded backbone has no batch statistics to train with")


def reparameterize(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Folds the weights of a `NaIRSTD` for prediction with ``folded=True``; see `irjax.models.repvit`.

    Args:
      variables: ``params`` and ``batch_stats`` of a NaIRSTD.

    Returns:
      ``params`` with those of the folded backbone, and the ``batch_stats`` of the native branch.

    Raises:
      UserError: if the backbone has no statistics or is folded already.
    """
    stats = dict(variables.get("batch_stats", {}))
    backbone = {"params": variables["params"]["backbone"], "batch_stats": stats.pop("backbone", {})}
    return {
        "params": {**variables["params"], **{"backbone": repvit.reparameterize_backbone(backbone)["params"]}},
        "batch_stats": stats,
    }
