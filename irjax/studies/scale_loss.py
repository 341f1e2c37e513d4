"""The scale losses as functions of the predicted area: curves and their properties.

The target is a disc of true area g; the prediction is a disc of area a, with probability 1 at every pixel. Areas are
integrals over the plane, so a is any positive number and nothing depends on a pixel grid. There are two cases:

    nested   about the same centre: the intersection is I = min(a, g), so IoU = min / max
    shifted  the centres are d pixels apart: I is the lens that two circles share

The loss is 1 - w I / U, U = a + g - I, with w from `irjax.losses.scale.scale_weight`. Gradients are computed by
`jax.grad`: dL/da as the disc grows, with I growing with it; and dL/dp of a pixel outside the target, which adds to a
and does not change I. Where the latter is negative, w' / w > 1 / U, the loss rewards a false alarm.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import UsageError
from irjax.losses.scale import VARIANTS, scale_weight

PLAIN = "none"
CASES = ("nested", "shifted")
NOTE = (
    "variance is the scale-sensitive loss of MSHNet (Liu et al., CVPR 2024) as published. The other variants are a "
    'reconstruction: of "Revisiting the Scale Loss Function and Gaussian-Shape Convolution for Infrared Small Target '
    'Detection" (arXiv 2604.09991) only the abstract was at hand; ratio, absdiff and diff follow that abstract and the '
    "public repository ECTCV, taken to be its code; mobius is irjax's own. none is the IoU without a weight."
)
AREAS = (1 / 100, 30)  # times the true area: the range of the curves and the table
_POINTS = 800  # on either side of the true area
SMALL = 1e-6  # times the true area: represents a -> 0
_NOISE = 1e-4  # relative; float32 errors are about 1e-6
COLUMNS = ("area_px", "iou", "weight", "loss", "gradient_per_px", "background_gradient_per_px")


def area_text(value: float) -> str:
    """Formats an area in pixels with three digits, or as an integer."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


@dataclasses.dataclass(frozen=True)
class AreaCurve:
    """The curve of a variant in a case, over ascending areas.

    Every field is [N] float32. The point just below the true area and the true area itself are both included: they have
    the limits from either side, between which every derivative jumps.

    Attributes:
      area: predicted area in pixels.
      iou: IoU without the weight.
      weight: in [0, 1].
      loss: 1 - weight IoU.
      gradient: dL/da in 1/px.
      background: dL/dp of a pixel outside the target, in 1/px of area that it adds.
      slope: dw/da in 1/px.
    """

    area: np.ndarray
    iou: np.ndarray
    weight: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray
    background: np.ndarray
    slope: np.ndarray


@dataclasses.dataclass(frozen=True)
class Trend:
    """How |dL/da| changes with |a - g| on one side of the true area.

    Attributes:
      monotonic: whether it only falls, only rises, or is constant.
      kind: `falls`, `rises`, `flat` or `turns`.
      turns: areas in pixels where it turns, starting from the true area; accurate to 1 %.
    """

    monotonic: bool
    kind: str
    turns: tuple[float, ...]

    def __str__(self) -> str:
        return f"yes, {self.kind}" if self.monotonic else f"no: {', '.join(map(area_text, self.turns))}"


@dataclasses.dataclass(frozen=True)
class Properties:
    """A row of the table; areas in pixels, gradients in 1/px.

    Attributes:
      case: `nested` or `shifted`.
      variant: variant of the weight; `none`: the IoU alone.
      below: |dL/da| for a < g.
      above: |dL/da| for a > g.
      weight_minima: areas at which the weight has a minimum.
      weights: limits of the weight for a -> 0, a -> g from below, a -> g from above.
      gradients: the same limits of dL/da.
      best_area: area with the smallest loss; nan if the loss is 1 throughout, 30 g if it still falls there.
      rewarded: (from, to): predicted areas for which a pixel outside the target lowers the loss; from 0 if that
        holds for the smallest area considered.
    """

    case: str
    variant: str
    below: Trend
    above: Trend
    weight_minima: tuple[float, ...]
    weights: tuple[float, float, float]
    gradients: tuple[float, float, float]
    best_area: float
    rewarded: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """The curves and their properties.

    Attributes:
      true_area: true area in pixels.
      shift: distance of the centres in the shifted case, in pixels.
      variants: `none`, then the others in order.
      curves: {(case, variant): curve}.
      table: a row for each case and variant.
    """

    true_area: float
    shift: float
    variants: tuple[str, ...]
    curves: dict[tuple[str, str], AreaCurve]
    table: tuple[Properties, ...]

    def setup(self, case: str) -> str:
        """Describes the case in words."""
        if case == "nested":
            return f"nested: discs of area a about the centre of a disc of g = {self.true_area:g} px"
        return f"shifted: discs of area a, centres {self.shift:g} px from that of a disc of g = {self.true_area:g} px"


def _half_angle(near: jax.Array, far: jax.Array, distance: float) -> jax.Array:
    """Returns half the angle of the arc of the circle of radius `near` that is within the circle of radius `far`.

    The half-angle formula loses no digits near tangency. The result is 0 if no part of the circle is in the other, and
    pi if all of it is.
    """
    across = (near + far - distance) * (distance + far - near)
    along = (near + far + distance) * (distance + near - far)
    return 2 * jnp.arctan2(jnp.sqrt(jnp.maximum(across, 0)), jnp.sqrt(jnp.maximum(along, 0)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def disc_overlap(area: jax.Array, true_area: float, distance: float) -> jax.Array:
    """Returns the area that two discs share.

    The derivative with respect to `area` is the fraction of that disc's circle within the other disc. It is given in
    closed form, because the terms of the chain rule grow without bound at tangency before they cancel.

    Args:
      area: area of the disc that may grow, in pixels, positive; any shape.
      true_area: area of the other disc.
      distance: distance of the centres, in pixels, positive.

    Returns:
      float32 in pixels, of the shape of `area`.
    """
    r, true_r = jnp.sqrt(area / math.pi), jnp.sqrt(true_area / math.pi)
    angle, true_angle = _half_angle(r, true_r, distance), _half_angle(true_r, r, distance)
    return r**2 * (angle - jnp.sin(2 * angle) / 2) + true_r**2 * (true_angle - jnp.sin(2 * true_angle) / 2)


@disc_overlap.defjvp
def _disc_overlap_jvp(true_area: float, distance: float, primals: tuple, tangents: tuple) -> tuple:
    (area,), (tangent,) = primals, tangents
    angle = _half_angle(jnp.sqrt(area / math.pi), jnp.sqrt(true_area / math.pi), distance)
    return disc_overlap(area, true_area, distance), angle / math.pi * tangent


def _weight(area: jax.Array, true_area: float, variant: str) -> jax.Array:
    return jnp.ones_like(area) if variant == PLAIN else scale_weight(area, jnp.float32(true_area), variant)


def area_loss(area: jax.Array, both: jax.Array, true_area: float, variant: str) -> jax.Array:
    """Computes `irjax.losses.scale.scale_iou_loss` of one image from the areas that it depends on.

    Args:
      area: soft predicted area in pixels.
      both: soft intersection in pixels.
      true_area: true area in pixels, positive.
      variant: variant of the weight; `none`: the IoU alone.

    Returns:
      float32.
    """
    return 1 - _weight(area, true_area, variant) * both / (area + true_area - both)


def _curves(
    case: str, areas: np.ndarray, true_area: float, shift: float, variants: Sequence[str]
) -> dict[str, AreaCurve]:
    """Returns {variant: curve} of a case; all of them are traced together."""

    def overlap(area: jax.Array) -> jax.Array:
        if case == "shifted":
            return disc_overlap(area, true_area, shift)
        return jnp.where(area < true_area, area, true_area)

    def at(area: jax.Array, variant: str) -> tuple[jax.Array, ...]:
        both = overlap(area)
        weight, slope = jax.value_and_grad(_weight)(area, true_area, variant)
        loss, gradient = jax.value_and_grad(lambda a: area_loss(a, overlap(a), true_area, variant))(area)
        background = jax.grad(area_loss)(area, both, true_area, variant)
        return area, both / (area + true_area - both), weight, loss, gradient, background, slope

    values = jax.jit(lambda areas: {name: jax.vmap(lambda a, name=name: at(a, name))(areas) for name in variants})
    found = values(jnp.asarray(areas))
    return {name: AreaCurve(*map(np.asarray, found[name])) for name in variants}


def _trend(area: np.ndarray, size: np.ndarray) -> Trend:
    """Returns the trend of `size` in its order; changes within the error of float32 are not turns."""
    floor = 0.01 * _NOISE * float(size.max())
    turns: list[int] = []
    low = high = extreme = direction = 0
    for index, value in enumerate(size):
        if direction == 0:
            low, high = (index if value < size[low] else low), (index if value > size[high] else high)
            rises, falls = value > size[low] * (1 + _NOISE) + floor, value < size[high] * (1 - _NOISE) - floor
            direction, extreme = int(rises) - int(falls), index
        elif direction * (value - size[extreme]) >= 0:
            extreme = index
        elif abs(value - size[extreme]) > _NOISE * size[extreme] + floor:
            turns.append(extreme)
            direction, extreme = -direction, index
    if turns:
        return Trend(False, "turns", tuple(float(area[index]) for index in turns))
    return Trend(True, {1: "rises", 0: "flat", -1: "falls"}[direction], ())


def _zeros(area: np.ndarray, value: np.ndarray) -> list[tuple[float, int]]:
    """Returns where a curve changes sign, by linear interpolation, and the sign after each change."""
    signs = np.where(value < 0, -1, 1)  # a zero at a grid point counts as positive, so that it is not missed
    at = np.flatnonzero(signs[:-1] != signs[1:])
    share = value[at] / (value[at] - value[at + 1])
    return [
        (float(area[i] + part * (area[i + 1] - area[i])), int(signs[i + 1])) for i, part in zip(at, share, strict=True)
    ]


def _rewarded(area: np.ndarray, background: np.ndarray, true_area: float) -> list[tuple[float, float]]:
    """Returns the intervals of one side on which a pixel outside the target lowers the loss."""
    value = background * true_area + 0.1 * _NOISE  # negative only where the reward exceeds the noise
    last = max(float(area[-1]), true_area)
    ends = [edge for edge, _ in _zeros(area, value)]
    if value[0] < 0:
        ends.insert(0, float(area[0]))
    if value[-1] < 0:
        ends.append(last)
    elif ends and (np.abs(background[area >= ends[-1]]) * true_area <= 0.1 * _NOISE).all():
        ends[-1] = last  # it vanishes only in the limit, as for `absdiff`
    return list(zip(ends[::2], ends[1::2], strict=True))


def _limits(values: np.ndarray) -> tuple[float, float, float]:
    """Returns the values of a curve for a -> 0, a -> g from below and a -> g from above."""
    return float(values[0]), float(values[_POINTS]), float(values[_POINTS + 1])


def _properties(case: str, variant: str, curve: AreaCurve, true_area: float) -> Properties:
    """Returns the table row of a curve whose first point represents a -> 0."""
    size, area = np.abs(curve.gradient), curve.area
    below, above = slice(1, _POINTS + 1), slice(_POINTS + 1, None)
    minima, rewarded = [], []
    for side in (below, above):
        minima += [at for at, sign in _zeros(area[side], curve.slope[side]) if sign > 0]
        rewarded += _rewarded(area[side], curve.background[side], true_area)
    if rewarded and rewarded[0][0] == area[1]:
        rewarded[0] = (0.0, rewarded[0][1])
    return Properties(
        case=case,
        variant=variant,
        below=_trend(area[below][::-1], size[below][::-1]),
        above=_trend(area[above], size[above]),
        weight_minima=tuple(minima),
        weights=_limits(curve.weight),
        gradients=_limits(curve.gradient),
        best_area=float(area[np.argmin(curve.loss)]) if curve.loss.min() < 1 else math.nan,
        rewarded=tuple(rewarded),
    )


def _side(true_area: float, edge: float) -> np.ndarray:
    """Returns areas from the true one to `edge` times it: half of them evenly spaced in log a, half in log |a - g|.

    Near the true area, the features of `variance` have a width in pixels that does not depend on the area.
    """
    near = np.geomspace(1e-4, 0.5, _POINTS // 2)
    wide = np.geomspace(1, edge, _POINTS - _POINTS // 2)
    return true_area * np.concatenate([wide, 1 + math.copysign(1, edge - 1) * near])


def study_scale_loss(true_area: float = 36.0, *, shift: float = 2.0, variants: Sequence[str] = VARIANTS) -> Study:
    """Computes the curves of both cases and their properties, over areas from g / 100 to 30 g.

    Args:
      true_area: area of the target, g, in pixels.
      shift: distance of the centres of target and prediction in the shifted case, in pixels.
      variants: variants of the weight; the IoU alone is always included, as `none`.

    Raises:
      UserError: if an area or shift is not positive, or a variant is unknown, named twice, or none is named.
    """
    for name, value in (("true_area", true_area), ("shift", shift)):
        if not (math.isfinite(value) and 1e-2 <= value <= 1e4):
            raise UsageError(f"{name} must be positive, from 0.01 to 10000 pixels, got {value}")
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown or not variants or len(set(variants)) < len(variants):
        raise UsageError(
            f"variants must be different ones of {', '.join(VARIANTS)}, got {', '.join(variants) or 'none'}"
        )
    g, names = float(np.float32(true_area)), (PLAIN, *variants)
    below, above = (np.sort(_side(g, edge)).astype(np.float32) for edge in AREAS)
    below[-1] = np.nextafter(np.float32(g), np.float32(0))  # the limit from below; g itself has the one from above
    areas = np.concatenate([np.array([SMALL * g], np.float32), below, above])
    curves, rows = {}, []
    for case in CASES:
        for variant, curve in _curves(case, areas, g, float(shift), names).items():
            rows.append(_properties(case, variant, curve, g))
            curves[case, variant] = AreaCurve(
                *(getattr(curve, field.name)[1:] for field in dataclasses.fields(AreaCurve))
            )
    return Study(g, float(shift), names, curves, tuple(rows))
