"""Scores predictions of any program against a data set and writes a report: `irjax evaluate`.

`evaluate_files` implements the command. `evaluate_point_file` and `report_points` do the same for points only, from a
file and from memory; `report_maps` does it for map files whose images are known. These three functions also put the
first protocol's numbers at the top level of the report.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import irjax
from irjax.errors import UsageError, UserError
from irjax.evaluation.pairs import PairReader, PredictionSet, open_predictions, pair
from irjax.evaluation.result import LEVEL, ScoredSet, check_report_folder, page_of, worst_rows, write_report
from irjax.evaluation.scoring import (
    THRESHOLDS,
    Scorer,
    canvas_reference,
    check_protocols,
    deviations_of,
    reference_protocol,
    score_all,
    stored_side,
)
from irjax.evaluation.truths import Truths, as_truths, open_truths
from irjax.io.files import write_text
from irjax.io.maps import MapFiles
from irjax.metrics import Protocol
from irjax.metrics.clutter import MARGIN
from irjax.metrics.inputs import PointPredictions
from irjax.metrics.protocols import as_stored
from irjax.reports import tables
from irjax.reports.html import page
from irjax.types import Source


@dataclasses.dataclass(frozen=True)
class Options:
    """How predictions are scored and what is written.

    Attributes:
      protocols: names or `Protocol` records; if empty, `irjax` for maps scored on masks, else `centroid`.
      threshold: replaces the protocols' threshold on maps (p > threshold) and drops points with a lower score; None
        keeps the protocols' threshold and all points.
      thresholds: thresholds of the curves, in increasing order.
      threshold_rule: "adaptive:K" replaces the threshold on maps by mean + K standard deviations of each map, as
        classical programs set it; None for none.
      scale: how raw responses become values in [0, 1]: "max", "minmax" or "255" (`irjax.io.maps.SCALES`).
      names: file with the names of the maps of one array, one a line; or the COCO file with the images of the ids in a
        list of results.
      resize: whether maps of another size are resized to the size of the truth; their aspect must be the same.
      crop: "corner" or "centre", where the image lies in maps that a program padded; the padding is removed.
      canvas: "pad" or "resize", for protocols that do not score at native size; None keeps the protocol's setting.
      canvas_size: side of that canvas in pixels; None keeps the protocol's setting.
      allow_missing: whether unpaired names are accepted: predictions without an image are ignored, and all targets of
        an image without a prediction count as missed.
      out_dir: folder of the report; None writes no report.
      html: path of the HTML page; None writes no page.
      overlays: how many of the worst images are drawn.
      clutter_margin: width in pixels of a target's background in signal-to-clutter ratios (`irjax.metrics.clutter`).
      all_intervals: whether the table shows bootstrap intervals for every protocol or only for the first.
      samples: number of bootstrap resamples.
      seed: seed of the bootstrap.
      processes: number of processes that read and score; None uses all processors for large sets of maps, else one.
    """

    protocols: Sequence[str | Protocol] = ()
    threshold: float | None = None
    threshold_rule: str | None = None
    scale: str | None = None
    names: str | os.PathLike | None = None
    thresholds: Sequence[float] = THRESHOLDS
    resize: bool = False
    crop: str | None = None
    canvas: str | None = None
    canvas_size: int | None = None
    allow_missing: bool = False
    out_dir: str | os.PathLike | None = None
    html: str | os.PathLike | None = None
    overlays: int = 8
    clutter_margin: int = MARGIN
    all_intervals: bool = False
    samples: int = 1000
    seed: int = 0
    processes: int | None = None

    def __post_init__(self):
        if self.overlays < 0:
            raise UsageError(f"overlays must not be negative, got {self.overlays}")
        if self.clutter_margin < 1:
            raise UsageError(f"the margin of a target's background must be at least 1, got {self.clutter_margin}")
        if self.seed < 0:
            raise UsageError(f"the seed must not be negative, got {self.seed}")
        if self.crop not in (None, "corner", "centre"):
            raise UsageError(f"crop must be corner or centre, got {self.crop!r}")
        if deviations_of(self.threshold_rule) is not None and self.threshold is not None:
            raise UsageError("a threshold and a threshold rule exclude each other")


def evaluate_files(
    predictions: str | os.PathLike,
    truth: str | os.PathLike | Source,
    *,
    split: str | None = None,
    key: str | None = None,
    logits: bool = False,
    options: Options | None = None,
    printer: Callable[[str], None] = print,
    **folder: Any,
) -> dict[str, Any]:
    """Scores a folder of maps or a file of points, prints a table with a column per protocol, and writes the report.

    Args:
      predictions: a folder of maps or one array of them (`irjax.io.maps`), or points (`irjax.io.predictions`).
      truth: a folder of masks, a data set in a published layout, a prepared data set, or an open source.
      split: name of the split; None for the whole data set.
      key: name of the array in .npz and .mat files.
      logits: whether float maps are logits.
      options: how to score and what to write.
      printer: called with the text to print.
      **folder: how the data set is read, its `layout`, `depth` and so on (`irjax.data.layouts.FolderOptions`).

    Returns:
      The content of evaluation.json; "files" holds the paths of what was written.

    Raises:
      MissingFileError: if there is no such file or folder.
      UserError: if something cannot be read or scored; the message names it. Nothing is written in that case.
    """
    options = options or Options()
    found = open_predictions(predictions, key=key, logits=logits, scale=options.scale, names=options.names)
    if isinstance(truth, str | os.PathLike):
        truths = open_truths(truth, split, **folder)
        about = {"truth": truth, "split": split}
    else:
        truths, about = (
            as_truths(truth),
            {"truth": getattr(truth, "root", None), "split": getattr(truth, "split", None)},
        )
    return _report(found, truths, options, printer, {"predictions": found.path, **about})


def evaluate_point_file(
    predictions_file: str | os.PathLike,
    source: Source,
    *,
    protocol: str | Protocol = "centroid",
    printer: Callable[[str], None] = print,
    **options: Any,
) -> dict[str, Any]:
    """Scores a COCO-keypoint prediction file against the points of a data set.

    Args:
      predictions_file: the JSON file, written by any program.
      source: the data set; names are matched with or without folder, file extension and mask suffix.
      protocol: a protocol that scores points.
      printer: called with the text to print.
      **options: fields of `Options`.

    Returns:
      The report, as from `evaluate_files`, with the protocol's numbers also at the top level.

    Raises:
      MissingFileError: if there is no such file.
      UserError: see `evaluate_files`.
    """
    settings = Options(protocols=[protocol], **options)
    report = evaluate_files(predictions_file, source, options=settings, printer=printer)
    return _flat(report)


def report_points(
    predictions: Mapping[str, PointPredictions],
    source: Source,
    *,
    protocol: str | Protocol = "centroid",
    printer: Callable[[str], None] = print,
    title: str = "predictions",
    sizes: Mapping[str, tuple[int, int]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Scores point predictions held in memory against a data set, prints a table, and writes the report.

    Args:
      predictions: {image name: points and scores}; all targets of an image without an entry count as missed.
      source: the data set.
      protocol: a protocol that scores points.
      printer: called with the text to print.
      title: name of the predictions in the report.
      sizes: {image name: (height, width)} that the predictions were made for; checked against the data set.
      **options: fields of `Options`.

    Returns:
      The report, as from `evaluate_files`, with the protocol's numbers also at the top level.

    Raises:
      UserError: see `evaluate_files`.
    """
    found = PredictionSet(title, dict(predictions), sizes or {}, complete=False)
    settings = Options(protocols=[protocol], **options)
    return _flat(_report(found, as_truths(source), settings, printer, {}))


def report_maps(
    maps: Mapping[str, str | os.PathLike],
    source: Source,
    *,
    printer: Callable[[str], None] = print,
    title: str = "predictions",
    **options: Any,
) -> dict[str, Any]:
    """Scores map files whose images are known by name, prints a table, and writes the report.

    Args:
      maps: {image name: map file} (`irjax.io.maps`), all in one folder.
      source: the data set; it must have masks.
      printer: called with the text to print.
      title: name of the predictions in the report.
      **options: fields of `Options`.

    Returns:
      The report, as from `evaluate_files`, with the first protocol's numbers also at the top level.

    Raises:
      UserError: see `evaluate_files`; also if there are no maps.
    """
    if not maps:
        raise UserError(f"{title}: there are no maps")
    folder = pathlib.Path(next(iter(maps.values()))).parent
    settings = Options(**options)
    items = MapFiles(str(folder), tuple(map(str, maps.values())), images=tuple(maps), scale=settings.scale)
    found = PredictionSet(title, items, path=folder)
    return _flat(_report(found, as_truths(source), settings, printer, {}))


def make_scorer(found: PredictionSet, truths: Truths, options: Options) -> Scorer:
    """Builds the scorer, after all checks that need no map to be read.

    Raises:
      UserError: if names cannot be paired, or a protocol cannot score this kind of predictions or truth.
    """
    pairs = pair(found, truths.names, allow_missing=options.allow_missing)
    masks = isinstance(truths.read(0), np.ndarray)
    specs = check_protocols(
        options.protocols, maps=found.is_maps, masks=masks, canvas=options.canvas, canvas_size=options.canvas_size
    )
    deviations = deviations_of(options.threshold_rule)
    if deviations is not None and not found.is_maps:
        raise UserError(f"{found.where}: a threshold rule is for maps, and these are points")
    if deviations is not None and isinstance(found.items, MapFiles) and found.items.logits:
        raise UsageError("a threshold rule is for responses, not for logits")
    # Padded maps are not what a program has on its canvas, to which it resizes whole images.
    side = stored_side(found, truths, pairs, specs) if options.crop is None else None
    if side is not None:
        specs = tuple(as_stored(spec, side) or spec for spec in specs)
    reference = reference_protocol(specs, maps=found.is_maps, masks=masks)
    if side is not None and not options.resize:
        reference = canvas_reference(side)
    levels = set(options.thresholds) if options.out_dir is not None or options.html is not None else set()
    if levels and found.is_maps and deviations is None:  # so that the curves contain the threshold in use
        levels.add(reference.threshold if options.threshold is None else options.threshold)
    reader = PairReader(found, truths, pairs, resize=options.resize, crop=options.crop)
    stored = None if side is None else PairReader(found, truths, pairs, stored=side)
    return Scorer(
        reader, specs, reference, options.threshold, tuple(sorted(levels)), deviations, stored, options.clutter_margin
    )


def _report(
    found: PredictionSet, truths: Truths, options: Options, printer: Callable[[str], None], about: Mapping[str, Any]
) -> dict[str, Any]:
    if options.out_dir is not None:
        check_report_folder(pathlib.Path(options.out_dir))
    scorer = make_scorer(found, truths, options)
    scores = score_all(scorer, processes=options.processes)
    intervals = {
        name: evaluation.intervals(samples=options.samples, level=LEVEL, seed=options.seed)
        for name, evaluation in scores.evaluations.items()
    }
    result = ScoredSet(scorer, scores, intervals, options.samples, options.seed)
    report = _content(result, about)
    shown = intervals if options.all_intervals else {first: intervals[first] for first in list(intervals)[:1]}
    header, rows = tables.metric_rows(scores.evaluations, shown)
    printer("\n".join([result.heading(), tables.plain_table(header, rows), *result.notes()]))
    # The page is built before anything is written, so that an error leaves no partial report.
    text = None if options.html is None else page(page_of(result))
    if options.out_dir is not None:
        folder = pathlib.Path(options.out_dir)
        write_report(folder, result, report, overlays=options.overlays)
        printer(f"written to {folder}")
    if text is not None and options.html is not None:
        write_text(options.html, text)
        report["files"]["html"] = pathlib.Path(options.html)
        printer(f"written: {options.html}")
    return report


def _content(result: ScoredSet, about: Mapping[str, Any]) -> dict[str, Any]:
    scorer, scores = result.scorer, result.scores
    columns = {}
    for name, evaluation in scores.evaluations.items():
        spec = evaluation.protocol
        columns[name] = {
            "summary": spec.summary,
            "rule": spec.rule,
            "canvas": spec.canvas,
            "canvas_size": spec.canvas_size,
            "threshold": result.threshold_of(spec),
            "criterion": result.criterion(spec),
            "metrics": evaluation.metrics(),
            "intervals": result.intervals[name],
            "flaws": spec.flaws,
            "mask_rules": evaluation.mask_rules,
        }
    return {
        "title": scorer.predictions.title,
        **about,
        "kind": "maps" if scorer.predictions.is_maps else "points",
        "images": len(scorer.names),
        "irjax": irjax.__version__,
        "protocols": columns,
        "intervals": {"method": "percentile bootstrap over images", "level": LEVEL, "samples": result.samples,
                      "seed": result.seed},
        "map_rule": scores.map_rule,
        "resized": {name: {"height": size[0], "width": size[1]} for name, size in scores.resized.items()},
        "cropped": {name: {"height": size[0], "width": size[1]} for name, size in scores.cropped.items()},
        "clipped": list(scores.clipped),
        "notes": list(scorer.predictions.notes),
        "images_without_prediction": list(scorer.reader.pairs.missing),
        "unknown_predictions": list(scorer.reader.pairs.unknown),
        "curves": result.curves(),
        "worst": worst_rows(result, 20),
        "files": {},
    }  # fmt: skip


def _flat(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the report with the first protocol's numbers at the top level."""
    name, column = next(iter(report["protocols"].items()))
    return {**report, **report["curves"], **column, "protocol": name}
