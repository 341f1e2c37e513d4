"""Compares two prediction sets on the same images: `irjax compare`."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import irjax
from irjax.errors import UsageError
from irjax.evaluation.evaluate import Options, make_scorer
from irjax.evaluation.pairs import PredictionSet, holds_maps, open_predictions
from irjax.evaluation.result import LEVEL, image_row
from irjax.evaluation.scoring import score_all
from irjax.evaluation.truths import Truths, open_truths
from irjax.io.files import whole_folder, write_json, write_text
from irjax.metrics import Comparison, Evaluation, Protocol, compare
from irjax.metrics.values import COUNTED
from irjax.reports import tables

_SHOWN = 10  # images in the printed list of differences


def compare_files(
    predictions: Sequence[str | os.PathLike],
    truth: str | os.PathLike,
    *,
    split: str | None = None,
    key: str | None = None,
    logits: bool = False,
    options: Options | None = None,
    printer: Callable[[str], None] = print,
    **folder: Any,
) -> dict[str, Any]:
    """Compares two prediction sets under one protocol, prints a table and writes comparison.json and two CSV files.

    Both sets are scored on all images of the truth and resampled together (paired bootstrap), so that variation
    common to both sets cancels in the interval of the difference.

    Args:
      predictions: two folders of maps or files of points, A and B.
      truth: a folder of masks, a data set in a published layout, or a prepared data set.
      split: name of the split; None for the whole data set.
      key: name of the array in .npz and .mat files.
      logits: whether float maps are logits.
      options: how to score, with at most one protocol; the default is `irjax` if both sets are maps and the truth has
        masks, else `centroid`. comparison.json, comparison.csv and per_image.csv are written to `out_dir`.
      printer: called with the text to print.
      **folder: how the data set is read, its `layout`, `depth` and so on (`irjax.data.layouts.FolderOptions`).

    Returns:
      The content of comparison.json.

    Raises:
      MissingFileError: if there is no such file or folder.
      UserError: if there are not exactly two sets, or one cannot be scored; the message names the file. Nothing is
        written in that case.
    """
    options = options or Options()
    if len(predictions) != 2:
        raise UsageError(f"two prediction sets are compared, got {len(predictions)}")
    if len(options.protocols) > 1:
        raise UsageError(f"a comparison is under one protocol, got {len(options.protocols)}")
    sets = []
    for path in predictions:  # what is said of maps holds for maps, where the other set is of points
        maps = holds_maps(path)
        names = options.names if maps or os.fspath(path).lower().endswith(".json") else None
        scale = options.scale if maps else None
        sets.append(open_predictions(path, key=key if maps else None, logits=logits and maps, scale=scale, names=names))
    titles = [found.title for found in sets]
    if titles[0] == titles[1]:
        titles = [os.fspath(path) for path in predictions]
    truths = open_truths(truth, split, **folder)
    protocols = options.protocols
    if not protocols and not all(found.is_maps for found in sets):
        protocols = ["centroid"]
    a, b = (_score(found, truths, protocols, options) for found in sets)
    table = compare(a, b, options.samples, LEVEL, options.seed)
    rows = _images(a, b)
    report = {
        "predictions": {"A": sets[0].path, "B": sets[1].path},
        "truth": truth,
        "split": split,
        "irjax": irjax.__version__,
        "protocol": a.protocol.name,
        "rule": a.protocol.rule,
        "images": len(a.rows),
        "interval": {"method": "paired percentile bootstrap over images", "level": LEVEL, "samples": options.samples,
                     "seed": options.seed},
        "metrics": {name: vars(found) for name, found in table.items()},
        "per_image": _wins(rows, a.protocol),
        "most_different": rows[:20],
    }  # fmt: skip
    printer(_text(titles, a, table, report, rows, options))
    if options.out_dir is not None:
        _write(pathlib.Path(options.out_dir), report, rows)
        printer(f"written to {options.out_dir}")
    return report


def _write(folder: pathlib.Path, report: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    with whole_folder(folder, "irjax compare") as temporary:
        lines = [[name, *found.values()] for name, found in report["metrics"].items()]
        header = ["metric", "A", "B", "difference", "low", "high", "A_higher"]
        write_text(temporary / "comparison.csv", tables.csv_table(header, lines))
        write_text(temporary / "per_image.csv", tables.csv_table(list(rows[0]), [list(r.values()) for r in rows]))
        write_json(temporary / "comparison.json", report)


def _score(found: PredictionSet, truths: Truths, protocols: Sequence[str | Protocol], options: Options) -> Evaluation:
    rule = options.threshold_rule if found.is_maps else None
    settings = dataclasses.replace(options, protocols=protocols, threshold_rule=rule, out_dir=None, html=None)
    scores = score_all(make_scorer(found, truths, settings), processes=options.processes)
    return next(iter(scores.evaluations.values()))


def _images(a: Evaluation, b: Evaluation) -> list[dict[str, Any]]:
    """Returns one row per image, sorted by how much the sets differ: first in errors, then in IoU."""
    rows = []
    for index in range(len(a.rows)):
        pair = [image_row(evaluation, index) for evaluation in (a, b)]
        row = {"name": pair[0]["name"], "targets": pair[0]["targets"]}
        for letter, own in zip("AB", pair, strict=True):
            row |= {f"{letter}_{name}": own[name] for name in ("TP", "FP", "FN", "IoU") if name in own}
            row[f"{letter}_errors"] = own["FP"] + own["FN"]
        row["errors_difference"] = row["A_errors"] - row["B_errors"]
        if "A_IoU" in row:
            row["IoU_difference"] = row["A_IoU"] - row["B_IoU"]
        rows.append(row)

    def size(row: dict[str, Any]) -> tuple[float, float]:
        iou = row.get("IoU_difference", 0.0)
        return -abs(row["errors_difference"]), -(0.0 if math.isnan(iou) else abs(iou))

    return sorted(rows, key=size)


def _wins(rows: Sequence[dict[str, Any]], spec: Protocol) -> dict[str, dict[str, float]]:
    """Counts on how many images each set has fewer errors, and on how many it has the higher IoU."""
    found = {}
    for name, column, sign in (("fewer_errors", "errors_difference", -1), ("higher_IoU", "IoU_difference", 1)):
        if "Pd" not in spec.metrics and name == "fewer_errors":
            continue
        values = np.array([row[column] for row in rows if column in row], float) * sign
        if values.size:
            wins, losses = int((values > 0).sum()), int((values < 0).sum())
            found[name] = {"A": wins, "B": losses, "equal": int(values.size - wins - losses),
                           "sign_test_p": _sign_test(wins, losses)}  # fmt: skip
    return found


def _sign_test(wins: int, losses: int) -> float:
    """Returns the two-sided p-value of a sign test; 1 if there are neither wins nor losses."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _text(
    titles: Sequence[str],
    a: Evaluation,
    table: dict[str, Comparison],
    report: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    options: Options,
) -> str:
    spec, lines = a.protocol, []
    for name, found in table.items():
        if name == "Pd" and "Recall" in table:  # the same number under another name
            continue
        interval = None if name in COUNTED else (found.low, found.high)
        difference = tables.format_value(name, found.difference, spec, interval)
        values = [tables.format_value(name, value, spec) for value in (found.a, found.b)]
        higher = "-" if math.isnan(found.a_higher) else f"{found.a_higher:.3f}"
        lines.append([tables.label(name, spec), *values, difference, higher])
    text = [
        f"A {titles[0]}, B {titles[1]}: {len(a.rows)} images, {a.total.truths} targets; protocol {spec.name}; "
        f"{LEVEL * 100:g} % intervals of A - B by paired bootstrap over images ({options.samples} resamples, seed "
        f"{options.seed})",
        tables.plain_table(["", "A", "B", "A - B", "A higher in"], lines),
        "  A higher in: share of the resamples",
    ]
    for name, won in report["per_image"].items():
        text.append(
            f"  {name.replace('_', ' ')}: A on {won['A']} images, B on {won['B']}, equal on {won['equal']}; sign test "
            f"p = {won['sign_test_p']:.3g}"
        )
    text += [f"  known flaw of {spec.name}: {flaw}" for flaw in spec.flaws]
    different = [row for row in rows[:_SHOWN] if row["errors_difference"] or row.get("IoU_difference", 0)]
    if different:
        columns = [name for name in different[0] if not name.endswith("_difference")]
        cells = [[f"{v:.3f}" if isinstance(v, float) else v for v in map(row.get, columns)] for row in different]
        heads = [name.replace("_", " ") for name in columns]
        text += ["where they differ most:", tables.plain_table(heads, cells)]
    return "\n".join(text)
