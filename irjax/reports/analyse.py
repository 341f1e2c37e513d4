"""The scale losses against the predicted area: curves, a table of their properties, a figure.

The target is a disc of true area g; the prediction is a disc of area a, every pixel of it with probability 1, and areas
are integrals over the plane, so that a is any positive number and nothing depends on a pixel grid. Two cases:

    nested   about the same centre: the intersection is I = min(a, g), so IoU = min / max
    shifted  the centres are d pixels apart: I is the lens that two circles share

The loss is 1 - w I / U, U = a + g - I, with w from `irjax.losses.scale.scale_weight`. Gradients are by `jax.grad`:
dL/da as the disc grows, when I grows with it; and dL/dp of a pixel outside the target, which adds to a and leaves I as
it is. Where that second one is negative, w' / w > 1 / U, the loss rewards a false alarm.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import textwrap
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import UsageError
from irjax.losses.scale import VARIANTS, scale_weight
from irjax.reports.analyse_figure import plot_scale_loss
from irjax.reports.files import whole_folder, write_json, write_text
from irjax.reports.tables import csv_table, plain_table

PLAIN = "none"
CASES = ("nested", "shifted")
NOTE = (
    "variance is the scale-sensitive loss of MSHNet (Liu et al., CVPR 2024) as published. The other variants are a "
    'reconstruction: of "Revisiting the Scale Loss Function and Gaussian-Shape Convolution for Infrared Small Target '
    'Detection" (arXiv 2604.09991) only the abstract was at hand; ratio, absdiff and diff follow that abstract and the '
    "public repository ECTCV, taken to be its code; mobius is irjax's own. none is the IoU without a weight."
)
AREAS = (1 / 100, 30)  # of the true area: what the curves and the table cover
_POINTS = 800  # on either side of the true area
_SMALL = 1e-6  # of the true area: stands for a -> 0
_NOISE = 1e-4  # relative; float32 leaves 1e-6 or so
_COLUMNS = ("area_px", "iou", "weight", "loss", "gradient_per_px", "background_gradient_per_px")


def _area(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


@dataclasses.dataclass(frozen=True)
class Curve:
    """A variant in a case, over rising areas.

    Every field is [N] float32. The point just below the true area and the true area itself are both there: they have
    the limits from either side, between which every derivative jumps.

    Attributes:
      area: predicted, in pixels.
      iou: without the weight.
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
      monotonic: whether it only falls, only rises, or stays.
      kind: `falls`, `rises`, `flat` or `turns`.
      turns: areas in pixels where it turns, from the true area on; good to 1 %.
    """

    monotonic: bool
    kind: str
    turns: tuple[float, ...]

    def __str__(self) -> str:
        return f"yes, {self.kind}" if self.monotonic else f"no: {', '.join(map(_area, self.turns))}"


@dataclasses.dataclass(frozen=True)
class Properties:
    """A row of the table; areas in pixels, gradients in 1/px.

    Attributes:
      case: `nested` or `shifted`.
      variant: of the weight; `none`: the IoU alone.
      below: |dL/da| for a < g.
      above: |dL/da| for a > g.
      weight_minima: areas at which the weight has a minimum.
      weights: limits of the weight for a -> 0, a -> g from below, a -> g from above.
      gradients: the same of dL/da.
      best_area: at which the loss is smallest; nan where it is 1 throughout, 30 g where it still falls there.
      rewarded: (from, to): predicted areas for which a pixel outside the target lowers the loss; from 0 where that
        holds for the smallest area looked at.
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
    """The curves and what they show.

    Attributes:
      true_area: in pixels.
      shift: between the centres in the shifted case, in pixels.
      variants: in order, after `none`.
      curves: {(case, variant): curve}.
      table: a row for each case and variant.
    """

    true_area: float
    shift: float
    variants: tuple[str, ...]
    curves: dict[tuple[str, str], Curve]
    table: tuple[Properties, ...]

    def setup(self, case: str) -> str:
        """The case in words."""
        if case == "nested":
            return f"nested: discs of area a about the centre of a disc of g = {self.true_area:g} px"
        return f"shifted: discs of area a, centres {self.shift:g} px from that of a disc of g = {self.true_area:g} px"


def _half_angle(near: jax.Array, far: jax.Array, distance: float) -> jax.Array:
    """Half the angle, at the centre of the circle of radius `near`, of its arc within the circle of radius `far`.

    By the half-angle formula, which loses no digits near tangency: 0 where no part of the circle is in the other, pi
    where all of it is.
    """
    across = (near + far - distance) * (distance + far - near)
    along = (near + far + distance) * (distance + near - far)
    return 2 * jnp.arctan2(jnp.sqrt(jnp.maximum(across, 0)), jnp.sqrt(jnp.maximum(along, 0)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def disc_overlap(area: jax.Array, true_area: float, distance: float) -> jax.Array:
    """The area that two discs share.

    Its derivative to `area` is the share of that disc's circle within the other disc, in closed form, since the terms
    of the chain rule grow without bound at tangency and only then cancel.

    Args:
      area: of the one that may grow, in pixels, positive; any shape.
      true_area: of the other.
      distance: between the centres, in pixels, positive.

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
    return jnp.ones_like(area) if variant == PLAIN else scale_weight(area, true_area, variant)


def area_loss(area: jax.Array, both: jax.Array, true_area: float, variant: str) -> jax.Array:
    """`irjax.losses.scale.scale_iou_loss` of one image, from the areas that it depends on.

    Args:
      area: soft predicted area in pixels.
      both: soft intersection in pixels.
      true_area: in pixels, positive.
      variant: of the weight; `none`: the IoU alone.

    Returns:
      float32.
    """
    return 1 - _weight(area, true_area, variant) * both / (area + true_area - both)


def _curves(case: str, areas: np.ndarray, true_area: float, shift: float, variants: Sequence[str]) -> dict[str, Curve]:
    """{variant: curve} of a case; one trace for all of them."""

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
    return {name: Curve(*map(np.asarray, found[name])) for name in variants}


def _trend(area: np.ndarray, size: np.ndarray) -> Trend:
    """The trend of `size` in its order; what float32 may have added is no turn."""
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
    """Where a curve changes sign, by linear interpolation, with the sign that it has afterwards."""
    signs = np.where(value < 0, -1, 1)  # a zero at a point of the grid counts as positive, so that it is not missed
    at = np.flatnonzero(signs[:-1] != signs[1:])
    share = value[at] / (value[at] - value[at + 1])
    return [
        (float(area[i] + part * (area[i + 1] - area[i])), int(signs[i + 1])) for i, part in zip(at, share, strict=True)
    ]


def _rewarded(area: np.ndarray, background: np.ndarray, true_area: float) -> list[tuple[float, float]]:
    """The intervals of one side on which a pixel outside the target lowers the loss."""
    value = background * true_area + 0.1 * _NOISE  # negative only where the reward is more than noise
    last = max(float(area[-1]), true_area)
    ends = [edge for edge, _ in _zeros(area, value)]
    if value[0] < 0:
        ends.insert(0, float(area[0]))
    if value[-1] < 0:
        ends.append(last)
    elif ends and (np.abs(background[area >= ends[-1]]) * true_area <= 0.1 * _NOISE).all():
        ends[-1] = last  # it vanishes only in the limit, as for `absdiff`
    return list(zip(ends[::2], ends[1::2], strict=True))


def _properties(case: str, variant: str, curve: Curve, true_area: float) -> Properties:
    """The row of a curve whose first point stands for a -> 0."""
    size, area = np.abs(curve.gradient), curve.area
    below, above, limits = slice(1, _POINTS + 1), slice(_POINTS + 1, None), (0, _POINTS, _POINTS + 1)
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
        weights=tuple(float(curve.weight[index]) for index in limits),
        gradients=tuple(float(curve.gradient[index]) for index in limits),
        best_area=float(area[np.argmin(curve.loss)]) if curve.loss.min() < 1 else math.nan,
        rewarded=tuple(rewarded),
    )


def _side(true_area: float, edge: float) -> np.ndarray:
    """Areas from the true one to `edge` times it: half of them evenly in log a, half in log |a - g|.

    What `variance` does near the true area has a width in pixels, whatever the area.
    """
    near = np.geomspace(1e-4, 0.5, _POINTS // 2)
    wide = np.geomspace(1, edge, _POINTS - _POINTS // 2)
    return true_area * np.concatenate([wide, 1 + math.copysign(1, edge - 1) * near])


def study_scale_loss(true_area: float = 36.0, *, shift: float = 2.0, variants: Sequence[str] = VARIANTS) -> Study:
    """Computes the curves of both cases and what they show, over areas from g / 100 to 30 g.

    Args:
      true_area: of the target, g, in pixels.
      shift: between the centres of target and prediction in the shifted case, in pixels.
      variants: of the weight; the IoU alone always comes with them, as `none`.

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
    below[-1] = np.nextafter(np.float32(g), np.float32(0))  # the limit from below; at g itself is that from above
    areas = np.concatenate([np.float32([_SMALL * g]), below, above])
    curves, rows = {}, []
    for case in CASES:
        for variant, curve in _curves(case, areas, g, float(shift), names).items():
            rows.append(_properties(case, variant, curve, g))
            curves[case, variant] = Curve(*(getattr(curve, field.name)[1:] for field in dataclasses.fields(Curve)))
    return Study(g, float(shift), names, curves, tuple(rows))


def _short(value: float, scale: float = 1.0) -> str:
    """Three digits; 0 for what is no more than the distance to a limit."""
    return "0" if abs(value) < 10 * _SMALL * scale else f"{value:.3g}"


def scale_loss_table(study: Study) -> str:
    """The properties as text: a table for each case."""
    g, lines = study.true_area, []
    header = ["weight", "|dL/da| a < g", "|dL/da| a > g", "min w", "w 0", "w g-", "w g+", "dL/da 0", "g-", "g+",
              "min L", "rewarded"]  # fmt: skip
    for case in CASES:
        body = []
        for row in study.table:
            if row.case != case:
                continue
            open_end = row.best_area >= 0.999 * AREAS[1] * g  # the loss still falls where the curves end
            best = "-" if math.isnan(row.best_area) else f"{'>' * open_end}{_area(row.best_area)}"
            body.append([
                row.variant, row.below, row.above,
                ", ".join(map(_area, row.weight_minima)) or "-",
                *(_short(value) for value in row.weights),
                *(_short(value, 1 / g) for value in row.gradients),
                best,
                ", ".join(f"{_area(low)}-{_area(high)}" for low, high in row.rewarded) or "-",
            ])  # fmt: skip
        lines += [study.setup(case), "", plain_table(header, body), ""]
    low, high = (factor * g for factor in AREAS)
    lines += [
        f"|dL/da|: whether it is monotonic in |a - g| for a from {_area(low)} to {_area(high)} px, and falls or rises "
        "with it, or where it turns.",
        "min w, min L: areas in px at which the weight has a minimum, the loss is smallest. w and dL/da (1/px): limits "
        "for a -> 0 and a -> g.",
        "rewarded: predicted areas in px for which a pixel outside the target lowers the loss, w' / w > 1 / U.",
        textwrap.fill(NOTE, 120),
    ]
    return "\n".join(lines)


def curves_csv(study: Study) -> str:
    """Every curve: case, variant, area_px, iou, weight, loss and the gradients in 1/px."""
    rows = []
    for (case, variant), curve in study.curves.items():
        fields = (curve.area, curve.iou, curve.weight, curve.loss, curve.gradient, curve.background)
        rows += [(case, variant, *(f"{value:.9g}" for value in values)) for values in zip(*fields, strict=True)]
    return csv_table(("case", "variant", *_COLUMNS), rows)


def analyse_scale_loss(
    out: str | os.PathLike,
    *,
    true_area: float = 36.0,
    shift: float = 2.0,
    variants: Sequence[str] = VARIANTS,
    axis: str = "log",
) -> Study:
    """Studies the scale losses, prints the table, and writes the figure, the curves and the table.

    Args:
      out: folder; gets scale_loss.png, .svg, .csv and .json, all of them or none.
      true_area: see `study_scale_loss`.
      shift: see there.
      variants: see there.
      axis: see `plot_scale_loss`.

    Returns:
      The study.

    Raises:
      UserError: see there.
    """
    study = study_scale_loss(true_area, shift=shift, variants=variants)
    low, high = (factor * study.true_area for factor in AREAS)
    with whole_folder(out) as folder:
        plot_scale_loss([folder / "scale_loss.png", folder / "scale_loss.svg"], study, axis=axis)
        write_text(folder / "scale_loss.csv", curves_csv(study))
        content = {
            "true_area_px": study.true_area,
            "shift_px": study.shift,
            "areas_px": [low, high],
            "units": "areas in px, gradients in 1/px",
            "limits": "weights and gradients for a -> 0, and for a -> true area from below and from above",
            "note": NOTE,
            "table": [dataclasses.asdict(row) for row in study.table],
        }
        write_json(folder / "scale_loss.json", content)
    print(scale_loss_table(study))
    print(f"written to {os.fspath(out)}: scale_loss.png, .svg, .csv, .json")
    return study
