"""Compares detectors and prediction sets on one data set under one protocol: `irjax compare`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import irjax
from irjax.detector.named import Named
from irjax.errors import UsageError
from irjax.evaluation.candidates import Candidate, Scored, gather
from irjax.evaluation.comparison_figures import draw_pictures
from irjax.evaluation.comparison_text import comparison_text, metric_table
from irjax.evaluation.evaluate import Options, make_scorer
from irjax.evaluation.result import LEVEL, image_row
from irjax.evaluation.scoring import score_all
from irjax.evaluation.truths import Truths, open_truths
from irjax.io.files import whole_folder, write_json, write_text
from irjax.metrics import Protocol, compare
from irjax.reports import tables

_COMMAND = "irjax compare"

Costs = Mapping[str, Mapping[str, Any]]
Measure = Callable[[Mapping[str, Named], np.ndarray], Costs]


def compare_files(
    predictions: Sequence[str | os.PathLike],
    truth: str | os.PathLike,
    *,
    models: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    split: str | None = None,
    key: str | None = None,
    logits: bool = False,
    options: Options | None = None,
    pictures: int = 4,
    measure: Measure | None = None,
    printer: Callable[[str], None] = print,
    **folder: Any,
) -> dict[str, Any]:
    """Compares prediction sets and detectors under one protocol, prints tables, and writes tables and pictures.

    All are scored on all images of the truth and resampled together (paired bootstrap), so that variation common to
    two of them cancels in the interval of their difference. Detectors use their own thresholds.

    Args:
      predictions: folders of maps or files of points, of any program; ``TITLE=PATH`` gives a title.
      truth: a folder of masks, a data set in a published layout, or a prepared data set; for detectors, one whose
        images are files.
      models: detectors, as `irjax.detector.named.open_named` takes them; ``TITLE=NAME`` gives a title.
      overrides: its overrides, for all of them.
      split: name of the split; None for the whole data set.
      key: name of the array in .npz and .mat files.
      logits: whether float maps are logits.
      options: how to score, with at most one protocol; the default is `irjax` if all are maps and the truth has masks,
        else `centroid`. A threshold replaces that of every detector. To `out_dir` are written comparison.json,
        table.csv, .md and .tex (a row for each), differences.csv (a row for each pair and metric), per_image.csv,
        examples.png, costs.png where costs were measured, and predictions/TITLE of every detector.
      pictures: images drawn in examples.png: those on which the most differ.
      measure: measures costs, {title: {name: value}}, of detectors on an image; see `irjax.benchmarks.costs`.
      printer: called with the text to print.
      **folder: how the data set is read, its `layout`, `depth` and so on (`irjax.data.layouts.FolderOptions`).

    Returns:
      The content of comparison.json.

    Raises:
      MissingFileError: if there is no such file or folder.
      UsageError: if there are fewer than two to compare, two of one title, or several protocols.
      UserError: if something cannot be loaded, read or scored; the message names it. Nothing is written in that case.
    """
    options = options or Options()
    if len(predictions) + len(models) < 2:
        number = len(predictions) + len(models)
        raise UsageError(f"at least two are compared, of --predictions and --models, got {number}")
    if len(options.protocols) > 1:
        raise UsageError(f"a comparison is under one protocol, got {len(options.protocols)}")
    if pictures < 0:
        raise UsageError(f"--pictures must be at least 0, got {pictures}")
    truths = open_truths(truth, split, **folder)
    with _folder(options.out_dir) as out:
        candidates = gather(
            predictions, models, out / "predictions", truth,
            split=split, key=key, logits=logits, options=options, overrides=overrides or {}, **folder,
        )  # fmt: skip
        scored = _score_all(candidates, truths, options)
        rows = _images(scored)
        named = {one.title: one.model for one in candidates if one.model is not None}
        image = truths.image(0) if measure and named else None
        costs = measure(named, image) if measure and image is not None else {}
        report = _report(scored, rows, costs, options, {"truth": truth, "split": split})
        if options.out_dir is not None:
            _write(out, report, rows, scored)
            draw_pictures(out, scored, rows, costs, pictures)
    printer(comparison_text(report, rows, scored[0].evaluation.protocol))
    if options.out_dir is not None:
        printer(f"written to {options.out_dir}")
    return report


@contextlib.contextmanager
def _folder(out_dir: str | os.PathLike | None) -> Iterator[pathlib.Path]:
    """Yields where results go: a new folder that becomes `out_dir` at the end, or a temporary one."""
    with contextlib.ExitStack() as stack:
        if out_dir is None:
            yield pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="irjax-")))
        else:
            yield stack.enter_context(whole_folder(out_dir, _COMMAND))


def _score_all(candidates: Sequence[Candidate], truths: Truths, options: Options) -> list[Scored]:
    protocols = options.protocols
    if not protocols and not all(candidate.found.is_maps for candidate in candidates):
        protocols = ["centroid"]
    return [_score(candidate, truths, protocols, options) for candidate in candidates]


def _score(candidate: Candidate, truths: Truths, protocols: Sequence[str | Protocol], options: Options) -> Scored:
    rule = options.threshold_rule if candidate.model is None and candidate.found.is_maps else None
    threshold = options.threshold if candidate.threshold is None else candidate.threshold
    settings = dataclasses.replace(
        options, protocols=protocols, threshold=threshold, threshold_rule=rule, out_dir=None, html=None
    )
    scorer = make_scorer(candidate.found, truths, settings)
    evaluation = next(iter(score_all(scorer, processes=options.processes).evaluations.values()))
    intervals = evaluation.intervals(samples=options.samples, level=LEVEL, seed=options.seed)
    return Scored(candidate, scorer, evaluation, intervals)


def _report(
    scored: Sequence[Scored],
    rows: Sequence[dict[str, Any]],
    costs: Costs,
    options: Options,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    first, resampling = scored[0].evaluation, (options.samples, LEVEL, options.seed)
    pairs = [
        {
            "a": a.candidate.title,
            "b": b.candidate.title,
            "metrics": {name: vars(found) for name, found in compare(a.evaluation, b.evaluation, *resampling).items()},
            "per_image": _wins(rows, a.candidate.title, b.candidate.title, first.protocol),
        }
        for a, b in itertools.combinations(scored, 2)
    ]
    return {
        **about,
        "irjax": irjax.__version__,
        "protocol": first.protocol.name,
        "rule": first.protocol.rule,
        "flaws": first.protocol.flaws,
        "images": len(first.rows),
        "targets": first.total.truths,
        "interval": {"method": "percentile bootstrap over images, of differences paired", "level": LEVEL,
                     "samples": options.samples, "seed": options.seed},
        "sets": {
            one.candidate.title: {
                "path": one.candidate.path,
                "kind": "maps" if one.candidate.found.is_maps else "points",
                "threshold": one.candidate.threshold,
                "metrics": one.evaluation.metrics(),
                "intervals": one.intervals,
                "costs": costs.get(one.candidate.title, {}),
            }
            for one in scored
        },
        "pairs": pairs,
        "most_different": rows[:20],
    }  # fmt: skip


def _images(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Returns one row per image, sorted by how much they differ: in misses, in how many have other errors, in IoU."""
    rows = []
    for index, name in enumerate(scored[0].evaluation.names):
        row: dict[str, Any] = {"index": index, "name": name}
        for one in scored:
            own = image_row(one.evaluation, index)
            row["targets"] = own["targets"]
            own["errors"] = own["FP"] + own["FN"]
            columns = ("TP", "FP", "FN", "errors", "IoU")
            row |= {f"{one.candidate.title}_{column}": own[column] for column in columns if column in own}
        rows.append(row)

    def difference(row: dict[str, Any]) -> tuple[float, ...]:
        values = {
            column: np.array([row.get(f"{one.candidate.title}_{column}", math.nan) for one in scored], float)
            for column in ("FN", "errors", "IoU")
        }
        known = values["IoU"][np.isfinite(values["IoU"])]
        others = sum(a != b for a, b in itertools.combinations(values["errors"], 2))
        return -np.ptp(values["FN"]), -others, -np.ptp(values["errors"]), -np.ptp(known) if known.size else 0.0

    return sorted(rows, key=difference)


def _wins(rows: Sequence[dict[str, Any]], a: str, b: str, spec: Protocol) -> dict[str, dict[str, float]]:
    """Counts on how many images each of two has fewer errors, and on how many it has the higher IoU."""
    found = {}
    for name, column, sign in (("fewer_errors", "errors", -1), ("higher_IoU", "IoU", 1)):
        if "Pd" not in spec.metrics and name == "fewer_errors":
            continue
        first, second = f"{a}_{column}", f"{b}_{column}"
        values = np.array([row[first] - row[second] for row in rows if first in row], float)
        if values.size:
            wins, losses = int((sign * values > 0).sum()), int((sign * values < 0).sum())
            found[name] = {"a": wins, "b": losses, "equal": int(values.size - wins - losses),
                           "sign_test_p": _sign_test(wins, losses)}  # fmt: skip
    return found


def _sign_test(wins: int, losses: int) -> float:
    """Returns the two-sided p-value of a sign test; 1 if there are neither wins nor losses."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _write(
    folder: pathlib.Path, report: Mapping[str, Any], rows: Sequence[dict[str, Any]], scored: Sequence[Scored]
) -> None:
    spec = scored[0].evaluation.protocol
    header, lines = metric_table(report["sets"], spec, intervals=False)
    for ending, form in (("md", tables.markdown_table), ("tex", tables.latex_table)):
        write_text(folder / f"table.{ending}", form(header, lines) + "\n")
    names = list(scored[0].evaluation.metrics())
    costs = list(dict.fromkeys(name for one in report["sets"].values() for name in one["costs"]))
    bounds = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    columns = ["title", "threshold", *bounds, *costs]
    cells = []
    for title, one in report["sets"].items():
        values = [value for name in names for value in (one["metrics"][name], *one["intervals"].get(name, ("", "")))]
        cells.append([title, one["threshold"], *values, *(one["costs"].get(name, "") for name in costs)])
    write_text(folder / "table.csv", tables.csv_table(columns, cells))
    differences = [[pair["a"], pair["b"], name, *found.values()]
                   for pair in report["pairs"] for name, found in pair["metrics"].items()]  # fmt: skip
    header = ["a", "b", "metric", "value_a", "value_b", "difference", "low", "high", "a_higher"]
    write_text(folder / "differences.csv", tables.csv_table(header, differences))
    images = [{name: value for name, value in row.items() if name != "index"} for row in rows]
    write_text(folder / "per_image.csv", tables.csv_table(list(images[0]), [list(row.values()) for row in images]))
    write_json(folder / "comparison.json", report)
