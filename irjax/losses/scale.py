"""Losses that weight the soft IoU by the difference between the predicted and the true area.

`variance` is the scale-sensitive loss of MSHNet (Liu et al., CVPR 2024, and its published code). The other variants are
a reconstruction of "Revisiting the Scale Loss Function and Gaussian-Shape Convolution for Infrared Small Target
Detection" (arXiv 2604.09991), of which only the abstract was available, from that abstract and the public repository
ECTCV, assumed to be its code; `mobius` is irjax's own. With m the smaller and M the larger of the areas a (predicted)
and g (true), and s = |a - g| / (a + g), the weights are

    variance  (m + V) / (M + V), V = (a - g)^2 / 4: mixes pixels with squared pixels, so it depends on the scale
    ratio     m / M                            = (1 - s) / (1 + s)
    absdiff   (m + |a-g| / 2) / (M + |a-g| / 2) = 1 / (1 + 2 s)
    diff      m / (M + over (a-g)+ + under (g-a)+), at over = under = 1 (1 - s) / (1 + 3 s)
    mobius    (3 m + M) / (3 M + m)            = (2 - s) / (2 + s)

Two properties matter for training (both are tested). The gradients of `ratio` and `diff` vanish as a -> 0, so training
needs a warm phase with the plain IoU. A background pixel has the gradient (w I / U) (1 / U - w' / w), with
w' = dw / da: a variant with w' / w > 1 / U rewards false alarms while a < g, as `ratio` always does.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.losses.segmentation import areas, checked

VARIANTS = ("variance", "ratio", "absdiff", "diff", "mobius")
LOCATIONS = ("centroid", "official")
_TINY = 1e-8


def scale_weight(
    pred_area: jax.Array, true_area: jax.Array, variant: str, *, over: float = 1.0, under: float = 1.0
) -> jax.Array:
    """Computes the factor on the IoU, which is 1 where the areas agree.

    Args:
      pred_area: soft predicted area in pixels, any shape, non-negative.
      true_area: true area in pixels, of the same shape.
      variant: one of `VARIANTS`.
      over: penalty of `diff` for a prediction that is too large; non-negative.
      under: penalty of `diff` for a prediction that is too small; non-negative.

    Returns:
      Of the same shape, float32 in [0, 1]; 1 where there is no true target, whose loss is left to the IoU.

    Raises:
      UserError: if the variant is unknown.
    """
    if variant not in VARIANTS:
        raise UserError(f"unknown scale weight {variant!r}; known: {', '.join(VARIANTS)}")
    a, g = jnp.asarray(pred_area, jnp.float32), jnp.asarray(true_area, jnp.float32)
    has_target = g > 0
    g = jnp.where(has_target, g, 1.0)
    # `where`, because `minimum` and `maximum` split the gradient at a = g, where every variant has a kink anyway.
    small, large = jnp.where(a < g, a, g), jnp.where(a < g, g, a)
    gap = large - small
    if variant == "variance":
        weight = (small + gap**2 / 4) / (large + gap**2 / 4)
    elif variant == "ratio":
        weight = small / large
    elif variant == "absdiff":
        weight = (small + gap / 2) / (large + gap / 2)
    elif variant == "diff":
        weight = small / (large + jnp.where(a < g, under, over) * gap)
    else:
        weight = (3 * small + large) / (3 * large + small)
    return jnp.where(has_target, weight, 1.0)


def location_loss(logits: jax.Array, target: jax.Array, *, form: str = "centroid") -> jax.Array:
    """Computes the distance of the soft centroid from the true one, in polar coordinates about the image's first pixel.

    1 - min(r, r*) / max(r, r*) + (4 / pi^2) (angle - angle*)^2.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in [0, 1].
      form: `centroid`, or `official`: the published code takes the mean of x p and y p without dividing by the mass of
        p, so that its radius is scaled by the predicted area (the angle is not).

    Returns:
      [B] float32 in [0, 2]; 0 where there is no true target.

    Raises:
      UserError: if the form is unknown or the shapes differ.

    Source: the location-sensitive loss of Liu et al., CVPR 2024; the coordinates x / W and y / H start at 0, as in its
    code.
    """
    if form not in LOCATIONS:
        raise UserError(f"unknown location loss {form!r}; known: {', '.join(LOCATIONS)}")
    logits, target = checked(logits, target)
    height, width = logits.shape[-2:]
    x, y = jnp.arange(width) / width, (jnp.arange(height) / height)[:, None]

    def polar(mass: jax.Array) -> tuple[jax.Array, jax.Array]:
        scale: jax.Array | int = mass.shape[-1] * mass.shape[-2]
        if form == "centroid":
            scale = jnp.maximum(jnp.sum(mass, (-2, -1)), _TINY)
        cx, cy = jnp.sum(x * mass, (-2, -1)) / scale, jnp.sum(y * mass, (-2, -1)) / scale
        return jnp.sqrt(cx**2 + cy**2 + _TINY), jnp.arctan(cy / (cx + _TINY))

    has_target = jnp.any(target > 0, axis=(-2, -1))
    # Without a target the angle's gradient would be that of 0 / 0, so the mass of such images is replaced by ones.
    radius, angle = polar(jax.nn.sigmoid(logits))
    true_radius, true_angle = polar(jnp.where(has_target[:, None, None], target, 1.0))
    shorter = jnp.minimum(radius, true_radius) / (jnp.maximum(radius, true_radius) + _TINY)
    value = 1 - shorter + (4 / math.pi**2) * (angle - true_angle) ** 2
    return jnp.where(has_target, value, 0.0)


def weighted_iou(
    logits: jax.Array,
    target: jax.Array,
    variant: str | None,
    *,
    over: float = 1.0,
    under: float = 1.0,
    smooth: float = 0.0,
) -> jax.Array:
    """Computes the scale weight times the soft IoU.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in [0, 1].
      variant: one of `VARIANTS`, or None for the plain IoU.
      over: see `scale_weight`.
      under: see `scale_weight`.
      smooth: pixels added to intersection and union.

    Returns:
      [B] float32. For an image without target it is 1 / (1 + a), which falls with every predicted pixel: the IoU itself
      is 0 there for any prediction and has no gradient.
    """
    both, predicted, true = areas(logits, target)
    has_target = true > 0
    union = jnp.where(has_target, predicted + true - both + smooth, 1.0)
    iou = jnp.where(has_target, (both + smooth) / union, 1 / (1 + predicted))
    return iou if variant is None else iou * scale_weight(predicted, true, variant, over=over, under=under)


def scale_iou_loss(
    logits: jax.Array,
    target: jax.Array,
    *,
    variant: str | None = "diff",
    over: float = 1.0,
    under: float = 1.0,
    location: str | None = None,
    smooth: float = 0.0,
) -> jax.Array:
    """Computes one minus the weighted soft IoU, plus an optional location loss.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in [0, 1].
      variant: variant of the weight, one of `VARIANTS`; None for the plain IoU, as in the warm phase.
      over: penalty of `diff` for a prediction that is too large, by the signed difference of the areas.
      under: penalty of `diff` for a prediction that is too small.
      location: None, `centroid` or `official` (`location_loss`).
      smooth: pixels added to intersection and union.

    Returns:
      [B] float32.

    Raises:
      UserError: if a name is unknown or the shapes differ.

    Source: `variance` with `official` is the loss of MSHNet's published code; for the rest see the module's docstring.
    """
    value = 1 - weighted_iou(logits, target, variant, over=over, under=under, smooth=smooth)
    return value if location is None else value + location_loss(logits, target, form=location)


def scale_dynamic_loss(
    logits: jax.Array,
    target: jax.Array,
    *,
    variant: str | None = "variance",
    over: float = 1.0,
    under: float = 1.0,
    location: str = "centroid",
    delta: float = 0.5,
    shared: bool = False,
) -> jax.Array:
    """Computes the scale-based dynamic loss on masks, which weights the IoU more for larger targets.

    For smaller targets it weights the location more: (1 + b) (1 - w IoU) + (1 - b) location, with
    b = min(delta g R / 81, delta), R = 512^2 / (H W), g the true area.

    Args:
      logits: [B, H, W].
      target: [B, H, W] in [0, 1].
      variant: variant of the weight, or None for the plain IoU.
      over: see `scale_weight`.
      under: see `scale_weight`.
      location: form of the location loss.
      delta: largest b.
      shared: use one b for the batch, the mean over its images, as in the published code. The loss of an image then
        depends on the other images, which `False` avoids.

    Returns:
      [B] float32.

    Raises:
      UserError: if a name is unknown or the shapes differ.

    Source: Yang et al., "Pinwheel-shaped Convolution and Scale-based Dynamic Loss for Infrared Small Target Detection",
    AAAI 2025.
    """
    height, width = logits.shape[-2:]
    true = areas(logits, target)[2]
    share = jnp.minimum(delta * true * (512 * 512 / (height * width)) / 81, delta)
    share = jnp.mean(share) if shared else share
    overlap = 1 - weighted_iou(logits, target, variant, over=over, under=under)
    return (1 + share) * overlap + (1 - share) * location_loss(logits, target, form=location)
