"""The ROC curves of several evaluations in one picture, for comparing methods."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from irjax.errors import FileError, MissingFileError, UsageError, UserError, reading
from irjax.io.files import check_unclaimed, output_file, read_json, whole_folder
from irjax.reports.curves import plot_rocs
from irjax.reports.figures import PICTURES
from irjax.reports.lines import detection_rates, roc_line
from irjax.reports.tables import plain_table

_COMMAND = "irjax analyse roc"
_RATES = (1e-6, 1e-5, 1e-4, 1e-3)  # false alarm rates of the table


def read_roc(folder: str | os.PathLike, level: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a curve that `irjax evaluate` wrote.

    Args:
      folder: folder with roc.csv.
      level: `pixel` or `target`.

    Returns:
      False alarm rates and detection rates, sorted by the first.

    Raises:
      MissingFileError: if there is no roc.csv.
      UserError: if it has no such curve.
    """
    path = pathlib.Path(folder) / "roc.csv"
    with reading(path):
        there = path.is_file()
    if not there:
        raise MissingFileError(f"{folder} has no roc.csv: it should be what `irjax evaluate --out` wrote")
    try:
        with reading(path), path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("level") == level]
        points = np.array([(row["false_alarm_rate"], row["detection_rate"]) for row in rows], np.float64)
    except FileError:
        raise
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no table of a ROC: {error}") from error
    points = points.reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 2:
        raise UserError(f"{path} has no {level} curve: were points evaluated, or maps under another protocol?")
    order = np.lexsort((points[:, 1], points[:, 0]))
    return points[order, 0], points[order, 1]


def draw_rocs(path: str | os.PathLike, evaluations: Sequence[str], level: str = "pixel") -> pathlib.Path:
    """Draws the curves of several evaluations; prints detection rates at some false alarm rates, and the AUC of pixels.

    Where an evaluation has them, the signal-to-clutter-ratio gain and the background suppression factor
    (`irjax.metrics.clutter`) are printed beside, as medians over targets.

    The rates are those that the picture shows there (`irjax.reports.lines.roc_line`). A curve that begins above a false
    alarm rate has no detection rate there.

    Args:
      path: path of the picture, .png, .svg or .pdf; or a folder, for roc.png.
      evaluations: each ``LABEL=DIR``.
      level: `pixel` or `target`.

    Returns:
      The picture.

    Raises:
      MissingFileError: if a folder has no roc.csv.
      UsageError: if an argument has no label, a label occurs twice, or the picture has another extension.
      UserError: if a folder has no such curve, or the picture would replace a file of another command's results.
    """
    out = output_file(path, "roc.png", PICTURES)
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    folders: dict[str, str] = {}
    for text in evaluations:
        label, separator, folder = text.partition("=")
        if not (label and separator and folder):
            raise UsageError(f"{text!r} should be LABEL=DIR")
        if label in curves:
            raise UsageError(f"two evaluations are called {label!r}")
        curves[label], folders[label] = read_roc(folder, level), folder
    if out == pathlib.Path(path):
        check_unclaimed(out, _COMMAND)
        plot_rocs(out, curves, level)
    else:
        with whole_folder(out.parent, _COMMAND) as new:
            plot_rocs(new / out.name, curves, level)
    print(_table(curves, level))
    if (figures := _clutter_table(folders)) is not None:
        print(figures)
    print(f"written to {out}")
    return out


def _table(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], level: str) -> str:
    """Returns the detection rates at `_RATES` as text."""
    rows = []
    for label, (false, true) in curves.items():
        rates = detection_rates(roc_line(false, true, level), np.array(_RATES))
        auc = [f"{np.trapezoid(true, false):.4f}"] if level == "pixel" else []
        rows.append([label, *("-" if np.isnan(rate) else f"{rate:.3f}" for rate in rates), *auc])
    header = [f"{level}s", *(f"at {rate:g}" for rate in _RATES), *(["AUC"] if level == "pixel" else [])]
    return plain_table(header, rows)


def _clutter_table(folders: Mapping[str, str]) -> str | None:
    """Returns the medians of the clutter figures of {label: folder} as text; None if no evaluation has them."""
    rows = []
    for label, folder in folders.items():
        path = pathlib.Path(folder) / "evaluation.json"
        found = read_json(path).get("curves", {}) if path.is_file() else {}
        if "scr_gain" in found:
            figures = [found["scr_gain"], found["bsf"]]
            # JSON has no infinity: a median that is null is infinite or, where no value is defined, none.
            medians = [("inf" if one["infinite"] else "-", one["median"]) for one in figures]
            texts = [other if median is None else f"{median:.4g}" for other, median in medians]
            rows.append([label, *texts, str(figures[0]["targets"])])
    return plain_table(["medians over targets", "SCR gain", "BSF", "targets"], rows) if rows else None
