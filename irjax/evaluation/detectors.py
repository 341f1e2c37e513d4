"""Evaluates detectors on data sets, with the white top-hat as a reference."""

from __future__ import annotations

import itertools
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from irjax.bars import bar
from irjax.baselines import detect
from irjax.detector.detector import Detector
from irjax.evaluation.evaluate import report_maps, report_points
from irjax.evaluation.result import check_report_folder
from irjax.io.files import whole_folder
from irjax.io.maps import write_map
from irjax.io.names import file_of
from irjax.io.predictions import write_predictions
from irjax.methods.registry import find_method
from irjax.metrics import PointPredictions, PointTruth, centroid_sweep, from_detections
from irjax.types import Source

MASK_PROTOCOLS = ("irjax", "basicirstd", "adsnet")
_CHUNK = 32  # images held in memory at a time
_FLOOR = 0.05  # lowest score kept for the curves


def detect_source(
    detector: Callable[[list[np.ndarray]], Any], source: Source
) -> tuple[dict[str, PointPredictions], dict[str, tuple[int, int]]]:
    """Runs a detector over a data set.

    Args:
      detector: maps a list of images [H, W] to `Detections` in pixels of these images.
      source: the data set.

    Returns:
      {name: points and scores} and {name: (height, width)}.
    """
    found, sizes = {}, {}
    for name, size, prediction, _ in _detect(detector, source):
        found[name], sizes[name] = prediction, size
    return found, sizes


def _detect(
    detector: Callable[[list[np.ndarray]], Any], source: Source
) -> Iterator[tuple[str, tuple[int, int], PointPredictions, np.ndarray | None]]:
    """Yields name, (height, width), points, and target probabilities [H, W] or None for each image."""
    for start in bar(range(0, len(source), _CHUNK), "detecting", unit=f"{_CHUNK} images"):
        examples = [source[i] for i in range(start, min(start + _CHUNK, len(source)))]
        detections = detector([example.image for example in examples])
        maps = itertools.repeat(None, len(examples)) if detections.masks is None else detections.masks
        for example, prediction, probabilities in zip(examples, from_detections(detections), maps, strict=True):
            yield example.name, example.image.shape, prediction, probabilities


def tophat_reference(source: Source) -> dict[str, float]:
    """Evaluates a white top-hat at its best threshold, as a reference that any method should exceed.

    The threshold is chosen on the same images, which favours the top-hat. Images are padded with their border pixels
    to multiples of 128, so that data sets with many image sizes compile few programs.

    Returns:
      The metrics "f1", "threshold", "precision", "recall", "fa", "tp", "fp" and "fn" at the threshold of highest F1.
    """
    predictions, truths = [], []
    for i in bar(range(len(source)), "top-hat"):
        example = source[i]
        height, width = example.image.shape
        padded = np.pad(example.image, ((0, -height % 128), (0, -width % 128)), mode="edge")
        found = from_detections(detect("tophat", padded[None], 0.0, 64))[0]
        assert found.scores is not None  # filled in by PointPredictions
        inside = (found.points[:, 0] < width) & (found.points[:, 1] < height)
        predictions.append(PointPredictions(found.points[inside], found.scores[inside]))
        truths.append(PointTruth(example.points, height, width))
    best = centroid_sweep(predictions, truths).best()
    return {name: getattr(best, name) for name in ("f1", "threshold", "precision", "recall", "fa", "tp", "fp", "fn")}


def evaluate_detector(
    detector: Detector, source: Source, folder: pathlib.Path, *, title: str, protocols: Sequence[str] = MASK_PROTOCOLS
) -> dict[str, Any]:
    """Calls `evaluate_masks` or `evaluate_points`, depending on what the detector's method predicts."""
    if find_method(detector.config.method).masks:
        return evaluate_masks(detector, source, folder, title=title, protocols=protocols)
    return evaluate_points(detector, source, folder, title=title)


def evaluate_points(
    detector: Detector, source: Source, folder: pathlib.Path, *, title: str, overlays: int = 8
) -> dict[str, Any]:
    """Evaluates a detector on a data set, prints the table, and writes the predictions and the report.

    Args:
      detector: the detector, evaluated at its configured threshold.
      source: the data set.
      folder: where predictions.json and the report are written.
      title: title of the table.
      overlays: how many of the worst images are drawn.

    Returns:
      The report, as from `irjax.evaluation.evaluate.report_points`.
    """
    check_report_folder(folder)
    threshold = detector.config.threshold
    found, sizes = detect_source(lambda images: detector(images, threshold=min(_FLOOR, threshold)), source)
    with whole_folder(folder, "irjax train") as unfinished:
        write_predictions(unfinished / "predictions.json", found, sizes)
    return report_points(
        found, source, threshold=threshold, out_dir=folder, title=title, sizes=sizes, overlays=overlays
    )


def evaluate_masks(
    detector: Detector,
    source: Source,
    folder: pathlib.Path,
    *,
    title: str,
    overlays: int = 8,
    protocols: Sequence[str] = MASK_PROTOCOLS,
) -> dict[str, Any]:
    """Evaluates a segmentation detector, its masks in one table and its points in another.

    The metrics are those of the unrounded float32 probabilities. These are kept in temporary files in `folder`, 4 bytes
    per pixel, until they are scored.

    Args:
      detector: the detector, evaluated at its configured threshold.
      source: the data set; it must have masks, and no name twice (`irjax.data.sources.told_apart`).
      folder: where the report on the masks, predictions.json, the report on the points (points/) and images of the
        masks (masks/NAME.png, `irjax.io.maps.write_map`) are written.
      title: title of the tables.
      overlays: how many of the worst images are drawn.
      protocols: protocols for the masks; metrics and intervals of the first are also at the top level of the report.

    Returns:
      The report, as from `irjax.evaluation.evaluate.report_maps`; its entry "points" is as from
      `irjax.evaluation.evaluate.report_points`.
    """
    check_report_folder(folder)
    threshold = detector.config.threshold
    found: dict[str, PointPredictions] = {}
    sizes: dict[str, tuple[int, int]] = {}
    files: dict[str, str] = {}
    with whole_folder(folder, "irjax train") as unfinished:
        maps = unfinished / "maps"
        maps.mkdir()
        for name, size, prediction, probabilities in _detect(detector, source):
            probabilities = cast("np.ndarray", probabilities)  # segmentation detectors always return masks
            file = f"{file_of(name)}.png"
            found[name], sizes[name], files[name] = prediction, size, file
            write_map(unfinished / "masks" / file, probabilities, threshold)
            (maps / file).parent.mkdir(parents=True, exist_ok=True)
            np.save(maps / f"{file}.npy", probabilities)
        write_predictions(unfinished / "predictions.json", found, sizes)
        report = report_maps(
            {name: maps / f"{file}.npy" for name, file in files.items()}, source, protocols=protocols,
            threshold=threshold, out_dir=folder, title=title, all_intervals=True, overlays=overlays,
        )  # fmt: skip
        shutil.rmtree(maps)
    points = report_points(
        found, source, threshold=threshold, out_dir=folder / "points", title=f"{title}, points", sizes=sizes, overlays=0
    )
    return {**report, "points": points}


def summary(name: str, report: dict[str, Any], detector: Detector, tophat: dict[str, float]) -> list[str]:
    """Returns the last lines printed by the command of a method; `report` is from `evaluate_detector`."""
    width, threshold = max(len(name), len("top-hat")), detector.config.threshold

    def line(protocol: str) -> str:
        values = report["protocols"][protocol]["metrics"]
        parts = [f"{metric} {values[metric]:.3f}" for metric in ("IoU", "nIoU", "Pd") if metric in values]
        false = f"Fa {values['Fa'] * 1e6:.1f}e-6"
        if "FalsePerImage" in values:
            false += f", {values['FalsePerImage']:.3f} false regions an image"
        return f"{name:{width}}  {'  '.join(parts)}  {false} ({protocol})"

    if "points" in report:  # beside the masks
        f1 = report["points"]["metrics"]["F1"]
        own = [
            *map(line, report["protocols"]),
            f"{name:{width}}  F1 {f1:.3f} of the regions' centroids, p > {threshold:g}",
        ]
    else:
        f1, best = report["metrics"]["F1"], report["best"]["f1"]
        own = [f"{name:{width}}  F1 {f1:.3f} at threshold {threshold:g}; best of the sweep {best:.3f}"]
    return [*own, f"{'top-hat':{width}}  F1 {tophat['f1']:.3f} at its best threshold, {f1 - tophat['f1']:.3f} lower"]
