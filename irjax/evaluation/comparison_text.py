"""The results of a comparison as text and as the rows of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from irjax.metrics import Protocol
from irjax.metrics.values import COUNTED
from irjax.reports import tables

_MAIN = ("IoU", "nIoU", "F1", "Pd", "Fa")  # metrics in the tables for readers; the others are in the files
_SHOWN = 10  # images in the printed list
# What costs are called, their unit, and how they are shown.
COSTS: Mapping[str, tuple[str, float, str]] = {
    "parameters": ("parameters (M)", 1e-6, "{:.3f}"),
    "multiply_adds": ("GMAC", 1e-9, "{:.2f}"),
    "latency": ("ms", 1e3, "{:.1f}"),
    "memory": ("MB", 1e-6, "{:.0f}"),
}


def main_metrics(spec: Protocol) -> list[str]:
    """Returns the metrics of a protocol that the tables for readers have."""
    return [name for name in _MAIN if name in spec.metrics]


def metric_table(
    sets: Mapping[str, Mapping[str, Any]], spec: Protocol, *, intervals: bool
) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of a table with one row for each candidate: metrics, then costs where there are any.

    Args:
      sets: {title: entry}, as in comparison.json.
      spec: the protocol.
      intervals: whether metrics have their intervals.
    """
    names = main_metrics(spec)
    costs = [name for name in COSTS if any(one["costs"].get(name) is not None for one in sets.values())]
    rows = []
    for title, one in sets.items():
        cells = [
            tables.format_value(name, one["metrics"][name], spec, one["intervals"].get(name) if intervals else None)
            for name in names
        ]
        for name in costs:
            value, (_, scale, form) = one["costs"].get(name), COSTS[name]
            cells.append("-" if value is None else form.format(value * scale))
        rows.append([title, *cells])
    return ["", *(tables.label(name, spec) for name in names), *(COSTS[name][0] for name in costs)], rows


def comparison_text(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], spec: Protocol) -> str:
    """Formats a comparison for a terminal: the metrics of each, the differences from the first, where they differ most.

    Args:
      report: the content of comparison.json.
      rows: the rows of per_image.csv.
      spec: the protocol.
    """
    titles, how = list(report["sets"]), report["interval"]
    text = [
        f"{report['images']} images, {report['targets']} targets; protocol {spec.name}; {how['level'] * 100:g} % "
        f"intervals by bootstrap over images ({how['samples']} resamples, seed {how['seed']})",
        tables.plain_table(*metric_table(report["sets"], spec, intervals=True)),
        f"{titles[0]} minus each other, paired: the same resamples",
        tables.plain_table(*_difference_table(report, spec)),
    ]
    if len(titles) > 2:
        text.append("  p: sign tests over images, corrected for their number (Holm)")
    else:
        text.append("  p: sign test over images")
    text += [f"  known flaw of {spec.name}: {flaw}" for flaw in report["flaws"]]
    different = [row for row in rows[:_SHOWN] if _differ(row, titles)]
    if different:
        cells = [[row["name"], row["targets"], *(_errors(row, title) for title in titles)] for row in different]
        text += ["where they differ most, missed + false:", tables.plain_table(["image", "targets", *titles], cells)]
    return "\n".join(text)


def _errors(row: Mapping[str, Any], title: str) -> str:
    iou = row.get(f"{title}_IoU", math.nan)
    return f"{row[f'{title}_FN']} + {row[f'{title}_FP']}" + ("" if math.isnan(iou) else f", IoU {iou:.3f}")


def _differ(row: Mapping[str, Any], titles: Sequence[str]) -> bool:
    parts = ("errors", "IoU")
    return any(len({row[f"{title}_{part}"] for title in titles if f"{title}_{part}" in row}) > 1 for part in parts)


def _difference_table(report: Mapping[str, Any], spec: Protocol) -> tuple[list[str], list[list[str]]]:
    """Returns the rows of the first candidate's differences from each other one."""
    names, first = main_metrics(spec), next(iter(report["sets"]))
    pairs = [pair for pair in report["pairs"] if pair["a"] == first]
    tests = list(pairs[0]["per_image"])
    corrected = {name: holm([pair["per_image"][name]["sign_test_p"] for pair in pairs]) for name in tests}
    rows = []
    for number, pair in enumerate(pairs):
        cells = []
        for name in names:
            found = pair["metrics"][name]
            interval = None if name in COUNTED else (found["low"], found["high"])
            cells.append(tables.format_value(name, found["difference"], spec, interval))
        for name in tests:
            won = pair["per_image"][name]
            cells.append(f"{won['a']} : {won['b']}, p = {corrected[name][number]:.2g}")
        rows.append([pair["b"], *cells])
    return ["", *(tables.label(name, spec) for name in names), *(name.replace("_", " ") for name in tests)], rows


def holm(values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, highest = [math.nan] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected
