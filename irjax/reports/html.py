"""A report as one page that stands alone: no network, no files beside it, readable in the dark and on paper."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np

import irjax
from irjax.metrics.curves import Sweep
from irjax.reports import svg, tables
from irjax.reports.artefacts import LEVEL, Result, image_row, worst_rows
from irjax.reports.events import FALSE, HIT, MISS, Event, Inset, find_events, find_insets
from irjax.reports.html_style import CSS, SCRIPT
from irjax.reports.scoring import View

_ROWS = 100  # of the table of images
_CASES = 12  # images that are drawn
_INSETS = 6  # of each
_SIDE = 25  # pixels of a cut-out and of the surface beside it
_BYTES = 4_000_000  # after which no more images are drawn


def page(result: Result) -> str:
    """The report page of a scored prediction set.

    Args:
      result: what was scored; its images are read once more, to be drawn.

    Returns:
      HTML.

    Raises:
      UserError: if an image cannot be read.
    """
    title = f"{result.scorer.predictions.title}: evaluation"
    body = "".join([_head(result), _numbers(result), _charts(result), _images(result), _cases(result)])
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _head(result: Result) -> str:
    scorer, reference = result.scorer, result.scores.reference
    total = reference.total
    kind = "maps" if result.is_maps else "points"
    facts = [
        ("Predictions", f"{scorer.predictions.path or scorer.predictions.title} ({kind})"),
        ("Images", f"{total.images}, with {total.truths} targets on {total.pixels:,} pixels"),
        *(("Protocol", rule) for rule in result.rules()),
        *((line.partition(":")[0].capitalize(), line.partition(":")[2].strip()) for line in result.readings()),
    ]
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts)
    return (
        f"<h1>{html.escape(scorer.predictions.title)}</h1>"
        f'<p class="lead">Evaluation of infrared small target detection, irjax {irjax.__version__}</p><dl>{rows}</dl>'
    )


def _numbers(result: Result) -> str:
    header, rows = tables.metric_rows(result.scores.evaluations, result.intervals)
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
        f"<li><b>{html.escape(', '.join(names))}</b>: {html.escape(flaw)}</li>"
        for flaw, names in result.flaws().items()
    )
    known = f"<p>Known flaws of published protocols, reproduced on purpose:</p><ul>{flaws}</ul>" if flaws else ""
    return (
        f'<h2>Metrics</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody>'
        f'</table></div><p class="note">Small: {LEVEL * 100:g} % percentile bootstrap intervals over the '
        f"{result.scores.reference.total.images} images ({result.samples} resamples, seed {result.seed}). They say how "
        "far a number would move with other images of the same kind, not with another training run. A dash is a number "
        f"that the protocol does not give, or one that is undefined.</p>{known}"
    )


def _figure(title: str, chart: str, caption: str) -> str:
    return f"<figure><b>{html.escape(title)}</b>{chart}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _charts(result: Result) -> str:
    scores, spec = result.scores, result.scores.reference.protocol
    curve, grid = scores.curve, scores.grid
    condition = "p > t" if result.is_maps else "score >= t"
    steps = f"{len(grid)} thresholds, {grid.thresholds[0]:g} to {grid.thresholds[-1]:g}"
    along = steps if result.is_maps else f"{len(curve)} distinct scores"
    basis = (
        f"protocol {spec.name} ({spec.rule}), matched again at each threshold ({condition}); n = {curve.truths} targets"
    )
    level = result.threshold_of(spec)
    recall, precision = curve.recall, curve.precision
    guides = []
    for f1 in (0.5, 0.7, 0.8, 0.9, 0.95):
        across = np.linspace(f1 / (2 - f1), 1, 40)
        guides.append(svg.Series(f"F1 {f1:g}", across, f1 * across / (2 * across - f1)))
    used = _used_at(recall, precision, curve, level)
    figures = [
        _figure(
            "Precision and recall of targets",
            svg.chart(
                svg.Axis("recall (Pd)"),
                svg.Axis("precision"),
                [svg.Series(f"AP {curve.average_precision:.4f}", recall, precision, mark=used)],
                guides=guides,
                description="precision against recall",
            ),
            f"Over {along}; {basis}. AP: sum of precision times gain in recall, not interpolated.",
        )  # fmt: skip
    ]
    unit = "false pixels" if spec.false_alarm == "area" else "false points"
    positive = np.where(curve.fa > 0, curve.fa, np.nan)
    figures.append(
        _figure(
            "Detection rate against false alarms",
            svg.chart(
                svg.log_axis(f"Fa ({unit} per pixel)", positive),
                svg.Axis("recall (Pd)"),
                [svg.Series("", positive, recall, mark=_used_at(positive, recall, curve, level))],
                description="detection rate against false alarms per pixel",
            ),
            f"Over {along}; {basis}. Thresholds without a false alarm have no place on the logarithmic axis.",
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
    if scores.histogram is not None:
        figures.append(_pixel_roc(result))
    return f'<h2>Curves</h2><div class="charts">{"".join(figures)}</div>'


def _used_at(x: np.ndarray, y: np.ndarray, curve: Sweep, level: float | None) -> tuple[float, float, str] | None:
    """The point of a curve at the threshold in use; None without one, and where the curve has no such point."""
    if level is None:
        return None
    # The first threshold not below the one in use has the same detections.
    index = min(int(np.searchsorted(curve.thresholds, level - 1e-12)), len(curve) - 1)
    return (x[index], y[index], f"at t = {level:g}") if math.isfinite(x[index]) else None


def _pixel_roc(result: Result) -> str:
    histogram = result.scores.histogram
    false, true = histogram.roc()
    shown = np.where(false > 0, false, np.nan)
    targets, background = int(histogram.positive.sum()), int(histogram.negative.sum())
    chart = svg.chart(
        svg.log_axis("false positive rate of pixels", shown, 1.0), svg.Axis("true positive rate of pixels"),
        [svg.Series(f"AUC {histogram.auc():.4f}", shown, true)], description="ROC of pixels",
    )  # fmt: skip
    return _figure(
        "ROC of pixels",
        chart,
        f"{len(histogram.thresholds)} thresholds; n = {targets:,} target and {background:,} background pixels, at the "
        "truth's size. AUC by trapezoid on linear axes; with so few target pixels it is close to 1 for almost any map.",
    )


def _images(result: Result) -> str:
    reference = result.scores.reference
    rows = [image_row(reference, index) for index in result.order[:_ROWS]]
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
    total = len(reference.rows)
    paper = '<p class="note print-only">On paper: the first 40.</p>' if len(rows) > 40 else ""
    which = f"The {len(rows)} worst of {total} images" if total > len(rows) else f"All {total} images"
    return (
        f'<h2>Images by error</h2><p class="note">{which} under protocol {html.escape(reference.protocol.name)}: most '
        "missed and false targets first. Press a heading to sort. Areas are in pixels.</p>"
        f'<div class="scroll tall"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{paper}"
    )


def _legend(result: Result) -> str:
    def sample(event: str, text: str) -> str:
        return f'<span><svg viewBox="-10 -10 20 20" aria-hidden="true">{event}</svg>{html.escape(text)}</span>'

    marks = [sample(svg.marker(Event(kind, 0, 0), 6), kind.label) for kind in (HIT, MISS, FALSE)]
    spec = result.scores.reference.protocol
    near = "<=" if spec.inclusive else "<"
    marks.append(
        sample('<circle class="limit" r="7"/>', f"a match is {near} {spec.limit:g} px from the target's centroid")
    )
    if result.is_maps:
        marks.append(sample('<path class="true" d="M-6 -6h12v12h-12z"/>', "outline of the truth"))
        marks.append(sample('<path class="found" d="M-6 -6h12v12h-12z"/>', "outline of the prediction"))
    return f'<p class="key-line">{"".join(marks)}</p>'


def _cases(result: Result) -> str:
    indices = [row["index"] for row in worst_rows(result, _CASES)]
    what = "The images with the most errors first."
    if not indices:
        indices = [index for index in result.order if result.scores.reference.rows[index].truths][:3]
        what = "No image has an error; these are the first with targets."
    parts, size = [], 0
    for index in indices:
        case = _case(result, index)
        size += len(case)
        if size > _BYTES:
            what += f" The page has room for {len(parts)} of them."
            break
        parts.append(case)
    seen = "the predicted probability p" if result.is_maps else "the image's gray value"
    return (
        f'<h2>Worst images</h2><p class="note">{what} Each cut-out is {_SIDE} px wide with its own contrast; the '
        f"surface beside it shows {seen} over the same pixels. x and y are in pixels, y down. Targets come first.</p>"
        f"{_legend(result)}{''.join(parts)}"
    )


def _case(result: Result, index: int) -> str:
    spec, view = result.scores.reference.protocol, result.scorer.view(index)
    row = image_row(result.scores.reference, index)
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


def _card(view: View, inset: Inset, number: int, truths: Sequence, limit: float) -> str:
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
