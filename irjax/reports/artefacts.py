"""What is said about a scored prediction set, and the files that are written of it."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from irjax.data.layouts import some
from irjax.metrics import Protocol
from irjax.metrics.evaluation import Evaluation
from irjax.reports import tables
from irjax.reports.curves import plot_precision_recall, plot_roc, plot_threshold_curves
from irjax.reports.files import whole_folder, write_json, write_text
from irjax.reports.names import safe_name
from irjax.reports.overlays import draw_overlay
from irjax.reports.scoring import Scorer, Scores

LEVEL = 0.95  # of the bootstrap intervals


@dataclasses.dataclass(frozen=True)
class Result:
    """A scored prediction set.

    Attributes:
      scorer: what was scored and how.
      scores: the numbers.
      intervals: {protocol: {metric: (low, high)}}.
      samples: bootstrap resamples.
      seed: of the bootstrap.
    """

    scorer: Scorer
    scores: Scores
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]
    samples: int
    seed: int

    @property
    def is_maps(self) -> bool:
        """Whether the predictions are maps."""
        return self.scorer.predictions.is_maps

    def threshold_of(self, spec: Protocol) -> float | None:
        """The threshold in effect under a protocol; None where all points count."""
        if self.scorer.threshold is not None:
            return self.scorer.threshold
        return spec.threshold if self.is_maps else None

    def criterion(self, spec: Protocol) -> str:
        """What counts as predicted, in words."""
        level = self.threshold_of(spec)
        if level is None:
            return "all detections"
        return f"p > {level:g}" if self.is_maps else f"score >= {level:g}"

    def heading(self) -> str:
        """One line over the table."""
        total, first = self.scores.reference.total, next(iter(self.scores.evaluations.values())).protocol
        return (
            f"{self.scorer.predictions.title}: {total.images} images, {total.truths} targets; {self.criterion(first)}; "
            f"{LEVEL * 100:g} % bootstrap intervals over images ({self.samples} resamples, seed {self.seed})"
        )

    def rules(self) -> list[str]:
        """How each protocol counts, one line each."""
        return [f"{name}: {self._rule(evaluation.protocol)}" for name, evaluation in self.scores.evaluations.items()]

    def _rule(self, spec: Protocol) -> str:
        parts = [spec.summary, f"matching {spec.rule}"] if "Pd" in spec.metrics else [spec.summary]
        if self.scorer.threshold is not None:
            parts.append(self.criterion(spec))
        if spec.canvas != "native":
            how = "padded" if spec.canvas == "pad" else "resized"
            parts.append(f"{how} to {spec.canvas_size}x{spec.canvas_size}")
        return "; ".join(parts)

    def flaws(self) -> dict[str, list[str]]:
        """{known flaw: the protocols that have it}."""
        found: dict[str, list[str]] = {}
        for name, evaluation in self.scores.evaluations.items():
            for flaw in evaluation.protocol.flaws:
                found.setdefault(flaw, []).append(name)
        return found

    def readings(self) -> list[str]:
        """How files were read, and what was left out or counted as missed."""
        scores, pairs = self.scores, self.scorer.reader.pairs
        lines = []
        for rule, names in self._mask_rules().items():
            of = "" if len(names) == len(scores.evaluations) else f" ({', '.join(names)})"
            lines.append(f"truth masks{of}: {rule}")
        if scores.map_rule is not None:
            lines.append(f"maps: {scores.map_rule}")
        if scores.resized:
            sizes = sorted({f"{height}x{width}" for height, width in scores.resized.values()})
            lines.append(
                f"{len(scores.resized)} maps of another size ({some(sizes, 3)}) were resized to the truth's, bilinearly"
            )
        for text, names in (
            ("images without a prediction (their targets count as missed)", pairs.missing),
            ("predictions left out, of no image of the data set", pairs.unknown),
        ):
            if names:
                lines.append(f"{len(names)} {text}: {some(names)}")
        if scores.outside:
            names = some(scores.outside)
            lines.append(f"{len(scores.outside)} images with points outside of them (x and y swapped?): {names}")
        return lines

    def _mask_rules(self) -> dict[str, list[str]]:
        """{how many masks were read by which rule: the protocols that did}."""
        found: dict[str, list[str]] = {}
        for name, evaluation in self.scores.evaluations.items():
            rules = {"two levels" if rule == "as it is" else rule: n for rule, n in evaluation.mask_rules.items()}
            text = "; ".join(f"{number} {rule}" for rule, number in sorted(rules.items())) or "none, annotated points"
            found.setdefault(text, []).append(name)
        return found

    def notes(self) -> list[str]:
        """What stands under the table."""
        lines = [f"  {line}" for line in (*self.rules(), *self.readings())]
        lines += [f"  known flaw of {', '.join(names)}: {flaw}" for flaw, names in self.flaws().items()]
        if self.scores.grid is not None:
            best, auc = self.scores.grid.best(), self.auc
            pixel = "" if np.isnan(auc) else f"; pixel ROC AUC {auc:.4f}"
            lines.append(
                f"  curves ({self.scores.reference.protocol.name}): AP {self.scores.curve.average_precision:.4f}, "
                f"best F1 of {len(self.scores.grid)} thresholds {best.f1:.4f} at {best.threshold:g}{pixel}"
            )
        return lines

    @property
    def auc(self) -> float:
        """Area under the pixel ROC; nan without maps."""
        return float("nan") if self.scores.histogram is None else self.scores.histogram.auc()

    def curves(self) -> dict[str, Any]:
        """The threshold curves for the JSON; empty where none were made."""
        grid = self.scores.grid
        if grid is None:
            return {"protocol": self.scores.reference.protocol.name}
        return {
            "protocol": self.scores.reference.protocol.name,
            "average_precision": grid.average_precision,
            "pixel_auc": self.auc,
            "best": dataclasses.asdict(grid.best()),
            "sweep": [dataclasses.asdict(grid.at(index)) for index in range(len(grid))],
        }

    @functools.cached_property
    def order(self) -> list[int]:
        """Indices of the images, most errors first."""
        return self.scores.reference.worst_first()


def image_row(evaluation: Evaluation, index: int) -> dict[str, Any]:
    """The errors of one image: TP, FP, FN, and for maps also pixels and IoU (nan where both are empty)."""
    row = evaluation.rows[index]
    found = {
        "name": evaluation.names[index],
        "targets": row.truths,
        "detections": row.predictions,
        "TP": row.matched,
        "FP": row.predictions - row.matched,
        "FN": row.truths - row.matched,
    }
    if evaluation.protocol.needs_maps:
        union = row.pixel_tp + row.pixel_fp + row.pixel_fn
        found |= {
            "IoU": row.pixel_tp / union if union else float("nan"),
            "pixel_FP": row.pixel_fp,
            "pixel_FN": row.pixel_fn,
            "false_region_pixels": row.false_region_pixels,
        }
    return found | {"pixels": row.pixels}


def worst_rows(result: Result, number: int) -> list[dict[str, Any]]:
    """The images with errors, at most `number`, most errors first; each with its "index"."""
    rows = []
    for index in result.order[:number]:
        row = image_row(result.scores.reference, index)
        if row["FP"] + row["FN"] + row.get("pixel_FP", 0) + row.get("pixel_FN", 0):
            rows.append({"index": index, **row})
    return rows


def write_report(folder: pathlib.Path, result: Result, report: dict[str, Any], *, overlays: int) -> None:
    """Writes the files of a report, all or none, and puts their paths into ``report["files"]``.

    Args:
      folder: where; made if absent.
      result: the scored set.
      report: the content of evaluation.json.
      overlays: how many of the worst images are drawn.

    Raises:
      OSError: if it cannot be written.
    """
    with whole_folder(folder) as temporary:
        _write_tables(temporary, result)
        _plot(temporary, result)
        drawn = _draw(temporary, result, overlays)
        names = [path.name for path in sorted(temporary.iterdir()) if path.is_file()]
        report["files"] |= {name: folder / name for name in (*names, "evaluation.json")}
        report["files"]["overlays"] = [folder / "overlays" / path.name for path in drawn]
        write_json(temporary / "evaluation.json", report)


def _write_tables(folder: pathlib.Path, result: Result) -> None:
    scores, lines = result.scores, []
    for name, evaluation in scores.evaluations.items():
        for metric, value in evaluation.metrics().items():
            lines.append([name, metric, value, *result.intervals[name].get(metric, (float("nan"),) * 2)])
    write_text(folder / "evaluation.csv", tables.csv_table(["protocol", "metric", "value", "low", "high"], lines))

    rows = [image_row(scores.reference, index) for index in result.order]
    write_text(folder / "per_image.csv", tables.csv_table(list(rows[0]), [list(row.values()) for row in rows]))

    curve = scores.curve
    points = [curve.at(index) for index in range(len(curve))]
    header = ["threshold", "TP", "FP", "FN", "precision", "recall", "f1", "fa"]
    lines = [[p.threshold, p.tp, p.fp, p.fn, p.precision, p.recall, p.f1, p.fa] for p in points]
    write_text(folder / "pr.csv", tables.csv_table(header, lines))

    lines = [["target", p.threshold, p.fa, p.recall] for p in points]
    if scores.histogram is not None:
        false, true = (rates[::-1] for rates in scores.histogram.roc())
        # From the lowest threshold up: everything is above none, nothing above the last.
        levels = [float("nan"), *scores.histogram.thresholds, float("nan")]
        lines += [["pixel", *line] for line in zip(levels, false.tolist(), true.tolist(), strict=True)]
    header = ["level", "threshold", "false_alarm_rate", "detection_rate"]
    write_text(folder / "roc.csv", tables.csv_table(header, lines))


def _plot(folder: pathlib.Path, result: Result) -> None:
    scores, label = result.scores, result.scores.reference.protocol.name
    threshold = result.threshold_of(scores.reference.protocol)
    used = None if threshold is None else {label: threshold}
    plot_precision_recall(folder / "precision_recall.png", {label: scores.curve}, thresholds=used)
    plot_threshold_curves(folder / "thresholds.png", scores.grid, threshold=threshold)
    plot_roc(folder / "roc.png", label, scores.curve, scores.histogram)


def _draw(folder: pathlib.Path, result: Result, number: int) -> list[pathlib.Path]:
    paths, spec = [], result.scores.reference.protocol
    for row in worst_rows(result, number):
        view = result.scorer.view(row["index"])
        path = folder / "overlays" / f"{len(paths) + 1:02d}_{safe_name(row['name'])}.png"
        title = f"{row['name']}: {row['TP']} found, {row['FN']} missed, {row['FP']} false ({spec.name})"
        draw_overlay(
            path, view.image, view.points, view.truth.points, limit=spec.limit, inclusive=spec.inclusive, title=title
        )
        paths.append(path)
    return paths
