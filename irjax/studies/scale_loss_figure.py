"""The figure of `irjax.studies.scale_loss`: weight, loss and gradients against the predicted area."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from irjax.errors import UserError
from irjax.losses.scale import VARIANTS
from irjax.reports.curves import COLOURS
from irjax.studies.scale_loss import Study


def _styles(variants: Sequence[str]) -> dict[str, tuple[str, Any]]:
    dashes = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2.5, 1)), "-")
    known = dict(zip(VARIANTS, zip(COLOURS, dashes, strict=False), strict=True))
    plain, *weighted = variants  # the reference is drawn last
    return {name: known[name] for name in weighted} | {plain: ("0.5", (0, (1, 1.2)))}


def _label(variant: str) -> str:
    if variant not in VARIANTS:
        return "no weight"
    return variant if variant == "variance" else f"{variant}*"


def _draw_panel(axes, study: Study, case: str, field: str, axis: str) -> None:
    """Draws one panel: every variant on either side of the true area, where the derivatives jump."""
    g = study.true_area
    low, high = (g / 16, 8 * g) if axis == "log" else (0, 3 * g)
    axes.set_xscale(axis)
    for name, (colour, dashes) in _styles(study.variants).items():
        curve = study.curves[case, name]
        for side in (curve.area < g, curve.area >= g):
            shown = side & (curve.area >= low) & (curve.area <= high * 1.01)
            axes.plot(curve.area[shown], getattr(curve, field)[shown], color=colour, linestyle=dashes, linewidth=1.5)
    axes.axvline(g, color="0.75", linewidth=0.8, zorder=0)
    ticks = g * (2.0 ** np.arange(-4, 4) if axis == "log" else np.arange(0, 3.1, 0.5))
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlim=(low, high), xlabel="predicted area $a$ (px)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.94", linewidth=0.6)
    axes.set_axisbelow(True)
    if field in ("weight", "loss"):
        axes.set_ylim(0, 1.04)
        _label_ends(axes, study, case, field, high)
        if field == "loss":
            _sketch(axes, study, case)
    else:
        axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        _key(axes, study)
    if field == "weight":
        _mark_minima(axes, study, case)
    if field == "background":
        bottom = axes.get_ylim()[0]
        axes.axhspan(bottom, 0, color="0.5", alpha=0.1, linewidth=0, zorder=0)
        axes.set_ylim(bottom=bottom)
        axes.annotate("below 0:\nfalse alarms\nare rewarded", (0.985, 0.04), xycoords="axes fraction", ha="right",
                      color="0.3")  # fmt: skip


def _label_ends(axes, study: Study, case: str, field: str, high: float) -> None:
    """Labels the right ends of the curves, with a minimum distance between labels."""
    ends = {}
    for name in _styles(study.variants):
        curve = study.curves[case, name]
        ends[name] = float(np.interp(high, curve.area, getattr(curve, field)))
    bottom, top = axes.get_ylim()
    gap = 0.062 * (top - bottom)
    order = sorted(ends, key=lambda name: ends[name])
    places = np.array([ends[name] for name in order])
    for _ in range(200):  # labels that are too close are moved apart
        lack = np.maximum(gap - np.diff(places), 0) / 2
        places[:-1] -= lack
        places[1:] += lack
        places -= max(places[-1] - top, 0)
    for name, place in zip(order, places, strict=True):
        colour = _styles(study.variants)[name][0]
        axes.annotate(
            _label(name), (1, (ends[name] - bottom) / (top - bottom)), (1.05, (place - bottom) / (top - bottom)),
            xycoords="axes fraction", textcoords="axes fraction", color=colour, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def _key(axes, study: Study) -> None:
    """Draws a legend next to a panel whose curves end too close together for `_label_ends`."""
    from matplotlib.lines import Line2D

    styles = _styles(study.variants)
    lines = [Line2D([], [], color=colour, linestyle=dashes, linewidth=1.5) for colour, dashes in styles.values()]
    names = [_label(name) for name in styles]
    axes.legend(lines, names, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, labelcolor="linecolor",
                handlelength=2.4, handletextpad=0.5, borderaxespad=0.4)  # fmt: skip


def _mark_minima(axes, study: Study, case: str) -> None:
    """Marks the visible minima of the weights with their areas."""
    styles = _styles(study.variants)
    for row in study.table:
        for area in row.weight_minima if row.case == case else ():
            if axes.get_xlim()[0] <= area <= axes.get_xlim()[1]:
                curve, side = study.curves[case, row.variant], -11 if area < study.true_area else 11
                value = float(np.interp(area, curve.area, curve.weight))
                axes.plot(area, value, "o", color=styles[row.variant][0], markersize=4, zorder=4)
                axes.annotate(f"{area:.3g} px", (area, value), (side, 11), textcoords="offset points",
                              ha="center", color=styles[row.variant][0])  # fmt: skip


def _sketch(axes, study: Study, case: str) -> None:
    """Draws the target in gray and predictions of a quarter of, once and twice its area, to scale."""
    from matplotlib.patches import Circle

    inset = axes.inset_axes((1.03, 0.0, 0.3, 0.4))
    radius, shift = math.sqrt(study.true_area / math.pi), study.shift if case == "shifted" else 0.0
    inset.add_patch(Circle((0, 0), radius, facecolor="0.82", linewidth=0))
    for share in (0.25, 1, 2):
        edge = Circle((shift, 0), radius * math.sqrt(share), facecolor="none", edgecolor="0.25", linewidth=0.8)
        inset.add_patch(edge)
    if shift:
        inset.plot([0, shift], [0, 0], "-", color="0.25", linewidth=0.8)
        inset.plot([0, shift], [0, 0], "o", color="0.25", markersize=1.8)
    reach = 1.5 * radius + shift
    inset.set(xlim=(-1.5 * radius, reach), ylim=(-1.5 * radius, 1.5 * radius), aspect="equal", anchor="SW")
    inset.set_axis_off()


def _caption(study: Study) -> str:
    lines = (
        f"Above, {study.setup('nested')}. Below, {study.setup('shifted')}. Areas integrated over the plane.",
        "Gray line: a = g, where every weight has a kink. Sketches: the target in gray, predictions of a quarter, once "
        "and twice its area. No weight: 1 - IoU.",
        "variance: as published with MSHNet (CVPR 2024). * A reconstruction: of arXiv 2604.09991 only the abstract was "
        "at hand; ratio, absdiff, diff follow it and",
        "the repository ECTCV, taken to be its code; mobius is irjax's own.",
    )
    return "\n".join(lines)


_TITLES = {
    "weight": "weight $w$, the same for both cases",
    "loss": r"loss $L = 1 - w\,\mathrm{IoU}$",
    "gradient": r"gradient $\mathrm{d}L/\mathrm{d}a$ (1/px)",
    "background": r"$\partial L/\partial p$ of a pixel outside (1/px)",
}
_PANELS = (
    ("nested", "weight"), ("nested", "loss"), ("nested", "gradient"),
    ("shifted", "background"), ("shifted", "loss"), ("shifted", "gradient"),
)  # fmt: skip


def plot_scale_loss(paths: Sequence[str | os.PathLike], study: Study, *, axis: str = "log") -> None:
    """Draws the study as two rows of three panels, sized for the width of a page.

    The weight does not depend on the position of the prediction, so the second row shows the gradient of a pixel
    outside the target in its place.

    Args:
      paths: paths of the pictures; the extensions set the formats (PNG, SVG, PDF).
      study: the study to draw.
      axis: `log`: areas from g / 16 to 8 g; `linear`: from 0 to 3 g.

    Raises:
      UserError: if the axis is unknown.
    """
    if axis not in ("log", "linear"):
        raise UserError(f"axis must be log or linear, got {axis!r}")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # A fixed salt and no date, so that the same study gives the same file.
    style: dict[Any, Any] = {"font.size": 8, "axes.titlesize": 8.5, "axes.linewidth": 0.6, "svg.hashsalt": "irjax"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11.4, 6.2), layout="constrained")
        FigureCanvasAgg(figure)
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(wspace=0.03, hspace=0.05)
        for letter, axes, (case, field) in zip("abcdef", figure.subplots(2, 3).flat, _PANELS, strict=True):
            _draw_panel(axes, study, case, field, axis)
            what = _TITLES[field] if field == "weight" else f"{case}: {_TITLES[field]}"
            axes.set_title(f"({letter}) {what}", loc="left")
        figure.supxlabel(_caption(study), fontsize=7, color="0.3", x=0.01, ha="left", linespacing=1.4)
        for path in paths:
            figure.savefig(path, dpi=200, metadata={"Date": None} if str(path).endswith(".svg") else None)
