"""Pictures that compare methods: accuracy against cost, and the same images side by side."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irjax.metrics.inputs import PointPredictions
from irjax.reports.curves import COLOURS, figure_of
from irjax.reports.events import HIT, MISS, Event, contrast, find_events, find_insets
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
    titles = list(examples[0].methods)
    columns = len(titles) + 2
    figure = figure_of(_CELL * columns, 2 * _CELL * len(examples) + 0.4)
    grid = figure.add_gridspec(2 * len(examples), columns)
    for number, example in enumerate(examples):
        events = {title: _events(example, shown) for title, shown in example.methods.items()}
        left, top = _enlarged_at(example, list(events.values()))
        flat = [figure.add_subplot(grid[2 * number, column]) for column in range(columns)]
        for axes, title, marks in zip(flat, ("image", "truth", *titles), ([], [], *events.values()), strict=True):
            if title == "truth":
                marks = [Event(HIT, x, y) for x, y in example.points]
            _draw_flat(axes, example, title, marks, left, top, masked=title == "truth")
            if not number:
                axes.set_title(title, fontsize=9)
        flat[0].set_ylabel(example.name, fontsize=7)
        responses = [example.image, example.mask, *(shown.response for shown in example.methods.values())]
        for column, response in enumerate(responses):
            if response is not None:
                _draw_surface(figure.add_subplot(grid[2 * number + 1, column], projection="3d"), response)
    save_figure(figure, path, dpi=110)


def _events(example: Example, shown: Shown) -> list[Event]:
    return find_events(shown.points, example.points, example.limit, inclusive=example.inclusive)


def _enlarged_at(example: Example, found: Sequence[list[Event]]) -> tuple[int, int]:
    """Returns the left and top of the enlarged part."""
    misses = [event for events in found for event in events if event.kind is MISS]
    (x, y) = (misses[0].x, misses[0].y) if misses else example.points[0]
    inset = find_insets([Event(HIT, x, y)], example.image.shape, _SIDE)[0]
    return inset.left, inset.top


def _draw_flat(
    axes: Any, example: Example, title: str, events: Sequence[Event], left: int, top: int, *, masked: bool
) -> None:
    """Draws an image with its events, and the enlarged part in the corner that is farthest from it."""
    height, width = example.image.shape
    low, high = contrast(example.image)
    picture = example.image
    if masked and example.mask is not None:
        picture, low, high = example.mask, 0, 1
    style = {"cmap": "gray", "interpolation": "nearest"}
    axes.imshow(picture, vmin=low, vmax=high, **style | {"interpolation": "antialiased"})
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left - 0.5, top - 0.5), _SIDE, _SIDE, fill=False, color="#E69F00", linewidth=0.8))
    right, below = left + _SIDE / 2 < width / 2, top + _SIDE / 2 < height / 2
    corner = axes.inset_axes((0.58 if right else 0.0, 0.0 if below else 0.58, 0.42, 0.42))
    part = picture[top : top + _SIDE, left : left + _SIDE]
    if not masked or example.mask is None:
        low, high = contrast(part, 0.5, 100)
    extent = (left - 0.5, left + part.shape[1] - 0.5, top + part.shape[0] - 0.5, top - 0.5)
    corner.imshow(part, vmin=low, vmax=high, extent=extent, **style)
    shown = example.methods.get(title)
    if shown is not None and shown.mask is not None and shown.mask.any():
        rows, cols = np.mgrid[: shown.mask.shape[0], : shown.mask.shape[1]]
        corner.contour(cols, rows, shown.mask, levels=[0.5], colors="#E69F00", linewidths=0.9)
    corner.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    for spine in corner.spines.values():
        spine.set(color="#E69F00", linewidth=1.0)
    for place, size in ((axes, 6), (corner, 9)):
        for event in events:
            marks = {"marker": event.kind.marker, "markerfacecolor": "none", "markeredgecolor": event.kind.colour}
            place.plot(event.x, event.y, markersize=size, markeredgewidth=1.1, linestyle="none", **marks)


def _draw_surface(axes: Any, response: np.ndarray) -> None:
    """Draws a response [H, W] as a surface, of which each cell is the highest of its pixels."""
    values = np.asarray(response, np.float64)
    factor = max(1, -(-max(values.shape) // _GRID))
    padded = np.pad(values, ((0, -values.shape[0] % factor), (0, -values.shape[1] % factor)), mode="edge")
    cells = padded.reshape(padded.shape[0] // factor, factor, -1, factor).max(axis=(1, 3))
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
    for number, (title, value) in enumerate(values.items()):
        cost, colour = costs[title], COLOURS[number % len(COLOURS)]
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
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    save_figure(figure, path)
