"""Enlarged cut-outs beside a surface that can be turned, on pages: what `irjax/reports/page/surfaces.js` draws."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np

from irjax.reports.curves import figure_of
from irjax.reports.drawing import draw_inset
from irjax.reports.events import Inset, gray_levels
from irjax.reports.figures import inline_svg

_NO_POINTS = np.zeros((0, 2))


@functools.cache
def templates() -> jinja2.Environment:
    """Returns the templates of the folder ``page``."""
    loader = jinja2.PackageLoader("irjax.reports", "page")
    undefined = jinja2.StrictUndefined
    return jinja2.Environment(loader=loader, autoescape=True, undefined=undefined, trim_blocks=True, lstrip_blocks=True)


def bare(width: float, height: float) -> tuple[Any, Any]:
    """Returns a figure of this size in inches, and axes that fill it, without frame."""
    figure = figure_of(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.axis("off")
    return figure, axes


def surface(values: np.ndarray, low: float, high: float, unit: str, *, left: int = 0, top: int = 0, step: int = 1):
    """Returns what a surface is drawn from, in 256 levels.

    Args:
      values: [h, w] heights, at least 2 x 2.
      low: value of the floor.
      high: value of the highest grid line, above `low`.
      unit: title of the vertical axis.
      left: x of the first column in pixels of the image.
      top: y of the first row.
      step: pixels between two columns or rows.
    """
    height, width = values.shape
    return {
        "values": base64.b64encode(gray_levels(values, low, high).tobytes()).decode(),
        **{"width": width, "height": height, "left": left, "top": top, "step": step},
        **{"low": low, "high": high, "unit": unit, "peak": f"{float(values.max()):.3g}"},
    }


def make_card(
    image: np.ndarray,
    inset: Inset,
    response: np.ndarray | None,
    *,
    top: float = 1.0,
    unit: str = "p",
    truths: np.ndarray = _NO_POINTS,
    limit: float = 0.0,
    truth: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns a cut-out with its caption, and what the surface beside it is drawn from.

    Args:
      image: [H, W], any range.
      inset: the part to show.
      response: [H, W] heights of the surface; None for the image's own gray values.
      top: value of the highest grid line of a response.
      unit: title of a response's axis.
      truths: [K, 2] (x, y) true points; see `irjax.reports.drawing.draw_inset`, as for the rest.
      limit: largest distance of a match in pixels.
      truth: [H, W] bool, the true mask, or None.
      predicted: [H, W] bool, the predicted mask, or None.
    """
    height, width = inset.cut(image).shape
    figure, axes = bare(1.8 * min(1.0, width / height), 1.8 * min(1.0, height / width))
    draw_inset(axes, image, inset, truths, limit, truth=truth, predicted=predicted)
    said = "; ".join(f"{event.kind.label} at x {event.x:.1f}, y {event.y:.1f}" for event in inset.events)
    if response is not None:
        values, low, high = inset.cut(response), 0.0, top
    else:
        values, unit = inset.cut(image), "gray value"
        low, high = float(values.min()), float(max(values.max(), values.min() + 1))
    heights = surface(values, low, high, unit, left=inset.left, top=inset.top)
    return {"cut": inline_svg(figure, "cut", said), "caption": inset.caption(), "surface": heights}


def canvas_html(heights: dict[str, Any]) -> str:
    """Returns a surface for such a page, from what `surface` returns."""
    return str(templates().get_template("cards.html").module.canvas(heights))  # type: ignore[attr-defined]


def page_part(name: str) -> str:
    """Returns the text of a style sheet or script of the folder ``page``."""
    return templates().get_template(name).render()


def cards_html(cards: Sequence[dict[str, Any]]) -> str:
    """Returns cards for a page that has ``cards.css`` and ``surfaces.js``."""
    return str(templates().get_template("cards.html").module.cards(cards))  # type: ignore[attr-defined]
