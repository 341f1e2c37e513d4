"""Pictures that compare methods: accuracy against cost, and the same images side by side."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irjax.metrics.inputs import PointPredictions
from irjax.reports.curves import cycle, figure_of, tidy
from irjax.reports.drawing import PREDICTED_COLOUR, draw_event, draw_outline
from irjax.reports.events import HIT, MISS, Event, brightest, contrast, find_events, find_insets
from irjax.reports.figures import save_figure

_SIDE = 25  # side of the enlarged part in pixels of the image
_CELL = 1.9  # side of a picture in inches
_GRID = 48  # cells of a surface along its longer side
_LEAST, _MOST = 40, 1600  # areas of bubbles in square points


@dataclasses.dataclass(frozen=True)
class Shown:
    """What one method says of an image.

    Attributes:
      points: its detections.
      response: [H, W], what it responds with at every pixel, any range; None if only its points are known.
      mask: [H, W] bool, the predicted mask, or None.
    """

    points: PointPredictions
    response: np.ndarray | None
    mask: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Example:
    """An image, its truth, and what each method says of it.

    Attributes:
      name: name of the image.
      image: [H, W], any range.
      points: [K, 2] (x, y) true points.
      mask: [H, W] bool, the true mask, or None.
      methods: {title: what it says}.
      limit: largest distance of a match in pixels.
      inclusive: whether this distance itself matches.
    """

    name: str
    image: np.ndarray
    points: np.ndarray
    mask: np.ndarray | None
    methods: Mapping[str, Shown]
    limit: float
    inclusive: bool


def draw_examples(path: str | os.PathLike, examples: Sequence[Example]) -> None:
    """Draws images side by side: image, truth and each method, with an enlarged target, and below them the responses.

    The enlarged part is the same in a row: where the first target lies that not all methods find, else the first one.
    Hits, misses and false detections are marked as in `irjax.reports.overlays`. Surfaces are as high as their own
    largest value; those of methods whose points alone are known are left out.

    Args:
      path: path of the picture; the ending gives the format.
      examples: the images, at least one, with the same methods.
    """
    columns = len(examples[0].methods) + 2
    figure = figure_of(_CELL * columns, 2 * _CELL * len(examples) + 0.4)
    grid = figure.add_gridspec(2 * len(examples), columns)
    for number, example in enumerate(examples):
        panels = _panels(example)
        left, top = _enlarged_at(example, panels)
        for column, panel in enumerate(panels):
            axes = figure.add_subplot(grid[2 * number, column])
            _draw_flat(axes, panel, left, top)
            if not number:
                axes.set_title(panel.title, fontsize=9)
            if not column:
                axes.set_ylabel(example.name, fontsize=7)
            if panel.response is not None:
                _draw_surface(figure.add_subplot(grid[2 * number + 1, column], projection="3d"), panel.response)
    save_figure(figure, path, dpi=110)


@dataclasses.dataclass(frozen=True)
class _Panel:
    """A column of an example: a picture [H, W] with events and an outlined mask, and the surface below it."""

    title: str
    picture: np.ndarray
    response: np.ndarray | None
    events: Sequence[Event] = ()
    mask: np.ndarray | None = None


def _panels(example: Example) -> list[_Panel]:
    """Returns the image, the truth, and each method."""
    image, mask = example.image, example.mask
    true = [Event(HIT, x, y) for x, y in example.points]
    panels = [_Panel("image", image, image), _Panel("truth", image if mask is None else mask, mask, true)]
    for title, shown in example.methods.items():
        events = find_events(shown.points, example.points, example.limit, inclusive=example.inclusive)
        panels.append(_Panel(title, image, shown.response, events, shown.mask))
    return panels


def _enlarged_at(example: Example, panels: Sequence[_Panel]) -> tuple[int, int]:
    """Returns the left and top of the enlarged part."""
    misses = [event for panel in panels for event in panel.events if event.kind is MISS]
    (x, y) = (misses[0].x, misses[0].y) if misses else example.points[0]
    inset = find_insets([Event(HIT, x, y)], example.image.shape, _SIDE)[0]
    return inset.left, inset.top


def _draw_flat(axes: Any, panel: _Panel, left: int, top: int) -> None:
    """Draws a picture with its events, and the enlarged part in the corner that is farthest from it."""
    from matplotlib.patches import Rectangle

    picture, (height, width) = panel.picture, panel.picture.shape
    part = picture[top : top + _SIDE, left : left + _SIDE]
    levels = [(0, 1), (0, 1)] if picture.dtype == bool else [contrast(picture), contrast(part, 0.5, 100)]
    right, below = left + _SIDE / 2 < width / 2, top + _SIDE / 2 < height / 2
    corner = axes.inset_axes((0.58 if right else 0.0, 0.0 if below else 0.58, 0.42, 0.42))
    extent = (left - 0.5, left + part.shape[1] - 0.5, top + part.shape[0] - 0.5, top - 0.5)
    for place, shown, (low, high), more in (
        (axes, picture, levels[0], {"interpolation": "antialiased"}),
        (corner, part, levels[1], {"interpolation": "nearest", "extent": extent}),
    ):
        place.imshow(shown, cmap="gray", vmin=low, vmax=high, **more)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), _SIDE, _SIDE, fill=False, color=PREDICTED_COLOUR, linewidth=0.8))
    if panel.mask is not None:
        draw_outline(corner, panel.mask, PREDICTED_COLOUR)
    corner.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    for spine in corner.spines.values():
        spine.set(color=PREDICTED_COLOUR, linewidth=1.0)
    for place, size in ((axes, 5), (corner, 9)):
        for event in panel.events:
            draw_event(place, event, size)


def _draw_surface(axes: Any, response: np.ndarray) -> None:
    """Draws a response [H, W] as a surface, of which each cell is the highest of its pixels."""
    cells, factor = brightest(np.asarray(response, np.float64), _GRID)
    rows, cols = np.mgrid[: cells.shape[0], : cells.shape[1]] * factor
    top = max(float(cells.max()), 1e-6)
    axes.plot_surface(cols, rows, cells, cmap="viridis", rcount=_GRID, ccount=_GRID, linewidth=0, vmin=0, vmax=top)
    axes.set(zlim=(min(0.0, float(cells.min())), top), xticks=[], yticks=[], ylim=(response.shape[0], 0))
    axes.tick_params(axis="z", labelsize=6, pad=-1)
    axes.view_init(elev=28, azim=-60)


def plot_costs(
    path: str | os.PathLike, metric: str, values: Mapping[str, float], costs: Mapping[str, Mapping[str, Any]]
) -> None:
    """Plots accuracy against latency, with bubbles whose areas are the numbers of parameters.

    Args:
      path: path of the picture; the ending gives the format.
      metric: name of the metric.
      values: {title: the metric}.
      costs: {title: {"latency" in seconds, "parameters" or None}} of the same; without parameters the bubble is open.
    """
    from matplotlib.lines import Line2D

    figure = figure_of(7.4, 4.4)
    axes = figure.add_subplot()
    handles: list[Line2D] = []
    most = max((cost.get("parameters") or 0 for cost in costs.values()), default=0)
    for colour, (title, value) in zip(cycle(len(values)), values.items(), strict=True):
        cost = costs[title]
        parameters = cost.get("parameters")
        area = _LEAST if not parameters else max(_LEAST, _MOST * parameters / most)
        milliseconds = 1e3 * cost["latency"]
        face = colour if parameters else "none"
        axes.scatter(
            milliseconds, value, s=area, color=face, edgecolors=colour, alpha=0.7, linewidths=1.4, clip_on=False
        )
        # Beside the plot: those of like methods would cover each other.
        label = f"{title}, {parameters / 1e6:.2f} M" if parameters else title
        handles.append(Line2D([], [], linestyle="none", marker="o", markersize=8, markerfacecolor=face, color=colour,
                              label=label))  # fmt: skip
    axes.set(xscale="log", xlabel="milliseconds an image, on the machine that compared", ylabel=metric)
    axes.margins(0.16, 0.2)
    axes.set_ylim(max(axes.get_ylim()[0], 0.0), min(axes.get_ylim()[1], 1.02))
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    tidy(axes)
    save_figure(figure, path)
