"""Output of a study of the scale losses: table, curves and figure, for `irjax analyse scale-loss`."""

from __future__ import annotations

import dataclasses
import math
import os
import textwrap
from collections.abc import Sequence

from irjax.io.files import whole_folder, write_json, write_text
from irjax.losses.scale import VARIANTS
from irjax.reports.tables import csv_table, plain_table
from irjax.studies.scale_loss import AREAS, CASES, COLUMNS, NOTE, SMALL, Study, area_text, study_scale_loss
from irjax.studies.scale_loss_figure import plot_scale_loss


def _short(value: float, scale: float = 1.0) -> str:
    """Formats a value with three digits; values no larger than the distance to a limit become 0."""
    return "0" if abs(value) < 10 * SMALL * scale else f"{value:.3g}"


def scale_loss_table(study: Study) -> str:
    """Formats the properties as text: a table for each case."""
    g, lines = study.true_area, []
    header = ["weight", "|dL/da| a < g", "|dL/da| a > g", "min w", "w 0", "w g-", "w g+", "dL/da 0", "g-", "g+",
              "min L", "rewarded"]  # fmt: skip
    for case in CASES:
        body = []
        for row in study.table:
            if row.case != case:
                continue
            open_end = row.best_area >= 0.999 * AREAS[1] * g  # the loss still falls where the curves end
            best = "-" if math.isnan(row.best_area) else f"{'>' * open_end}{area_text(row.best_area)}"
            body.append([
                row.variant, row.below, row.above,
                ", ".join(map(area_text, row.weight_minima)) or "-",
                *(_short(value) for value in row.weights),
                *(_short(value, 1 / g) for value in row.gradients),
                best,
                ", ".join(f"{area_text(low)}-{area_text(high)}" for low, high in row.rewarded) or "-",
            ])  # fmt: skip
        lines += [study.setup(case), "", plain_table(header, body), ""]
    low, high = (factor * g for factor in AREAS)
    lines += [
        f"|dL/da|: whether it is monotonic in |a - g| for a from {area_text(low)} to {area_text(high)} px, and falls "
        "or rises with it, or where it turns.",
        "min w, min L: areas in px at which the weight has a minimum, the loss is smallest. w and dL/da (1/px): limits "
        "for a -> 0 and a -> g.",
        "rewarded: predicted areas in px for which a pixel outside the target lowers the loss, w' / w > 1 / U.",
        textwrap.fill(NOTE, 120),
    ]
    return "\n".join(lines)


def curves_csv(study: Study) -> str:
    """Formats every curve as CSV: case, variant, area_px, iou, weight, loss and the gradients in 1/px."""
    rows = []
    for (case, variant), curve in study.curves.items():
        fields = (curve.area, curve.iou, curve.weight, curve.loss, curve.gradient, curve.background)
        rows += [(case, variant, *(f"{value:.9g}" for value in values)) for values in zip(*fields, strict=True)]
    return csv_table(("case", "variant", *COLUMNS), rows)


def analyse_scale_loss(
    out: str | os.PathLike,
    *,
    true_area: float = 36.0,
    shift: float = 2.0,
    variants: Sequence[str] = VARIANTS,
    axis: str = "log",
) -> Study:
    """Studies the scale losses, prints the table, and writes the figure, the curves and the table.

    Args:
      out: folder; receives scale_loss.png, .svg, .csv and .json, all of them or none.
      true_area: see `study_scale_loss`.
      shift: see `study_scale_loss`.
      variants: see `study_scale_loss`.
      axis: see `plot_scale_loss`.

    Returns:
      The study.

    Raises:
      UserError: see `study_scale_loss` and `plot_scale_loss`.
    """
    study = study_scale_loss(true_area, shift=shift, variants=variants)
    low, high = (factor * study.true_area for factor in AREAS)
    with whole_folder(out, "irjax analyse scale-loss") as folder:
        plot_scale_loss([folder / "scale_loss.png", folder / "scale_loss.svg"], study, axis=axis)
        write_text(folder / "scale_loss.csv", curves_csv(study))
        content = {
            "true_area_px": study.true_area,
            "shift_px": study.shift,
            "areas_px": [low, high],
            "units": "areas in px, gradients in 1/px",
            "limits": "weights and gradients for a -> 0, and for a -> true area from below and from above",
            "note": NOTE,
            "table": [dataclasses.asdict(row) for row in study.table],
        }
        write_json(folder / "scale_loss.json", content)
    print(scale_loss_table(study))
    print(f"written to {os.fspath(out)}: scale_loss.png, .svg, .csv, .json")
    return study
