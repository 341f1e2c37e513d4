"""Report as one self-contained HTML page: no network, no other files, with a dark mode and a print layout."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irjax.metrics.curves import Sweep
from irjax.metrics.evaluation import Evaluation
from irjax.metrics.histograms import ScoreHistogram
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.reports import svg, tables
from irjax.reports.events import FALSE, HIT, MISS, Event, Inset, find_events, find_insets
from irjax.reports.html_style import CSS, SCRIPT
from irjax.reports.lines import on_log_axis, precision_recall_line, roc_line

ROWS = 100  # rows of the table of images
CASES = 12  # images that are drawn
_INSETS = 6  # cut-outs per image
_SIDE = 25  # side of a cut-out and its surface plot, in pixels
_BYTES = 4_000_000  # limit on the size of all drawn images


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
    title = f"{data.title}: evaluation"
    body = "".join([_head(data), _numbers(data), _charts(data), _images(data), _cases(data)])
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _head(data: Page) -> str:
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in data.facts)
    return (
        f"<h1>{html.escape(data.title)}</h1>"
        f'<p class="lead">Evaluation of infrared small target detection, {html.escape(data.program)}</p><dl>{rows}</dl>'
    )


def _numbers(data: Page) -> str:
    header, rows = tables.metric_rows(data.evaluations, data.intervals)
    head = "".join(f'<th scope="col">{html.escape(cell or "Metric")}</th>' for cell in header)
    lines = []
    for name, *cells in rows:
        texts = []
        for cell in cells:
            value, _, interval = cell.partition(" [")
            small = f"<small>{html.escape(interval[:-1].replace(', ', ' to '))}</small>" if interval else ""
            texts.append(f"<td>{html.escape(value) or '–'}{small}</td>")
        lines.append(f"<tr><td>{html.escape(name)}</td>{''.join(texts)}</tr>")
    flaws = "".join(
        f"<li><b>{html.escape(', '.join(names))}</b>: {html.escape(flaw)}</li>" for flaw, names in data.flaws.items()
    )
    known = f"<p>Known flaws of published protocols, reproduced on purpose:</p><ul>{flaws}</ul>" if flaws else ""
    return (
        f'<h2>Metrics</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody>'
        f'</table></div><p class="note">Small: {data.level * 100:g} % percentile bootstrap intervals over the '
        f"{data.reference.total.images} images ({data.samples} resamples, seed {data.seed}). They say how "
        "far a number would move with other images of the same kind, not with another training run. A dash is a number "
        f"that the protocol does not give, or one that is undefined.</p>{known}"
    )


def _figure(title: str, chart: str, caption: str) -> str:
    return f"<figure><b>{html.escape(title)}</b>{chart}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _charts(data: Page) -> str:
    spec, curve, grid = data.reference.protocol, data.curve, data.grid
    condition = "p > t" if data.is_maps else "score >= t"
    steps = f"{len(grid)} thresholds, {grid.thresholds[0]:g} to {grid.thresholds[-1]:g}"
    along = steps if data.is_maps else f"{len(curve)} distinct scores"
    basis = (
        f"protocol {spec.name} ({spec.rule}), matched again at each threshold ({condition}); n = {curve.truths} targets"
    )
    recall, precision = curve.recall, curve.precision
    guides = []
    for f1 in (0.5, 0.7, 0.8, 0.9, 0.95):
        across = np.linspace(f1 / (2 - f1), 1, 40)
        guides.append(svg.Series(f"F1 {f1:g}", across, f1 * across / (2 * across - f1)))
    used = _used_at(recall, precision, curve, data.threshold)
    figures = [
        _figure(
            "Precision and recall of targets",
            svg.chart(
                svg.Axis("recall (Pd)"),
                svg.Axis("precision"),
                [svg.Series(f"AP {curve.average_precision:.4f}", *precision_recall_line(recall, precision), mark=used)],
                guides=guides,
                description="precision against recall",
            ),
            f"Over {along}; {basis}. AP: sum of precision times gain in recall, not interpolated: the area under the "
            "steps.",
        )  # fmt: skip
    ]
    unit = "false pixels" if spec.false_alarm == "area" else "false points"
    positive = np.where(curve.fa > 0, curve.fa, np.nan)
    axis = svg.log_axis(f"Fa ({unit} per pixel)", positive)
    line = on_log_axis(roc_line(curve.fa, recall, "target"), axis.low, axis.high)
    figures.append(
        _figure(
            "Detection rate against false alarms",
            svg.chart(
                axis,
                svg.Axis("recall (Pd)"),
                [svg.Series("", *line, mark=_used_at(positive, recall, curve, data.threshold))],
                description="detection rate against false alarms per pixel",
            ),
            f"Over {along}; {basis}. Steps: the highest recall with at most so many false alarms. Thresholds without a "
            "false alarm lie left of the logarithmic axis; what they find is its left end.",
        )  # fmt: skip
    )
    best = grid.best()
    mark = (best.threshold, best.f1, f"best F1 {best.f1:.4f} at {best.threshold:g}")
    t = grid.thresholds
    figures.append(
        _figure(
            "F1, precision and recall against the threshold",
            svg.chart(
                svg.Axis("threshold t"),
                svg.Axis("F1, precision, recall"),
                [
                    svg.Series("F1", t, grid.f1, mark=mark),
                    svg.Series("precision", t, grid.precision, dash="6 3"),
                    svg.Series("recall (Pd)", t, grid.recall, dash="2 3"),
                ],
                description="F1, precision and recall against the threshold",
            ),
            f"{steps}; {basis}. The best of these was found on the images it is measured on, so it flatters.",
        )  # fmt: skip
    )
    if data.histogram is not None:
        figures.append(_pixel_roc(data.histogram))
    return f'<h2>Curves</h2><div class="charts">{"".join(figures)}</div>'


def _used_at(x: np.ndarray, y: np.ndarray, curve: Sweep, level: float | None) -> tuple[float, float, str] | None:
    """Returns the point of a curve at the threshold in use, or None if there is no threshold or no such point."""
    if level is None:
        return None
    # The first threshold not below the one in use gives the same detections.
    index = min(int(np.searchsorted(curve.thresholds, level - 1e-12)), len(curve) - 1)
    return (x[index], y[index], f"at t = {level:g}") if math.isfinite(x[index]) else None


def _pixel_roc(histogram: ScoreHistogram) -> str:
    false, true = histogram.roc()
    axis = svg.log_axis("false positive rate of pixels", false, 1.0)
    line = on_log_axis(roc_line(false, true, "pixel"), axis.low, axis.high)
    targets, background = int(histogram.positive.sum()), int(histogram.negative.sum())
    chart = svg.chart(
        axis, svg.Axis("true positive rate of pixels"), [svg.Series(f"AUC {histogram.auc():.4f}", *line)],
        description="ROC of pixels",
    )  # fmt: skip
    return _figure(
        "ROC of pixels",
        chart,
        f"{histogram.bins - 1} thresholds; n = {targets:,} target and {background:,} background pixels, at the "
        "truth's size. Straight on linear axes, as the AUC's trapezoids are, and so bent on this one; with so few "
        "target pixels the AUC is close to 1 for almost any map.",
    )


def _images(data: Page) -> str:
    rows = data.rows
    head = "".join(
        f'<th scope="col"><button type="button">{html.escape(name.replace("_", " "))}</button></th>' for name in rows[0]
    )
    lines = []
    for row in rows:
        cells = []
        for value in row.values():
            number = isinstance(value, float)
            shown = ("" if math.isnan(value) else f"{value:.4f}") if number else str(value)
            cells.append(f"<td>{html.escape(shown)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    total = len(data.reference.rows)
    paper = '<p class="note print-only">On paper: the first 40.</p>' if len(rows) > 40 else ""
    which = f"The {len(rows)} worst of {total} images" if total > len(rows) else f"All {total} images"
    return (
        f'<h2>Images by error</h2><p class="note">{which} under protocol '
        f"{html.escape(data.reference.protocol.name)}: most missed and false targets first. Press a heading "
        "to sort. Areas are in pixels.</p>"
        f'<div class="scroll tall"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{paper}"
    )


def _legend(data: Page) -> str:
    def sample(event: str, text: str) -> str:
        return f'<span><svg viewBox="-10 -10 20 20" aria-hidden="true">{event}</svg>{html.escape(text)}</span>'

    marks = [sample(svg.marker(Event(kind, 0, 0), 6), kind.label) for kind in (HIT, MISS, FALSE)]
    spec = data.reference.protocol
    near = "<=" if spec.inclusive else "<"
    marks.append(
        sample('<circle class="limit" r="7"/>', f"a match is {near} {spec.limit:g} px from the target's centroid")
    )
    if data.is_maps:
        marks.append(sample('<path class="true" d="M-6 -6h12v12h-12z"/>', "outline of the truth"))
        marks.append(sample('<path class="found" d="M-6 -6h12v12h-12z"/>', "outline of the prediction"))
    return f'<p class="key-line">{"".join(marks)}</p>'


def _cases(data: Page) -> str:
    what = "The images with the most errors first."
    if not data.errors:
        what = "No image has an error; these are the first with targets."
    parts: list[str] = []
    size = 0
    for index, row in data.cases:
        case = _case(data, index, row)
        size += len(case)
        if size > _BYTES:
            what += f" The page has room for {len(parts)} of them."
            break
        parts.append(case)
    seen = "the predicted probability p" if data.is_maps else "the image's gray value"
    return (
        f'<h2>Worst images</h2><p class="note">{what} Each cut-out is {_SIDE} px wide with its own contrast; the '
        f"surface beside it shows {seen} over the same pixels. x and y are in pixels, y down. Targets come first.</p>"
        f"{_legend(data)}{''.join(parts)}"
    )


def _case(data: Page, index: int, row: Mapping[str, Any]) -> str:
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
    text = (
        f"{targets}: {row['TP']} found, {row['FN']} missed; {row['FP']} false{iou}; "
        f"{view.truth.width} x {view.truth.height} px{more}.{shown}"
    )
    cards = "".join(_card(view, inset, number, truths, spec.limit) for number, inset in enumerate(insets, 1))
    return (
        f'<article><h3>{html.escape(row["name"])}</h3><p class="note">{html.escape(text)}</p><div class="case">'
        f'<figure>{svg.whole(image, events, insets)}</figure><div class="events">{cards}</div></div></article>'
    )


def _card(view: View, inset: Inset, number: int, truths: np.ndarray, limit: float) -> str:
    picture = svg.cut_out(view.image, inset, truth=view.mask if view.response is not None else None,
                          predicted=view.predicted, points=truths, limit=limit)  # fmt: skip
    if view.response is not None:
        values, low, high, unit = inset.cut(view.response), 0.0, 1.0, "p"
    else:
        values, unit = inset.cut(np.asarray(view.image)), "gray value"
        low, high = float(values.min()), float(max(values.max(), values.min() + 1))
    relief = svg.surface(values, left=inset.left, top=inset.top, low=low, high=high, unit=unit)
    return (
        f'<figure class="event"><div class="pair">{picture}{relief}</div>'
        f"<figcaption><b>{number}</b> {html.escape(inset.caption())}</figcaption></figure>"
    )
