"""Texts, tables and report files of a scored prediction set."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import irjax
from irjax.bars import bar
from irjax.evaluation.scoring import Scorer, Scores
from irjax.io.files import check_replaceable, whole_folder, write_json, write_text
from irjax.io.maps import ROUNDING
from irjax.io.names import flat, name_list
from irjax.metrics import Protocol
from irjax.metrics.clutter import summary
from irjax.metrics.curves import Sweep
from irjax.metrics.evaluation import Evaluation
from irjax.reports import tables
from irjax.reports.curves import plot_precision_recall, plot_roc, plot_threshold_curves
from irjax.reports.html import CASES, ROWS, Page
from irjax.reports.overlays import draw_overlay

LEVEL = 0.95  # confidence level of the bootstrap intervals


@dataclasses.dataclass(frozen=True)
class ScoredSet:
    """A scored prediction set.

    Attributes:
      scorer: what was scored and how.
      scores: the numbers.
      intervals: bootstrap intervals, {protocol: {metric: (low, high)}}.
      samples: number of bootstrap resamples.
      seed: seed of the bootstrap.
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
        """Returns the threshold in effect under a protocol; None if all points count, or each map has its own."""
        if self.scorer.deviations is not None:
            return None
        if self.scorer.threshold is not None:
            return self.scorer.threshold
        return spec.threshold if self.is_maps else None

    def criterion(self, spec: Protocol) -> str:
        """Describes which pixels or points count as predicted."""
        if self.scorer.deviations is not None:
            return f"p > mean + {self.scorer.deviations:g} standard deviations of each map"
        level = self.threshold_of(spec)
        if level is None:
            return "all detections"
        return f"p > {level:g}" if self.is_maps else f"score >= {level:g}"

    def heading(self) -> str:
        """Returns the line above the table."""
        total, first = self.scores.reference.total, next(iter(self.scores.evaluations.values())).protocol
        return (
            f"{self.scorer.predictions.title}: {total.images} images, {total.truths} targets; {self.criterion(first)}; "
            f"{LEVEL * 100:g} % bootstrap intervals over images ({self.samples} resamples, seed {self.seed})"
        )

    def rules(self) -> list[str]:
        """Describes how each protocol counts, one line per protocol."""
        return [f"{name}: {self._rule(evaluation.protocol)}" for name, evaluation in self.scores.evaluations.items()]

    def _rule(self, spec: Protocol) -> str:
        parts = [spec.summary, f"matching {spec.rule}"] if "Pd" in spec.metrics else [spec.summary]
        if self.scorer.threshold is not None or self.scorer.deviations is not None:
            parts.append(self.criterion(spec))
        if spec.canvas != "native":
            how = "padded" if spec.canvas == "pad" else "resized"
            parts.append(f"{how} to {spec.canvas_size}x{spec.canvas_size}")
        return "; ".join(parts)

    def flaws(self) -> dict[str, list[str]]:
        """Returns {known flaw: names of the protocols that have it}."""
        found: dict[str, list[str]] = {}
        for name, evaluation in self.scores.evaluations.items():
            for flaw in evaluation.protocol.flaws:
                found.setdefault(flaw, []).append(name)
        return found

    def readings(self) -> list[str]:
        """Describes how files were read, and what was ignored or counted as missed."""
        scores, pairs = self.scores, self.scorer.reader.pairs
        lines = []
        for rule, protocols in self._mask_rules().items():
            of = "" if len(protocols) == len(scores.evaluations) else f" ({', '.join(protocols)})"
            lines.append(f"truth masks{of}: {rule}")
        if scores.map_rule is not None:
            lines.append(f"maps: {scores.map_rule}")
        lines += [f"predictions: {note}" for note in self.scorer.predictions.notes]
        if scores.clipped:
            lines.append(
                f"{len(scores.clipped)} maps with values outside of [0, 1] by at most {ROUNDING:g} were clipped: "
                f"{name_list(scores.clipped)}"
            )
        if scores.at_canvas and self.scorer.stored is not None:
            side = self.scorer.stored.stored
            lines.append(
                f"{scores.at_canvas} maps of {side}x{side}, the canvas of {', '.join(self._at_canvas())}, were taken "
                "as they are, and the truth was resized to them by nearest neighbour"
            )
        if scores.cropped:
            sizes = sorted({f"{height}x{width}" for height, width in scores.cropped.values()})
            where = "top left corner" if self.scorer.reader.crop == "corner" else "centre"
            lines.append(
                f"{len(scores.cropped)} maps of another size ({name_list(sizes, 3)}) were cropped to the image in "
                f"their {where}"
            )
        if scores.resized:
            sizes = sorted({f"{height}x{width}" for height, width in scores.resized.values()})
            lines.append(
                f"{len(scores.resized)} maps of another size ({name_list(sizes, 3)}) were resized to the truth's, "
                "bilinearly"
            )
        for text, names in (
            ("images without a prediction (their targets count as missed)", pairs.missing),
            ("predictions left out, of no image of the data set", pairs.unknown),
        ):
            if names:
                lines.append(f"{len(names)} {text}: {name_list(names)}")
        if scores.outside:
            listed = name_list(scores.outside)
            lines.append(f"{len(scores.outside)} images with points outside of them (x and y swapped?): {listed}")
        return lines

    def _at_canvas(self) -> list[str]:
        """Returns the names of the protocols that were given maps at the size of a canvas."""
        specs = [evaluation.protocol for evaluation in self.scores.evaluations.values()]
        return [spec.name for spec in specs if self.scorer.reader_of(spec) is self.scorer.stored]

    def _mask_rules(self) -> dict[str, list[str]]:
        """Returns {counts of masks by reading rule, as text: names of the protocols with these counts}."""
        found: dict[str, list[str]] = {}
        for name, evaluation in self.scores.evaluations.items():
            rules = {"two levels" if rule == "as it is" else rule: n for rule, n in evaluation.mask_rules.items()}
            text = "; ".join(f"{number} {rule}" for rule, number in sorted(rules.items())) or "none, annotated points"
            found.setdefault(text, []).append(name)
        return found

    def notes(self) -> list[str]:
        """Returns the lines below the table."""
        lines = [f"  {line}" for line in (*self.rules(), *self.readings())]
        lines += [f"  known flaw of {', '.join(names)}: {flaw}" for flaw, names in self.flaws().items()]
        grid, curve = self.scores.grid, self.scores.curve
        if grid is not None and curve is not None:
            best, auc = grid.best(), self.auc
            pixel = "" if np.isnan(auc) else f"; pixel ROC AUC {auc:.4f}"
            lines.append(
                f"  curves ({self.scores.reference.protocol.name}): AP {curve.average_precision:.4f}, "
                f"best F1 of {len(grid)} thresholds {best.f1:.4f} at {best.threshold:g}{pixel}"
            )
        for figure, name in (("scr_gain", "signal-to-clutter-ratio gain"), ("bsf", "background suppression factor")):
            if (found := self.clutter().get(figure)) is not None:
                rest = [f"{found[kind]} {kind}" for kind in ("infinite", "undefined") if found[kind]]
                lines.append(
                    f"  {name}: median of {found['targets']} targets {found['median']:.4g}, mean of the finite "
                    f"{found['mean']:.4g}{', ' * bool(rest)}{', '.join(rest)}"
                )
        return lines

    @property
    def auc(self) -> float:
        """Area under the ROC curve of pixels; nan for points and without curves."""
        return float("nan") if self.scores.histogram is None else self.scores.histogram.auc()

    def clutter(self) -> dict[str, dict[str, float | int]]:
        """Summaries (`irjax.metrics.clutter.summary`) of "scr_gain" and "bsf"; empty where they were not computed."""
        rows = self.scores.clutter
        if rows is None:
            return {}
        return {
            figure: {
                "targets": len(rows),
                "margin": self.scorer.clutter_margin,
                **summary([getattr(row, figure) for _, row in rows]),
            }
            for figure in ("scr_gain", "bsf")
        }

    def curves(self) -> dict[str, Any]:
        """Returns the threshold curves for the JSON report; only the protocol's name if none were made."""
        grid = self.scores.grid
        if grid is None:
            return {"protocol": self.scores.reference.protocol.name}
        return {
            "protocol": self.scores.reference.protocol.name,
            "average_precision": grid.average_precision,
            "pixel_auc": self.auc,
            "best": dataclasses.asdict(grid.best()),
            **self.clutter(),
            "sweep": [dataclasses.asdict(grid.at(index)) for index in range(len(grid))],
        }

    @functools.cached_property
    def order(self) -> list[int]:
        """Indices of the images, those with the most errors first."""
        return self.scores.reference.worst_first()


def _sweeps(scores: Scores) -> tuple[Sweep, Sweep]:
    """Returns the sweep over all scores and the one over the threshold grid, which exist whenever a report is made."""
    assert scores.curve is not None and scores.grid is not None
    return scores.curve, scores.grid


def page_of(result: ScoredSet) -> Page:
    """Returns the content of the report page for a scored set with curves; images are read when the page is built."""
    scores, predictions = result.scores, result.scorer.predictions
    curve, grid = _sweeps(scores)
    total = scores.reference.total
    kind = "maps" if result.is_maps else "points"
    facts = [
        ("Predictions", f"{predictions.path or predictions.title} ({kind})"),
        ("Images", f"{total.images}, with {total.truths} targets on {total.pixels:,} pixels"),
        *(("Protocol", rule) for rule in result.rules()),
        *((line.partition(":")[0].capitalize(), line.partition(":")[2].strip()) for line in result.readings()),
    ]
    worst = [(row.pop("index"), row) for row in worst_rows(result, CASES)]
    first = [index for index in result.order if scores.reference.rows[index].truths][:3]
    return Page(
        title=predictions.title,
        program=f"irjax {irjax.__version__}",
        facts=facts,
        evaluations=scores.evaluations,
        reference=scores.reference,
        intervals=result.intervals,
        level=LEVEL,
        samples=result.samples,
        seed=result.seed,
        flaws=result.flaws(),
        is_maps=result.is_maps,
        threshold=result.threshold_of(scores.reference.protocol),
        curve=curve,
        grid=grid,
        histogram=scores.histogram,
        rows=[image_row(scores.reference, index) for index in result.order[:ROWS]],
        cases=worst or [(index, image_row(scores.reference, index)) for index in first],
        errors=bool(worst),
        view=result.scorer.view,
    )


def image_row(evaluation: Evaluation, index: int) -> dict[str, Any]:
    """Returns the errors of one image: TP, FP, FN, and for maps also pixels and IoU (nan if both masks are empty)."""
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


def worst_rows(result: ScoredSet, number: int) -> list[dict[str, Any]]:
    """Returns rows of at most `number` images with errors, most errors first; each row has the image's "index"."""
    rows = []
    for index in result.order[:number]:
        row = image_row(result.scores.reference, index)
        if row["FP"] + row["FN"] + row.get("pixel_FP", 0) + row.get("pixel_FN", 0):
            rows.append({"index": index, **row})
    return rows


_COMMAND = "irjax evaluate"
_ENTRIES = (
    *("evaluation.json", "evaluation.csv", "per_image.csv", "clutter.csv", "pr.csv", "roc.csv"),
    *("precision_recall.png", "thresholds.png", "roc.png", "overlays"),
)


def check_report_folder(folder: pathlib.Path) -> None:
    """Refuses a folder that `write_report` would refuse, before anything is computed; its errors."""
    check_replaceable(folder, _COMMAND, _ENTRIES)


def write_report(folder: pathlib.Path, result: ScoredSet, report: dict[str, Any], *, overlays: int) -> None:
    """Writes the files of a report, all or none, and stores their paths in ``report["files"]``.

    Args:
      folder: the output folder; it is created if it does not exist.
      result: the scored set, with curves.
      report: the content of evaluation.json.
      overlays: how many of the worst images are drawn.

    Raises:
      FileError: if a file cannot be written.
      UserError: if the folder holds files in the way that no earlier evaluation wrote.
    """
    with whole_folder(folder, _COMMAND, entries=_ENTRIES) as temporary:
        _write_tables(temporary, result)
        _plot(temporary, result)
        drawn = _draw(temporary, result, overlays)
        names = [path.name for path in sorted(temporary.iterdir()) if path.is_file()]
        report["files"] |= {name: folder / name for name in (*names, "evaluation.json")}
        report["files"]["overlays"] = [folder / "overlays" / path.name for path in drawn]
        write_json(temporary / "evaluation.json", report)


def _write_tables(folder: pathlib.Path, result: ScoredSet) -> None:
    scores, lines = result.scores, []
    curve, _ = _sweeps(scores)
    for name, evaluation in scores.evaluations.items():
        for metric, value in evaluation.metrics().items():
            lines.append([name, metric, value, *result.intervals[name].get(metric, (float("nan"),) * 2)])
    write_text(folder / "evaluation.csv", tables.csv_table(["protocol", "metric", "value", "low", "high"], lines))

    rows = [image_row(scores.reference, index) for index in result.order]
    write_text(folder / "per_image.csv", tables.csv_table(list(rows[0]), [list(row.values()) for row in rows]))

    if scores.clutter is not None:
        lines = [[name, *dataclasses.astuple(row)] for name, row in scores.clutter]
        header = ["name", "x", "y", "scr_in", "scr_out", "scr_gain", "bsf"]
        write_text(folder / "clutter.csv", tables.csv_table(header, lines))

    points = [curve.at(index) for index in range(len(curve))]
    header = ["threshold", "TP", "FP", "FN", "precision", "recall", "f1", "fa"]
    lines = [[p.threshold, p.tp, p.fp, p.fn, p.precision, p.recall, p.f1, p.fa] for p in points]
    write_text(folder / "pr.csv", tables.csv_table(header, lines))

    lines = [["target", p.threshold, p.fa, p.recall] for p in points]
    if scores.histogram is not None:
        assert scores.histogram.thresholds is not None
        false, true = (rates[::-1] for rates in scores.histogram.roc())
        # In increasing order of the threshold. The ends of the ROC, everything and nothing predicted, have none.
        levels = [float("nan"), *scores.histogram.thresholds, float("nan")]
        lines += [["pixel", *line] for line in zip(levels, false.tolist(), true.tolist(), strict=True)]
    header = ["level", "threshold", "false_alarm_rate", "detection_rate"]
    write_text(folder / "roc.csv", tables.csv_table(header, lines))


def _plot(folder: pathlib.Path, result: ScoredSet) -> None:
    scores, label = result.scores, result.scores.reference.protocol.name
    curve, grid = _sweeps(scores)
    threshold = result.threshold_of(scores.reference.protocol)
    used = None if threshold is None else {label: threshold}
    plot_precision_recall(folder / "precision_recall.png", {label: curve}, thresholds=used)
    plot_threshold_curves(folder / "thresholds.png", grid, threshold=threshold)
    plot_roc(folder / "roc.png", label, curve, scores.histogram, threshold=threshold)


def _draw(folder: pathlib.Path, result: ScoredSet, number: int) -> list[pathlib.Path]:
    paths: list[pathlib.Path] = []
    spec = result.scores.reference.protocol
    for row in bar(worst_rows(result, number), "drawing"):
        view = result.scorer.view(row["index"])
        path = folder / "overlays" / f"{len(paths) + 1:02d}_{flat(row['name'])}.png"
        title = f"{row['name']}: {row['TP']} found, {row['FN']} missed, {row['FP']} false ({spec.name})"
        draw_overlay(
            path, view.image, view.points, view.truth.points, limit=spec.limit, inclusive=spec.inclusive, title=title
        )
        paths.append(path)
    return paths
