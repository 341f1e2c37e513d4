"""The ROC curves of several evaluations in one picture, for comparing methods."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from irjax.errors import FileError, MissingFileError, UsageError, UserError, reading
from irjax.reports.curves import plot_rocs
from irjax.reports.tables import plain_table

_PICTURES = (".png", ".svg", ".pdf")


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


def draw_rocs(path: str | os.PathLike, evaluations: Sequence[str], level: str = "pixel") -> None:
    """Draws the curves of several evaluations; prints detection rates at some false alarm rates, and the AUC of pixels.

    A curve that begins above a false alarm rate has no detection rate there.

    Args:
      path: path of the picture; its extension sets the format: .png, .svg or .pdf.
      evaluations: each ``LABEL=DIR``.
      level: `pixel` or `target`.

    Raises:
      MissingFileError: if a folder has no roc.csv.
      UsageError: if an argument has no label, a label occurs twice, or the picture has another extension.
      UserError: if a folder has no such curve.
    """
    if pathlib.Path(path).suffix.lower() not in _PICTURES:
        raise UsageError(f"the picture must end in {', '.join(_PICTURES)}, got {os.fspath(path)}")
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for text in evaluations:
        label, separator, folder = text.partition("=")
        if not (label and separator and folder):
            raise UsageError(f"{text!r} should be LABEL=DIR")
        if label in curves:
            raise UsageError(f"two evaluations are called {label!r}")
        curves[label] = read_roc(folder, level)
    plot_rocs(path, curves, level)
    rates = (1e-6, 1e-5, 1e-4, 1e-3)
    rows = []
    for label, (false, true) in curves.items():
        reached = [
            max((t for f, t in zip(false, true, strict=True) if f <= rate), default=float("nan")) for rate in rates
        ]
        auc = [f"{np.trapezoid(true, false):.4f}"] if level == "pixel" else []
        rows.append([label, *("-" if np.isnan(value) else f"{value:.3f}" for value in reached), *auc])
    header = [f"{level}s", *(f"at {rate:g}" for rate in rates), *(["AUC"] if level == "pixel" else [])]
    print(plain_table(header, rows))
    print(f"written to {path}")
