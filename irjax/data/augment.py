"""Augmentation inside the jitted step: crop, zoom, flips, right-angle rotations, contrast, noise, injected targets.

Each example has its own random key, so the result does not depend on its batch or device.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from irjax.errors import UserError
from irjax.ops.keys import purpose_key


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentations and their ranges. The defaults change nothing.

    Attributes:
      crop: side of a random square crop in letterboxed pixels, or 0 for the whole canvas.
      crop_on_target: probability that a crop of an image with targets is placed around one of them; all other crops
        are placed uniformly.
      zoom: lowest and highest magnification about the centre, drawn log-uniformly.
      flips: flip the image left-right and up-down, each with probability 1/2.
      rotations: transpose the image with probability 1/2; together with flips, this gives all right-angle rotations.
      gain: maximum relative change of contrast, about the mean gray value.
      offset: maximum change of brightness, as a fraction of the full scale.
      noise: maximum standard deviation of added white noise, as a fraction of the full scale; the standard deviation
        is drawn uniformly between 0 and this value.
      inject: number of slots for injected point targets.
      inject_share: probability that a slot is used.
      inject_scr: lowest and highest signal-to-clutter ratio, the peak over the standard deviation of the surrounding
        32x32 pixels; drawn log-uniformly.
      inject_sigma: lowest and highest standard deviation of an injected Gaussian target, in letterboxed pixels; drawn
        log-uniformly.
    """

    crop: int = 0
    crop_on_target: float = 0.7
    zoom: tuple[float, float] = (1.0, 1.0)
    flips: bool = False
    rotations: bool = False
    gain: float = 0.0
    offset: float = 0.0
    noise: float = 0.0
    inject: int = 0
    inject_share: float = 0.3
    inject_scr: tuple[float, float] = (3.0, 12.0)
    inject_sigma: tuple[float, float] = (0.8, 3.0)

    def __post_init__(self) -> None:
        for name in ("zoom", "inject_scr", "inject_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f"augment.{name} must be two positive numbers in rising order, got {(low, high)}")
        if self.crop < 0 or self.inject < 0:
            raise UserError(f"augment.crop and augment.inject must not be negative, got {self.crop}, {self.inject}")


class Augmented(NamedTuple):
    """One augmented example, of side s.

    Attributes:
      image: [s, s] float32 in [0, 1].
      points: [K + inject, 2] float32 (x, y) in pixels.
      valid: [K + inject] bool; False where a point left the image.
      mask: [s, s] bool, or None if the input had no mask.
      extent: [4] int32 (left, top, right, bottom), the first and last column and row of the image, inclusive; they may
        lie outside the s x s pixels. Pixels outside the extent are margin and zero.
    """

    image: jax.Array
    points: jax.Array
    valid: jax.Array
    mask: jax.Array | None
    extent: jax.Array


_MASK_FRACTION = 0.25  # fraction of the peak above which a pixel of an injected target is in the mask (`SceneConfig`)
_CLUTTER = 32  # side of the neighbourhood whose standard deviation scales the amplitude of an injected target


def _uniform(key: jax.Array, low: float | jax.Array, high: float | jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, minval=low, maxval=high)


def _inside(extent: jax.Array, side: int) -> jax.Array:
    """Returns which pixels are image rather than margin, [side, side] bool."""
    axis = jnp.arange(side)
    columns, rows = ((axis >= extent[i]) & (axis <= extent[i + 2]) for i in (0, 1))
    return rows[:, None] & columns[None, :]


def _sample_axis(image: jax.Array, positions: jax.Array, axis: int) -> jax.Array:
    """Interpolates linearly along one axis at `positions` [N]; the outside is zero, blended in over one pixel."""
    length = image.shape[axis]
    low = jnp.floor(positions)
    shape = (-1, 1) if axis == 0 else (1, -1)

    def tap(index: jax.Array, weight: jax.Array) -> jax.Array:
        inside = (index >= 0) & (index < length)
        values = jnp.take(image, jnp.clip(index, 0, length - 1).astype(jnp.int32), axis=axis)
        return values * jnp.where(inside, weight, 0.0).reshape(shape)

    return tap(low, 1 - (positions - low)) + tap(low + 1, positions - low)


def _geometry(key: jax.Array, example: Augmented, config: AugmentConfig) -> Augmented:
    image, points, valid, mask, extent = example
    size = image.shape[0]
    side = config.crop or size
    own = functools.partial(purpose_key, key)
    zoom = jnp.exp(_uniform(own("zoom"), jnp.log(config.zoom[0]), jnp.log(config.zoom[1])))
    flip = jax.random.bernoulli(own("flips"), 0.5, (2,)) & config.flips
    swap = jax.random.bernoulli(own("rotation"), 0.5) & config.rotations

    centre = jnp.full(2, (size - 1) / 2)
    if config.crop:
        reach = (side - 1) / 2 / zoom
        anywhere = _uniform(own("crop anywhere"), 0.0, 1.0, (2,)) * (size - 1)
        chosen = points[jax.random.categorical(own("crop target"), jnp.where(valid, 0.0, -jnp.inf))]
        near = chosen + _uniform(own("crop near target"), -0.9, 0.9, (2,)) * reach
        use = jnp.any(valid) & jax.random.bernoulli(own("crop on target"), config.crop_on_target)
        centre = jnp.clip(jnp.where(use, near, anywhere), reach, jnp.maximum(size - 1 - reach, reach))
        # Without zoom, the crop is aligned with the pixel grid, so that it is an exact copy.
        on_grid = jnp.round(centre - (side - 1) / 2) + (side - 1) / 2
        centre = jnp.where(zoom == 1.0, on_grid, centre)

    sign = jnp.where(flip, -1.0, 1.0)
    steps = (jnp.arange(side) - (side - 1) / 2)[:, None] * sign / zoom + centre  # [side, 2]: x, y

    def moved(plane: jax.Array) -> jax.Array:
        plane = _sample_axis(_sample_axis(plane, steps[:, 1], axis=0), steps[:, 0], axis=1)
        return jnp.where(swap, plane.T, plane)

    def placed(positions: jax.Array) -> jax.Array:
        positions = (positions - centre) * sign * zoom + (side - 1) / 2
        return jnp.where(swap, positions[:, ::-1], positions)

    points = placed(points)
    valid = valid & jnp.all((points >= 0) & (points <= side - 1), axis=-1)
    if mask is not None:
        mask = moved(mask.astype(jnp.float32)) >= 0.5
    # Interpolation fades to zero between the last image pixel and the next one; everything beyond is margin.
    ends = placed(jnp.stack([extent[:2] - 1, extent[2:] + 1]).astype(jnp.float32))
    extent = jnp.concatenate([jnp.floor(ends.min(axis=0)) + 1, jnp.ceil(ends.max(axis=0)) - 1]).astype(jnp.int32)
    return Augmented(moved(image), jnp.where(valid[:, None], points, 0.0), valid, mask, extent)


def _photometry(key: jax.Array, example: Augmented, config: AugmentConfig) -> Augmented:
    image = example.image
    own = functools.partial(purpose_key, key)
    gain = 1 + _uniform(own("gain"), -config.gain, config.gain)
    offset = _uniform(own("offset"), -config.offset, config.offset)
    inside = _inside(example.extent, image.shape[0])  # the letterbox margin stays zero, as in prediction
    mean = jnp.sum(image, where=inside) / jnp.maximum(jnp.sum(inside), 1)
    changed = (image - mean) * gain + mean + offset
    if config.noise:
        deviation = _uniform(own("noise deviation"), 0.0, config.noise)
        changed = changed + deviation * jax.random.normal(own("noise"), image.shape)
    return example._replace(image=jnp.where(inside, jnp.clip(changed, 0.0, 1.0), 0.0))


def _inject(key: jax.Array, example: Augmented, config: AugmentConfig) -> Augmented:
    image, points, valid, mask, extent = example
    slots, side = config.inject, image.shape[0]
    own = functools.partial(purpose_key, key)
    where = _uniform(own("places"), 0.0, side - 1.0, (slots, 2))
    low, high = config.inject_sigma
    sigma = jnp.exp(_uniform(own("sizes"), jnp.log(low), jnp.log(high), (slots, 2)))
    sigma = jnp.clip(sigma, sigma[:, :1] / 1.5, sigma[:, :1] * 1.5)  # limits the elongation
    low, high = config.inject_scr
    ratio = jnp.exp(_uniform(own("ratios"), jnp.log(low), jnp.log(high), (slots,)))
    used = jax.random.bernoulli(own("slots"), config.inject_share, (slots,))
    near = jnp.min(jnp.linalg.norm(where[:, None] - points[None], axis=-1) + jnp.where(valid, 0, jnp.inf), axis=1)
    reach = min(_CLUTTER, side) // 2

    starts = jnp.clip(jnp.round(where).astype(jnp.int32) - reach, 0, side - 2 * reach)
    patches = jax.vmap(lambda start: jax.lax.dynamic_slice(image, (start[1], start[0]), (2 * reach, 2 * reach)))(starts)
    clutter = jnp.maximum(jnp.std(patches, axis=(1, 2)), 0.01)
    # Skip targets that would reach the margin or overlap a real target.
    used &= jnp.all((starts >= extent[:2]) & (starts + 2 * reach - 1 <= extent[2:]), axis=1) & (near > 16)
    used &= jnp.max(patches, axis=(1, 2)) + 0.3 * ratio * clutter < 1.0
    amplitude = jnp.where(used, ratio * clutter, 0.0)
    axis = jnp.arange(side, dtype=jnp.float32)
    shape = jnp.exp(-(((axis[None, None] - where[..., None]) / sigma[..., None]) ** 2) / 2)  # [slots, 2, side]
    added = jnp.einsum("n,nh,nw->hw", amplitude, shape[:, 1], shape[:, 0])
    points = jnp.concatenate([points, jnp.where(used[:, None], where, 0.0)])
    inside = _inside(extent, side)  # the tails of a target must not reach the margin
    image = jnp.where(inside, jnp.clip(image + added, 0.0, 1.0), image)
    if mask is not None:
        wide = jnp.where(used[:, None, None], shape[:, 1, :, None] * shape[:, 0, None, :], 0.0)
        mask = mask | (jnp.any(wide > _MASK_FRACTION, axis=0) & inside)
    return Augmented(image, points, jnp.concatenate([valid, used]), mask, extent)


def augment(
    key: jax.Array,
    image: jax.Array,
    points: jax.Array,
    valid: jax.Array,
    mask: jax.Array | None = None,
    extent: jax.Array | None = None,
    *,
    config: AugmentConfig,
) -> Augmented:
    """Augments one example; use `jax.vmap` for a batch of keys and examples.

    Args:
      key: the random key of this example.
      image: [S, S] float32 in [0, 1].
      points: [K, 2] float32 (x, y) in pixels.
      valid: [K] bool, which points are targets.
      mask: [S, S] bool, the target pixels, or None. It is interpolated like the image and thresholded at 0.5. Points
        are not recomputed from it: a target cut by the border keeps its centroid.
      extent: [4] int32, the part of the canvas that is image, as in `Batch`; None means all of it. Contrast,
        brightness, noise and injected targets are confined to it.
      config: the augmentations to apply.

    Returns:
      The augmented example, of side s = crop, or S without a crop. Points that left the image are marked invalid.
    """
    if extent is None:
        extent = jnp.array([0, 0, image.shape[1] - 1, image.shape[0] - 1], jnp.int32)
    example = Augmented(image, points, valid, mask, extent)
    if config.crop or config.zoom != (1.0, 1.0) or config.flips or config.rotations:
        example = _geometry(purpose_key(key, "geometry"), example, config)
    if config.inject:
        example = _inject(purpose_key(key, "injection"), example, config)
    if config.gain or config.offset or config.noise:
        example = _photometry(purpose_key(key, "photometry"), example, config)
    return example
