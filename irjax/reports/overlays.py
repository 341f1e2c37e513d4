"""Overlays of hits, missed targets and false detections on images.

Targets are only a few pixels large, so each event is also shown in an inset: an enlarged cut-out with its own contrast.
"""

from __future__ import annotations

import itertools
import os
from typing import cast

import numpy as np

from irjax.metrics.inputs import PointPredictions
from irjax.ops.regions import find_regions
from irjax.reports.curves import figure_of
from irjax.reports.drawing import draw_inset, draw_whole
from irjax.reports.events import (
    FALSE,
    FOUND,
    HIT,
    MISS,
    Kind,
    event_at,
    find_events,
    find_insets,
)
from irjax.reports.figures import save_figure


def _gray(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] in (1, 3, 4):
        image = image[..., : min(3, image.shape[-1])].mean(axis=-1)
    if image.ndim != 2:
        raise ValueError(f"an overlay needs an image [H, W] or [H, W, C], got shape {image.shape}")
    return image.astype(np.float32)


def spread_indices(count: int, number: int) -> list[int]:
    """Returns at most `number` indices below `count`, increasing and evenly spaced from the first to the last."""
    return sorted({int(index) for index in np.linspace(0, count - 1, number)})


def outline_regions(axes, mask: np.ndarray, colour: str, gap: float = 5) -> None:
    """Draws a circle around each region of a mask [H, W].

    The circle is `gap` pixels wider than the region, since a tight outline would hide tiny targets.
    """
    from matplotlib.patches import Circle

    regions = find_regions(mask)
    for centre, area in zip(regions.centroids, regions.areas, strict=True):
        axes.add_patch(Circle(centre, np.sqrt(area / np.pi) + gap, fill=False, color=colour, linewidth=1.0))


def draw_overlay(
    path: str | os.PathLike,
    image: np.ndarray,
    predictions: PointPredictions,
    truths: np.ndarray | None = None,
    *,
    limit: float = 5.0,
    inclusive: bool = True,
    title: str = "",
    insets: int = 8,
    inset_side: int = 33,
) -> None:
    """Draws an image with its hits, false detections and missed targets, and an enlarged inset of each.

    Args:
      path: path of the image file; the extension gives the format.
      image: [H, W] or [H, W, C], any range; shown between its 0.5 and 99.9 percentiles.
      predictions: detected points and scores.
      truths: [K, 2] (x, y) true points, or None if the truth is not known; detections are then not classified.
      limit: largest distance of a match in pixels, drawn as a dashed circle around each target.
      inclusive: whether a distance of exactly `limit` matches.
      title: title above the image.
      insets: maximum number of insets: around misses first, then false detections, then hits not yet in an inset.
      inset_side: side of an inset's cut-out, in pixels of the image.

    Raises:
      ValueError: if `image` is not [H, W] or [H, W, C] with 1, 3 or 4 channels.
    """
    from matplotlib.lines import Line2D

    image = _gray(image)
    kinds: tuple[Kind, ...]
    if truths is None:
        scores = predictions.scores
        assert scores is not None  # filled in by PointPredictions
        order = np.argsort(-scores, kind="stable")
        events = [event_at(FOUND, predictions.points[i], scores[i]) for i in order]
        kinds, truths = (FOUND,), np.zeros((0, 2))
    else:
        truths = np.asarray(truths, np.float64).reshape(-1, 2)
        events, kinds = find_events(predictions, truths, limit, inclusive=inclusive), (MISS, FALSE, HIT)
    frames = find_insets(events, image.shape, inset_side)[:insets]
    columns = min(-(-len(frames) // 3), 2)
    rows = max(2, -(-len(frames) // max(columns, 1)))

    body = 5.4
    whole = float(np.clip(body * image.shape[1] / image.shape[0], 3.5, 9.0))
    aside = columns * (body / rows + 0.25)
    figure = figure_of(whole + aside + 0.1, body + 0.75)
    left, right = cast("np.ndarray", figure.subfigures(1, 2, width_ratios=(whole, aside))) if frames else (figure, None)
    draw_whole(left.add_subplot(), image, events, frames)
    if right is not None:
        cells = right.subplots(rows, columns, squeeze=False).flat
        for number, (cell, frame) in enumerate(itertools.zip_longest(cells, frames), 1):
            if frame is None:
                cell.axis("off")
            else:
                draw_inset(cell, image, frame, truths, limit)
                cell.set_title(f"{number}  {frame.caption()}", fontsize=7.5, loc="left", pad=3)
                for spine in cell.spines.values():
                    spine.set(color=frame.events[0].kind.colour, linewidth=2.2)
    handles = []
    for kind in kinds:
        number = sum(event.kind is kind for event in events)
        handles.append(Line2D([], [], linestyle="none", marker=kind.marker, markersize=9, markerfacecolor="none",
                              markeredgewidth=1.8, color=kind.colour, label=f"{kind.label}: {number}"))  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=10)
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    save_figure(figure, path, dpi=110)
