"""Plots of precision-recall, ROC, threshold, training and selection curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irjax.metrics.curves import Sweep
from irjax.metrics.histograms import ScoreHistogram
from irjax.reports.figures import save_figure
from irjax.reports.lines import decades, on_log_axis, precision_recall_line, roc_line

# The palette of Okabe and Ito, distinguishable with all common forms of colour blindness and, in this order, in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Open, so that the curve is seen through it.
_OPEN = {"marker": "o", "linestyle": "none", "markerfacecolor": "none", "markersize": 8, "markeredgewidth": 1.6}
_IN_USE = {"color": "0.5", "linewidth": 1, "linestyle": ":"}
_FEW = 30  # operating points that are marked on a ROC; more would hide it
_ROC_AXES = {
    "target": ("Fa per pixel", "recall (Pd)"),
    "pixel": ("false positive rate of pixels", "true positive rate of pixels"),
}


def figure_of(width: float, height: float):
    """Creates an empty figure, with width and height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # pyplot would keep a reference to every figure and select a GUI backend.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes) -> None:
    """Leaves axes with two sides and a faint grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def plot_precision_recall(
    path: str | os.PathLike, sweeps: Mapping[str, Sweep], *, thresholds: Mapping[str, float] | None = None
) -> None:
    """Plots what `draw_precision_recall` draws.

    Args:
      path: path of the image; the extension gives the format (PNG, SVG, PDF).
      sweeps: {label: sweep}, preferably over all scores (`centroid_sweep` without thresholds).
      thresholds: {label: threshold in use}, marked by a ring.
    """
    figure = figure_of(5.4, 4.6)
    draw_precision_recall(figure.add_subplot(), sweeps, thresholds)
    save_figure(figure, path)


def draw_precision_recall(
    axes: Any, sweeps: Mapping[str, Sweep], thresholds: Mapping[str, float] | None = None
) -> None:
    """Draws precision against recall, one curve per sweep, with lines of constant F1 in the background.

    The curves are steps, under which the area is the average precision.
    """
    recalls = np.linspace(0.01, 1, 200)
    for f1 in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        with np.errstate(divide="ignore"):
            precision = f1 * recalls / (2 * recalls - f1)
        shown = (precision > 0) & (precision <= 1)
        axes.plot(recalls[shown], precision[shown], color="0.85", linewidth=0.8, zorder=1)
        axes.annotate(f"F1 {f1:g}", (1, f1 / (2 - f1)), (3, 0), textcoords="offset points", fontsize=8, color="0.5",
                      va="center", annotation_clip=False)  # fmt: skip
    for colour, (title, sweep) in zip(cycle(len(sweeps)), sweeps.items(), strict=True):
        text = title if np.isnan(sweep.average_precision) else f"{title}: AP {sweep.average_precision:.3f}"
        line = precision_recall_line(sweep.recall, sweep.precision)
        axes.plot(*line, color=colour, linewidth=1.8, label=text, zorder=3)
        if thresholds and title in thresholds:
            _mark_used(axes, sweep, sweep.recall, sweep.precision, thresholds[title], colour)
    axes.set(xlabel="recall (Pd)", ylabel="precision", xlim=(0, 1.005), ylim=(0, 1.02))
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    tidy(axes)
    axes.grid(False)


def _mark_used(axes: Any, sweep: Sweep, x: np.ndarray, y: np.ndarray, threshold: float, colour: str) -> None:
    """Marks the point of a curve at the threshold in use; nothing where it has no such point."""
    # The first threshold not below the one in use gives the same detections; the grid's may differ by a rounding.
    index = min(int(np.searchsorted(sweep.thresholds, threshold - 1e-12)), len(sweep) - 1)
    if np.isfinite(x[index]) and np.isfinite(y[index]):
        axes.plot(x[index], y[index], color=colour, zorder=4, label=f"at threshold {threshold:g}", **_OPEN)


def plot_threshold_curves(path: str | os.PathLike, sweep: Sweep, *, threshold: float | None = None) -> None:
    """Plots what `draw_threshold_curves` draws, and below it false alarms per pixel on a log scale.

    Args:
      path: path of the image.
      sweep: the sweep over thresholds.
      threshold: the threshold in use, marked by a vertical line.
    """
    figure = figure_of(6.0, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    draw_threshold_curves(upper, sweep, threshold)
    positive = np.where(sweep.false_alarms > 0, sweep.fa, np.nan)
    lower.plot(sweep.thresholds, positive, color=COLOURS[3], linewidth=1.8)
    if np.isfinite(positive).any():
        lower.set_yscale("log")
    else:
        lower.text(0.5, 0.5, "no false alarms", transform=lower.transAxes, ha="center", va="center", color="0.4")
    if threshold is not None:
        lower.axvline(threshold, **_IN_USE)
    tidy(lower)
    upper.set(xlabel="")
    lower.set(xlabel="threshold", ylabel="Fa per pixel")
    save_figure(figure, path)


def draw_threshold_curves(axes: Any, sweep: Sweep, threshold: float | None = None) -> None:
    """Draws precision, recall and F1 against the threshold, with a ring at the best F1."""
    lines = {"precision": (sweep.precision, "--"), "recall (Pd)": (sweep.recall, "-."), "F1": (sweep.f1, "-")}
    for colour, (name, (values, style)) in zip(COLOURS, lines.items(), strict=False):
        # Where they are nearly equal, the solid one would hide the others.
        below = {"zorder": 1.9} if style == "-" else {}
        axes.plot(sweep.thresholds, values, style, color=colour, linewidth=1.8, label=name, **below)
    best = sweep.best()
    if np.isfinite(best.f1):
        label = f"best F1 {best.f1:.3f} at {best.threshold:.3g}"
        axes.plot(best.threshold, best.f1, color=COLOURS[2], label=label, **_OPEN)
    if threshold is not None:
        axes.axvline(threshold, label=f"in use: {threshold:g}", **_IN_USE)
    axes.set(xlabel="threshold", ylabel="F1, precision, recall", ylim=(0, 1.02))
    axes.legend(loc="best", frameon=False, fontsize=9)
    tidy(axes)


def plot_roc(
    path: str | os.PathLike,
    title: str,
    sweep: Sweep,
    histogram: ScoreHistogram | None = None,
    *,
    threshold: float | None = None,
) -> None:
    """Plots Pd of the targets against false alarms per pixel, and beside it the ROC curve of pixels.

    Args:
      path: path of the image.
      title: name of the protocol used for the targets.
      sweep: the sweep, matched again at each threshold.
      histogram: scores of target and background pixels; None omits the ROC of pixels.
      threshold: the threshold in use, marked by a ring on the curve of targets.
    """
    figure = figure_of(10.0 if histogram is not None else 5.4, 4.4)
    axes = figure.subplots(1, 2 if histogram is not None else 1, squeeze=False)[0]
    draw_target_roc(axes[0], title, sweep, threshold)
    if histogram is not None:
        draw_pixel_roc(axes[1], histogram)
    save_figure(figure, path)


def draw_target_roc(axes: Any, title: str, sweep: Sweep, threshold: float | None = None) -> None:
    """Draws Pd of the targets against false alarms per pixel, on whole decades; steps, as `roc_line` says."""
    _draw_rocs(axes, {title: (sweep.fa, sweep.recall)}, "target")
    if threshold is not None:
        false = np.where(sweep.fa > 0, sweep.fa, np.nan)  # the axis has no 0
        _mark_used(axes, sweep, false, sweep.recall, threshold, COLOURS[0])
        axes.legend(loc="best", frameon=False, fontsize=9)


def draw_pixel_roc(axes: Any, histogram: ScoreHistogram) -> None:
    """Draws the ROC curve of pixels on whole decades."""
    _draw_rocs(axes, {f"pixels: AUC {histogram.auc():.4f}": histogram.roc()}, "pixel")


def plot_rocs(path: str | os.PathLike, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], level: str) -> None:
    """Plots the ROC curves of several methods in one figure.

    Args:
      path: path of the image; the extension gives the format.
      curves: {label: false alarm rates and detection rates, as `irjax evaluate` writes them to roc.csv}.
      level: `pixel` or `target`.
    """
    figure = figure_of(6.4, 4.8)
    _draw_rocs(figure.subplots(), curves, level)
    save_figure(figure, path)


def plot_learning(
    path: str | os.PathLike, loss: tuple[Sequence[float], Sequence[float]], chosen: tuple[str, Sequence, Sequence]
) -> None:
    """Plots the training loss of a run, and below it the metric that selects its checkpoint, against the elapsed time.

    Args:
      path: path of the image; the extension gives the format (PNG, SVG, PDF).
      loss: minutes and the loss at these times; nan is not drawn.
      chosen: name of the metric, minutes of the validations, and its values; without values, the lower part is omitted.
    """
    name, minutes, values = chosen
    figure = figure_of(6.4, 5.2 if len(values) else 3.0)
    parts = figure.subplots(2 if len(values) else 1, 1, sharex=True, squeeze=False)[:, 0]
    parts[0].plot(*loss, color=COLOURS[0], linewidth=0.8)
    parts[0].set(ylabel="loss in training", yscale="log")
    if len(values):
        parts[1].plot(minutes, values, color=COLOURS[1], marker="o", markersize=3, linewidth=1.4)
        parts[1].set(ylabel=f"{name} on validation")
    parts[-1].set(xlabel="minutes")
    for axes in parts:
        tidy(axes)
    save_figure(figure, path)


def plot_selection(
    path: str | os.PathLike, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], selected: int | None = None
) -> None:
    """Plots coverage and recall of the K most relevant patches against K.

    Args:
      path: path of the image; the extension gives the format (PNG, SVG, PDF).
      curves: {label: (coverage, recall)}, for K = 1, 2, ...
      selected: the K in use, marked by a line.
    """
    figure = figure_of(5.4, 4.2)
    axes = figure.add_subplot()
    for colour, (label, (coverage, recall)) in zip(cycle(len(curves)), curves.items(), strict=True):
        numbers = np.arange(1, len(recall) + 1)
        axes.plot(numbers, recall, color=colour, linewidth=1.8, label=f"recall, {label}")
        axes.plot(numbers, coverage, color=colour, linewidth=1.8, linestyle="--", label=f"coverage, {label}")
    if selected:
        axes.axvline(selected, color="0.5", linewidth=0.8, label=f"K = {selected}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="K, selected patches", ylabel="part of patches", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=9)
    tidy(axes)
    save_figure(figure, path)


def _draw_rocs(axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], level: str) -> None:
    """Draws ROC curves over whole decades of false alarms: each is, anywhere, what `roc_line` says."""
    rates = np.concatenate([false for false, _ in curves.values()])
    low, high = decades(rates, 1.0 if level == "pixel" else None)
    for colour, (label, (false, true)) in zip(cycle(len(curves)), curves.items(), strict=True):
        axes.plot(*on_log_axis(roc_line(false, true, level), low, high), color=colour, linewidth=1.8, label=label)
        points = np.unique(np.stack([false, true], axis=1), axis=0)
        if level == "target" and len(points) <= _FEW:
            axes.plot(*points.T, color=colour, **_OPEN | {"markersize": 5, "markeredgewidth": 0.8})
    axes.set(xlabel=_ROC_AXES[level][0], ylabel=_ROC_AXES[level][1], xscale="log", xlim=(low, high), ylim=(0, 1.02))
    axes.legend(loc="best", frameon=False, fontsize=9)
    tidy(axes)


def cycle(number: int) -> list[str]:
    """Returns so many colours, from the first again after the last."""
    return [COLOURS[index % len(COLOURS)] for index in range(number)]
