"""Report as one self-contained HTML page: no network, no other files, with a dark mode and a print layout.

What it looks like is in the templates of the folder ``page``; its charts and images are those of the PNG files, as SVG.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irjax.metrics.curves import Sweep
from irjax.metrics.evaluation import Evaluation
from irjax.metrics.histograms import ScoreHistogram
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.reports import curves, tables
from irjax.reports.cards import bare, make_card, templates
from irjax.reports.drawing import PREDICTED_COLOUR, TRUTH_COLOUR, draw_event, draw_limit, draw_outline, draw_whole
from irjax.reports.events import FALSE, HIT, MISS, Event, Inset, find_events, find_insets
from irjax.reports.figures import inline_svg

ROWS = 100  # rows of the table of images
CASES = 12  # images that are drawn
_INSETS = 6  # cut-outs per image
_SIDE = 25  # side of a cut-out and its surface plot, in pixels
_BYTES = 4_000_000  # limit on the size of all drawn images
_LARGEST = 512  # side in pixels up to which whole images are drawn as they are
_CHART = (6.2, 4.3)  # of charts, in inches
# Colours of charts, and the variables of the style sheet that stand instead: they follow its dark mode.
_COLOURS = {
    **{colour.lower(): f"var(--c{number})" for number, colour in enumerate(curves.COLOURS[:4])},
    "#000000": "var(--ink)",
    "#808080": "var(--soft)",
    "#d9d9d9": "var(--line)",
    "#ebebeb": "var(--line)",
}


@dataclasses.dataclass(frozen=True)
class View:
    """What is drawn of one image.

    Attributes:
      image: [H, W], the image, or the predicted map or the true mask if there is no image.
      points: the detections, with scores.
      truth: the true points and the image size.
      response: [H, W] predicted probabilities, or None for points.
      mask: [H, W] bool, the true mask, or None.
      predicted: [H, W] bool, the predicted mask, or None.
      pictured: what `image` is: "image", "predicted map" or "true mask".
    """

    image: np.ndarray
    points: PointPredictions
    truth: PointTruth
    response: np.ndarray | None
    mask: np.ndarray | None
    predicted: np.ndarray | None
    pictured: str


@dataclasses.dataclass(frozen=True)
class Page:
    """Content of a report page.

    Attributes:
      title: title of the predictions.
      program: name and version of the program that scored them.
      facts: (name, text) pairs for the head of the page.
      evaluations: {protocol: evaluation}.
      reference: the evaluation that curves and images belong to.
      intervals: {protocol: {metric: (low, high)}}.
      level: confidence level of the intervals.
      samples: number of bootstrap resamples.
      seed: seed of the bootstrap.
      flaws: {known flaw: names of the protocols that have it}.
      is_maps: whether the predictions are maps.
      threshold: the threshold in effect under the reference protocol; None if all points count.
      curve: sweep over every score (for maps, over the thresholds of `grid`).
      grid: sweep over a grid of thresholds.
      histogram: scores of the maps' pixels; None for points.
      rows: errors of the worst images, most errors first.
      cases: (index, errors) of the images to draw.
      errors: whether the images in `cases` have errors.
      view: returns what to draw of the image with a given index.
    """

    title: str
    program: str
    facts: Sequence[tuple[str, str]]
    evaluations: Mapping[str, Evaluation]
    reference: Evaluation
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]
    level: float
    samples: int
    seed: int
    flaws: Mapping[str, Sequence[str]]
    is_maps: bool
    threshold: float | None
    curve: Sweep
    grid: Sweep
    histogram: ScoreHistogram | None
    rows: Sequence[Mapping[str, Any]]
    cases: Sequence[tuple[int, Mapping[str, Any]]]
    errors: bool
    view: Callable[[int], View]


def page(data: Page) -> str:
    """Builds the report page of a scored prediction set.

    Args:
      data: the content of the page; the images to draw are read again.

    Returns:
      The HTML text.

    Raises:
      UserError: if an image cannot be read.
    """
    pages = templates()
    pages.filters["shown"] = _shown
    header, rows = tables.metric_rows(data.evaluations, data.intervals)
    cases = _cases(data)
    return pages.get_template("page.html").render(
        title=data.title,
        program=data.program,
        facts=data.facts,
        header=header,
        metrics=[(name, [_parts(cell) for cell in cells]) for name, *cells in rows],
        level=f"{data.level * 100:g}",
        images=data.reference.total.images,
        samples=data.samples,
        seed=data.seed,
        flaws=data.flaws,
        charts=_charts(data),
        rows=data.rows,
        protocol=data.reference.protocol,
        errors=data.errors,
        cases=cases,
        left_out=len(cases) < len(data.cases),
        side=_SIDE,
        is_maps=data.is_maps,
        legend=_legend(data),
    )


def _shown(value: Any) -> str:
    """Returns a cell of the table of images."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    return str(value)


def _parts(cell: str) -> tuple[str, str]:
    """Returns the value and the interval, as "low to high", of a cell of `irjax.reports.tables.metric_rows`."""
    value, _, interval = cell.partition(" [")
    return value, interval[:-1].replace(", ", " to ")


def _chart(title: str, caption: str, draw: Callable[[Any], None]) -> dict[str, str]:
    figure = curves.figure_of(*_CHART)
    draw(figure.add_subplot())
    return {"title": title, "caption": caption, "svg": inline_svg(figure, "chart", title, _COLOURS)}


def _charts(data: Page) -> list[dict[str, str]]:
    spec, curve, grid = data.reference.protocol, data.curve, data.grid
    condition = "p > t" if data.is_maps else "score >= t"
    steps = f"{len(grid)} thresholds, {grid.thresholds[0]:g} to {grid.thresholds[-1]:g}"
    along = steps if data.is_maps else f"{len(curve)} distinct scores"
    basis = (
        f"protocol {spec.name} ({spec.rule}), matched again at each threshold ({condition}); n = {curve.truths} targets"
    )
    unit = "false pixels" if spec.false_alarm == "area" else "false points"
    used = None if data.threshold is None else {spec.name: data.threshold}

    def roc(axes: Any) -> None:
        curves.draw_target_roc(axes, spec.name, curve, data.threshold)
        axes.set_xlabel(f"Fa ({unit} per pixel)")

    charts = [
        _chart(
            "Precision and recall of targets",
            f"Over {along}; {basis}. AP: sum of precision times gain in recall, not interpolated: the area under the "
            "steps.",
            lambda axes: curves.draw_precision_recall(axes, {spec.name: curve}, used),
        ),
        _chart(
            "Detection rate against false alarms",
            f"Over {along}; {basis}. Steps: the highest recall with at most so many false alarms. Thresholds without a "
            "false alarm lie left of the logarithmic axis; what they find is its left end.",
            roc,
        ),
        _chart(
            "F1, precision and recall against the threshold",
            f"{steps}; {basis}. The best of these was found on the images it is measured on, so it flatters.",
            lambda axes: curves.draw_threshold_curves(axes, grid, data.threshold),
        ),
    ]
    if (histogram := data.histogram) is not None:
        targets, background = int(histogram.positive.sum()), int(histogram.negative.sum())
        charts.append(
            _chart(
                "ROC of pixels",
                f"{histogram.bins - 1} thresholds; n = {targets:,} target and {background:,} background pixels, at the "
                "truth's size. Straight on linear axes, as the AUC's trapezoids are, and so bent on this one; with so "
                "few target pixels the AUC is close to 1 for almost any map.",
                lambda axes: curves.draw_pixel_roc(axes, histogram),
            )
        )
    return charts


def _legend(data: Page) -> list[dict[str, str]]:
    square = np.ones((1, 1), bool)
    spec = data.reference.protocol
    near = "<=" if spec.inclusive else "<"
    samples: list[tuple[str, Callable[[Any], None]]] = [
        (kind.label, functools.partial(draw_event, event=Event(kind, 0, 0), size=11)) for kind in (HIT, MISS, FALSE)
    ]
    samples.append(
        (f"a match is {near} {spec.limit:g} px from the target's centroid", lambda axes: draw_limit(axes, 0, 0, 0.6))
    )
    if data.is_maps:
        samples.append(("outline of the truth", lambda axes: draw_outline(axes, square, TRUTH_COLOUR)))
        samples.append(
            ("outline of the prediction", lambda axes: draw_outline(axes, square, PREDICTED_COLOUR, (0, (3, 2))))
        )
    legend = []
    for text, draw in samples:
        figure, axes = bare(0.28, 0.28)
        draw(axes)
        axes.set(xlim=(-0.9, 0.9), ylim=(0.9, -0.9))
        legend.append({"text": text, "svg": inline_svg(figure, "sample", text)})
    return legend


def _cases(data: Page) -> list[dict[str, Any]]:
    """Returns the images that are drawn: all, or those that the page has room for."""
    cases: list[dict[str, Any]] = []
    size = 0
    for index, row in data.cases:
        case = _case(data, index, row)
        size += len(case["whole"]) + sum(len(card["cut"]) + len(card["surface"]["values"]) for card in case["cards"])
        if size > _BYTES:
            break
        cases.append(case)
    return cases


def _case(data: Page, index: int, row: Mapping[str, Any]) -> dict[str, Any]:
    spec, view = data.reference.protocol, data.view(index)
    image = np.asarray(view.image, np.float64)
    truths = view.truth.points
    events = find_events(view.points, truths, spec.limit, inclusive=spec.inclusive)
    every = find_insets(sorted(events, key=lambda event: event.kind is FALSE), image.shape, _SIDE)
    insets = every[:_INSETS]
    iou = f"; IoU {row['IoU']:.3f}" if not math.isnan(row.get("IoU", math.nan)) else ""
    more = f"; {len(every) - len(insets)} more places not enlarged" if len(every) > len(insets) else ""
    shown = "" if view.pictured == "image" else f" Shown is the {view.pictured}: there is no image."
    targets = f"{row['targets']} target{'' if row['targets'] == 1 else 's'}"
    height, width = image.shape
    figure, axes = bare(5.4 * min(1.0, width / height), 5.4 * min(1.0, height / width))
    draw_whole(axes, image, events, insets, largest=_LARGEST)
    whole = inline_svg(figure, "whole", f"{len(events)} events in an image of {width} by {height} pixels")
    return {
        "name": row["name"],
        "text": f"{targets}: {row['TP']} found, {row['FN']} missed; {row['FP']} false{iou}; "
        f"{view.truth.width} x {view.truth.height} px{more}.{shown}",
        "whole": whole,
        "cards": [_card(view, image, inset, spec.limit) for inset in insets],
    }


def _card(view: View, image: np.ndarray, inset: Inset, limit: float) -> dict[str, Any]:
    truth = None if view.response is None else view.mask
    truths = view.truth.points
    return make_card(image, inset, view.response, truths=truths, limit=limit, truth=truth, predicted=view.predicted)
