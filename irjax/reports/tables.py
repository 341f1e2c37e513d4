"""Tables as plain text, Markdown, LaTeX and CSV, and readable formatting of numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from irjax.metrics.evaluation import Evaluation
from irjax.metrics.protocols import Protocol
from irjax.metrics.values import COUNTED

Interval = tuple[float, float]


def format_value(name: str, value: float, spec: Protocol, interval: Interval | None = None) -> str:
    """Formats a metric: counts as integers, Fa in the protocol's unit, others with four decimals; "-" for nan.

    Args:
      name: name of the metric.
      value: value of the metric, as returned by `irjax.metrics.evaluate`.
      spec: the protocol.
      interval: (low, high), appended in brackets.
    """
    if name in COUNTED:
        return str(int(value))
    scale, digits = (1 / spec.fa_unit, 2) if name == "Fa" else (1.0, 4)

    def text(number: float) -> str:
        return "-" if math.isnan(number) else f"{number * scale:.{digits}f}"

    if interval is None:
        return text(value)
    return f"{text(value)} [{text(interval[0])}, {text(interval[1])}]"


def label(name: str, spec: Protocol) -> str:
    """Returns the metric's name with its unit, such as "Fa (1e-6 false pixels per pixel)"."""
    if name == "Fa":
        what = "points" if spec.false_alarm == "count" else "pixels"
        per = "background pixel" if spec.false_alarm_per == "background" else "pixel"
        return f"Fa (1e{round(math.log10(spec.fa_unit))} false {what} per {per})"
    return name


def metric_rows(
    evaluations: Mapping[str, Evaluation], intervals: Mapping[str, Mapping[str, Interval]] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of a table with one row per metric and one column per evaluation.

    Recall and Pd are the same number: if a protocol has both, their common row is called "Recall (Pd)".

    Args:
      evaluations: {column title: evaluation}, in the order of the columns.
      intervals: {column title: {metric: (low, high)}}, appended to the values where given, except for counts.

    Returns:
      The header and the rows, all of the same length.
    """
    labels: dict[str, dict[str, str]] = {}
    both = any({"Recall", "Pd"} <= set(evaluation.protocol.metrics) for evaluation in evaluations.values())
    for title, evaluation in evaluations.items():
        spec = evaluation.protocol
        for name, value in evaluation.metrics().items():
            row = "Recall (Pd)" if both and name in ("Recall", "Pd") else label(name, spec)
            interval = None if name in COUNTED else (intervals or {}).get(title, {}).get(name)
            labels.setdefault(row, {})[title] = format_value(name, value, spec, interval)
    header = ["", *evaluations]
    return header, [[row, *(cells.get(title, "") for title in evaluations)] for row, cells in labels.items()]


def plain_table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Formats a table for a terminal: first column left-aligned, others right-aligned, no final newline."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        return "  ".join(
            [first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()

    return "\n".join([line(cells[0]), "  ".join("-" * width for width in widths), *map(line, cells[1:])])


def markdown_table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Formats a Markdown table: first column left-aligned, others right-aligned, no final newline."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))


_LATEX = str.maketrans({**{char: f"\\{char}" for char in "&%$#_{}"}, "\\": r"\textbackslash{}",
                        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})  # fmt: skip


def latex_table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Formats a LaTeX table, for the package booktabs; alignment as in `markdown_table`, no final newline."""
    lines = [" & ".join(str(cell).translate(_LATEX) for cell in row) + r" \\" for row in (header, *rows)]
    columns = "l" + "r" * (len(header) - 1)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", end])


def csv_table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Formats comma-separated values with a header line; nan becomes an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    return out.getvalue()
