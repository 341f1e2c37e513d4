"""Images with their events, and enlarged cut-outs, drawn into matplotlib axes: the same in pictures and on pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irjax.reports.events import MISS, Event, Inset, brightest, contrast

TRUTH_COLOUR, PREDICTED_COLOUR = "white", "#E69F00"  # outlines of true and predicted masks
_RIM, _RIM_ALPHA = "black", 0.6  # below what is drawn on an image, so that it is seen on any background


def draw_whole(
    axes: Any, image: np.ndarray, events: Sequence[Event], insets: Sequence[Inset], largest: int = 0
) -> None:
    """Draws the whole image, a marker for each event, and a numbered frame for each inset.

    Args:
      axes: where.
      image: [H, W], any range; shown between its 0.5 and 99.9 percentiles.
      events: what is marked.
      insets: what is framed.
      largest: if not 0, an image with a longer side is reduced by an integer factor, and the brightest pixel of each
        block is kept, so that targets of a few pixels remain visible.
    """
    from matplotlib import patheffects
    from matplotlib.patches import Rectangle

    bottom, peak = contrast(image)
    height, width = image.shape
    reduced, factor = brightest(image, largest) if largest else (image, 1)
    extent = (-0.5, reduced.shape[1] * factor - 0.5, reduced.shape[0] * factor - 0.5, -0.5)
    # Resampled once already; a vector file then holds the pixels themselves.
    style = {"interpolation": "none" if largest else "antialiased", "extent": extent}
    axes.imshow(reduced, cmap="gray", vmin=bottom, vmax=peak, **style)
    for event in events:
        draw_event(axes, event, 8)
    rim = [patheffects.withStroke(linewidth=2.5, foreground="black")]
    for number, inset in enumerate(insets, 1):
        corner, side = (inset.left - 0.5, inset.top - 0.5), inset.side
        for colour, line in (("black", 2.4), ("white", 1.2)):
            axes.add_patch(Rectangle(corner, side, side, fill=False, color=colour, linewidth=line, alpha=0.8))
        axes.annotate(str(number), (inset.left, inset.top), (2, -2), textcoords="offset points", color="white",
                      fontsize=9, fontweight="bold", ha="left", va="top", path_effects=rim)  # fmt: skip
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_inset(
    axes: Any,
    image: np.ndarray,
    inset: Inset,
    truths: np.ndarray,
    limit: float,
    *,
    truth: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
) -> None:
    """Draws an enlarged cut-out with its own contrast, and what is known of it.

    Args:
      axes: where.
      image: [H, W], any range.
      inset: the part to show; its events are marked.
      truths: [K, 2] (x, y) true points, each in the middle of a dashed circle of radius `limit`.
      limit: largest distance of a match in pixels.
      truth: [H, W] bool, the true mask, outlined; None if it is not known.
      predicted: [H, W] bool, the predicted mask, likewise.
    """
    patch = inset.cut(image)
    bottom, peak = contrast(patch, 0.5, 100)
    height, width = patch.shape
    extent = (inset.left - 0.5, inset.left + width - 0.5, inset.top + height - 0.5, inset.top - 0.5)
    axes.imshow(patch, cmap="gray", vmin=bottom, vmax=peak, extent=extent, interpolation="none")
    for mask, colour, line in ((truth, TRUTH_COLOUR, "-"), (predicted, PREDICTED_COLOUR, (0, (3, 2)))):
        if mask is not None:
            draw_outline(axes, inset.cut(mask), colour, line, (inset.left, inset.top))
    for x, y in truths:
        if inset.left - limit < x < extent[1] + limit and inset.top - limit < y < extent[2] + limit:
            draw_limit(axes, x, y, limit)
    for event in inset.events:
        draw_event(axes, event, 16 if event.kind is MISS else 11)
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])


def draw_event(axes: Any, event: Event, size: float) -> None:
    """Draws the open marker of an event; `size` in points."""
    style = {"marker": event.kind.marker, "markersize": size, "markerfacecolor": "none", "linestyle": "none"}
    width = min(1.7, 0.2 * size)
    for colour, edge, alpha in ((_RIM, 1.9 * width, _RIM_ALPHA), (event.kind.colour, width, 1.0)):
        axes.plot(event.x, event.y, markeredgecolor=colour, markeredgewidth=edge, alpha=alpha, **style)


def draw_limit(axes: Any, x: float, y: float, limit: float) -> None:
    """Draws the circle around a true point within which a detection matches."""
    from matplotlib.patches import Circle

    for colour, width in (("black", 2.2), ("white", 1.0)):
        axes.add_patch(Circle((x, y), limit, fill=False, color=colour, linewidth=width, linestyle=(0, (2, 2))))


def draw_outline(
    axes: Any, mask: np.ndarray, colour: str, line: Any = "-", corner: tuple[float, float] = (0, 0)
) -> None:
    """Draws the outline of a mask [H, W] along the edges of its pixels; (0, 0) of the mask lies at `corner` (x, y)."""
    from matplotlib.patches import PathPatch

    if (path := outline_path(mask)) is None:
        return
    path.vertices += corner
    for shade, width, style, alpha in ((_RIM, 2.4, "-", _RIM_ALPHA), (colour, 1.4, line, 1.0)):
        axes.add_patch(PathPatch(path, fill=False, edgecolor=shade, linewidth=width, linestyle=style, alpha=alpha))


def outline_path(mask: np.ndarray) -> Any:
    """Returns the outline of a mask along pixel edges as a path of separate lines; None of an empty one.

    Pixel (0, 0) extends from -0.5 to 0.5.
    """
    from matplotlib.path import Path

    padded = np.pad(np.asarray(mask, bool), 1)
    corners: list[tuple[float, float]] = []
    for axis in (0, 1):
        edges = padded[1:] != padded[:-1] if axis == 0 else (padded[:, 1:] != padded[:, :-1]).T
        for across, row in enumerate(edges):
            ends = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]]))) - 1.5
            for along in ends:
                corners.append((along, across - 0.5) if axis == 0 else (across - 0.5, along))
    return Path(np.array(corners), [Path.MOVETO, Path.LINETO] * (len(corners) // 2)) if corners else None
