"""Scores a prediction file from any program against a data set, and writes down what was found."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irjax.metrics import evaluate_images, protocols
from irjax.metrics.curves import Sweep, centroid_sweep
from irjax.metrics.evaluation import Evaluation
from irjax.metrics.inputs import PointPredictions, PointTruth
from irjax.reports import tables
from irjax.reports.curves import plot_precision_recall, plot_threshold_curves, write_sweep_csv
from irjax.reports.files import write_json, write_text
from irjax.reports.names import match_names
from irjax.reports.overlays import draw_overlay
from irjax.reports.predictions import read_predictions
from irjax.types import Source

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def evaluate_points(
    predictions_file: str | os.PathLike,
    source: Source,
    *,
    threshold: float | None = None,
    thresholds: Sequence[float] | None = None,
    protocol: str | protocols.Protocol = "centroid",
    out_dir: str | os.PathLike | None = None,
    overlays: int = 8,
    allow_missing: bool = False,
    samples: int = 1000,
    seed: int = 0,
    printer: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Scores a COCO-keypoint prediction file (`irjax.reports.predictions`) against the points of a data set.

    An image of the data set that the file does not name counts with all its targets missed.

    Args:
      predictions_file: the JSON file, from any program.
      source: the data set; its names are matched with or without folder, ending and mask suffix.
      threshold: detections with a lower score are dropped; None keeps all that the file holds.
      thresholds: rising, for the sweep; default 0.05 to 0.95.
      protocol: one that takes points.
      out_dir: where `report_points` writes; None writes nothing.
      overlays: how many of the worst images are drawn.
      allow_missing: whether names on only one side are accepted: predictions of unknown images (left out), and images
        that a file which lists its images leaves out (their targets count as missed).
      samples: bootstrap resamples.
      seed: of the bootstrap.
      printer: gets the text of the table.

    Returns:
      The content of evaluation.json, and under "files" what was written; see `report_points`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file cannot be read, names do not match, image sizes disagree, or the protocol needs maps.
    """
    content = read_predictions(predictions_file)
    matched = match_names(content.predictions, source.names)
    _check_names(content.path, matched.unknown, matched.without_prediction if content.lists_images else (),
                 len(matched.prediction_of), allow_missing)  # fmt: skip
    predictions = {name: content.predictions[other] for name, other in matched.prediction_of.items()}
    sizes = {name: content.sizes[other] for name, other in matched.prediction_of.items() if other in content.sizes}
    report = report_points(
        predictions,
        source,
        threshold=threshold,
        thresholds=thresholds,
        protocol=protocol,
        out_dir=out_dir,
        overlays=overlays,
        samples=samples,
        seed=seed,
        printer=printer,
        title=content.path.name,
        sizes=sizes,
        facts={"predictions_file": content.path, "unknown_predictions": matched.unknown},
    )
    for text, names in (
        ("images without an entry in the file (their targets count as missed)", matched.without_prediction),
        ("predictions left out, of no image of the data set", matched.unknown),
    ):
        if names:
            printer(f"{len(names)} {text}: {_some(names)}")
    return report


def report_points(
    predictions: Mapping[str, PointPredictions],
    source: Source,
    *,
    threshold: float | None = None,
    thresholds: Sequence[float] | None = None,
    protocol: str | protocols.Protocol = "centroid",
    out_dir: str | os.PathLike | None = None,
    overlays: int = 8,
    samples: int = 1000,
    seed: int = 0,
    printer: Callable[[str], None] = print,
    title: str = "predictions",
    sizes: Mapping[str, tuple[int, int]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Scores point predictions held in memory against a data set, prints a table and writes the report.

    Written into `out_dir`: evaluation.json (all numbers), evaluation.csv (the metrics with their intervals), sweep.csv
    (a line for each threshold), per_image.csv (most errors first), precision_recall.png, thresholds.png, and
    overlays/NN_NAME.png of the worst images. Each file is whole or absent.

    Args:
      predictions: {image name: points and scores}; an image without an entry has all its targets missed.
      source: the data set; images are read for their size and for the overlays.
      threshold: detections with a lower score are dropped; None keeps all.
      thresholds: rising, for the sweep; default 0.05 to 0.95.
      protocol: one that takes points.
      out_dir: a folder, made if absent; None writes nothing.
      overlays: how many of the worst images are drawn; images without errors are not.
      samples: bootstrap resamples.
      seed: of the bootstrap.
      printer: gets the text of the table.
      title: of the table's column.
      sizes: {image name: (height, width)} that the predictions were made for, to be checked.
      facts: put into the JSON as they are.

    Returns:
      {"protocol", "rule", "threshold", "images", "metrics", "intervals", "level", "average_precision", "best",
      "images_without_prediction", "sweep", "worst", "files", ...facts}.

    Raises:
      ValueError: if the data set is empty, a prediction's name or size is not in it, or the protocol needs maps.
    """
    spec = _point_protocol(protocol)
    names = tuple(source.names)
    if not names:
        raise ValueError("the data set is empty: there is nothing to score against")
    if len(set(names)) != len(names):
        twice = sorted(name for name in set(names) if names.count(name) > 1)
        raise ValueError(f"predictions go by name, but the data set has names that are not unique: {_some(twice)}")
    strangers = sorted(set(predictions) - set(names))
    if strangers:
        raise ValueError(f"{len(strangers)} predictions are of no image of the data set: {_some(strangers)}")
    truths = _read_truths(source, sizes or {})
    none = PointPredictions(np.zeros((0, 2)), np.zeros(0))
    found = [predictions.get(name, none) for name in names]

    evaluation = evaluate_images(found, truths, spec, threshold=threshold, names=names)[spec.name]
    levels = THRESHOLDS if thresholds is None else thresholds
    grid = centroid_sweep(found, truths, levels, spec.limit, inclusive=spec.inclusive)
    every = centroid_sweep(found, truths, None, spec.limit, inclusive=spec.inclusive)
    intervals = evaluation.intervals(samples=samples, seed=seed)
    header, rows = tables.metric_rows({title: evaluation}, {title: intervals})
    rows += _sweep_rows(grid)
    printer(_heading(evaluation) + "\n" + tables.plain_table(header, rows))

    report = _summary(evaluation, intervals, grid) | {
        "images_without_prediction": [name for name in names if name not in predictions],
        **(facts or {}),
    }
    if out_dir is not None:
        folder = pathlib.Path(out_dir)
        report["files"] = _write(folder, evaluation, intervals, grid, every, threshold)
        report["files"]["overlays"] = _draw(folder, evaluation, source, found, truths, overlays, threshold)
        report["files"]["json"] = folder / "evaluation.json"
        write_json(report["files"]["json"], report)
        printer(f"written to {folder}")
    return report


def _summary(evaluation: Evaluation, intervals: Mapping[str, tuple[float, float]], grid: Sweep) -> dict[str, Any]:
    return {
        "protocol": evaluation.protocol.name,
        "rule": evaluation.protocol.rule,
        "threshold": evaluation.threshold,
        "images": len(evaluation.rows),
        "metrics": evaluation.metrics(),
        "intervals": intervals,
        "level": 0.95,
        "average_precision": grid.average_precision,
        "best": dataclasses.asdict(grid.best()),
        "sweep": [dataclasses.asdict(grid.at(index)) for index in range(len(grid))],
        "worst": _worst(evaluation, 20),
        "files": {},
    }


def _point_protocol(name: str | protocols.Protocol) -> protocols.Protocol:
    spec = protocols.protocol(name)
    if spec.needs_maps or spec.matching != "optimal":
        raise ValueError(
            f"protocol {spec.name!r} cannot score points: wanted one that takes points and matches optimally, such as "
            "'centroid'"
        )
    return spec


def _check_names(
    path: pathlib.Path, unknown: Sequence[str], left_out: Sequence[str], matched: int, allow_missing: bool
) -> None:
    if not matched and unknown:
        raise ValueError(f"{path}: none of its {len(unknown)} images is in the data set; it has {_some(unknown)}")
    problems = []
    if unknown:
        problems.append(f"{len(unknown)} predictions are of no image of the data set: {_some(unknown)}")
    if left_out:
        problems.append(f"{len(left_out)} images of the data set are not listed in the file: {_some(left_out)}")
    if problems and not allow_missing:
        raise ValueError(f"{path}: {'; '.join(problems)}. allow_missing (--allow-missing) accepts this")


def _read_truths(source: Source, sizes: Mapping[str, tuple[int, int]]) -> list[PointTruth]:
    truths = []
    for index, name in enumerate(source.names):
        example = source[index]
        height, width = example.image.shape[:2]
        if name in sizes and tuple(sizes[name]) != (height, width):
            other = sizes[name]
            raise ValueError(
                f"image {name}: the predictions are for {other[0]}x{other[1]}, the data set's image is "
                f"{height}x{width} (height x width)"
            )
        truths.append(PointTruth(example.points, height, width))
    return truths


def _heading(evaluation: Evaluation) -> str:
    spec, total = evaluation.protocol, evaluation.total
    kept = "all detections" if evaluation.threshold is None else f"score >= {evaluation.threshold:g}"
    return (
        f"protocol {spec.name}: {spec.rule}; {kept}; {total.images} images, {total.truths} targets; "
        "95 % bootstrap intervals over images"
    )


def _sweep_rows(grid: Sweep) -> list[list[str]]:
    best = grid.best()

    def text(value: float) -> str:
        return "-" if np.isnan(value) else f"{value:.4f}"

    return [
        ["AP over all scores", text(grid.average_precision)],
        [f"best F1 of {len(grid)} thresholds", f"{text(best.f1)} at {best.threshold:g}"],
    ]


def _worst(evaluation: Evaluation, number: int) -> list[dict[str, Any]]:
    """The images with errors, most errors first."""
    worst = []
    for index in evaluation.worst_first()[:number]:
        row = evaluation.rows[index]
        false, missed = row.predictions - row.matched, row.truths - row.matched
        if false + missed:
            worst.append(
                {"index": index, "name": evaluation.names[index], "TP": row.matched, "FP": false, "FN": missed}
            )
    return worst


def _write(
    folder: pathlib.Path,
    evaluation: Evaluation,
    intervals: Mapping[str, tuple[float, float]],
    grid: Sweep,
    every: Sweep,
    threshold: float | None,
) -> dict[str, Any]:
    files = {
        "csv": folder / "evaluation.csv",
        "sweep": folder / "sweep.csv",
        "per_image": folder / "per_image.csv",
        "precision_recall": folder / "precision_recall.png",
        "thresholds": folder / "thresholds.png",
    }
    metrics = evaluation.metrics()
    write_text(
        files["csv"],
        tables.csv_table(["metric", "value", "low", "high"], [[m, metrics[m], *intervals[m]] for m in metrics]),
    )
    write_sweep_csv(files["sweep"], grid)
    per_image = []
    for index in evaluation.worst_first():
        row = evaluation.rows[index]
        per_image.append(
            [
                evaluation.names[index],
                row.truths,
                row.predictions,
                row.matched,
                row.predictions - row.matched,
                row.truths - row.matched,
                row.pixels,
            ]  # fmt: skip
        )
    columns = ["name", "targets", "detections", "TP", "FP", "FN", "pixels"]
    write_text(files["per_image"], tables.csv_table(columns, per_image))
    label = evaluation.protocol.name
    in_use = None if threshold is None else {label: threshold}
    plot_precision_recall(files["precision_recall"], {label: every}, thresholds=in_use)
    plot_threshold_curves(files["thresholds"], grid, threshold=threshold)
    return files


def _draw(
    folder: pathlib.Path,
    evaluation: Evaluation,
    source: Source,
    found: Sequence[PointPredictions],
    truths: Sequence[PointTruth],
    number: int,
    threshold: float | None,
) -> list[pathlib.Path]:
    paths = []
    for entry in _worst(evaluation, number):
        index = entry["index"]
        predictions = found[index] if threshold is None else found[index].above(threshold)
        safe = "".join(char if char.isalnum() or char in "-_." else "_" for char in entry["name"])
        path = folder / "overlays" / f"{len(paths) + 1:02d}_{safe}.png"
        title = f"{entry['name']}: {entry['TP']} found, {entry['FN']} missed, {entry['FP']} false"
        points = truths[index].points
        draw_overlay(path, source[index].image, predictions, points, limit=evaluation.protocol.limit, title=title)
        paths.append(path)
    return paths


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
