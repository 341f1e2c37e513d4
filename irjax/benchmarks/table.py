"""The results of `irjax.benchmarks` as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irjax.reports.tables import plain_table


def detector_text(report: Mapping[str, Any]) -> str:
    """Formats the report of `benchmark` as tables for a terminal."""
    lines = [
        f"{report['model']}, {_circumstances(report)}",
        f"parameters {report['parameters']:,}",
    ]
    first = report["runs"][0]
    flops = first["compiler_flops"]
    counted = "" if flops is None else f"; the compiler counts {flops / 2e9:.3f} G for what it runs"
    what = f"at {first['size']}x{first['size']}, batch {first['batch']}"
    lines.append(f"multiply-adds {first['multiply_adds'] / 1e9:.3f} G {what}{counted}")
    share = sorted(first["layers"].items(), key=lambda item: -item[1])
    lines.append("  " + ", ".join(f"{name} {number / first['multiply_adds']:.1%}" for name, number in share if number))

    header = ["inference", "size", "batch", "median ms", "quartiles", "images/s", "x floor", "x torch"]
    rows = []
    for run in report["runs"]:
        for name in run:
            if isinstance(run[name], Mapping) and "over_floor" in run[name]:
                over = run[name]["median"] / run["torch"]["median"] if "torch" in run else None
                shape = [run["size"], run["batch"]]
                rows.append([name, *shape, *_cells(run[name]), f"{run[name]['over_floor']:.2f}", _times(over)])
        rows.append(["floor", run["size"], run["batch"], f"{1e3 * run['floor']:.2f}",
                     f"{run['peak_rate'] / 1e9:.0f} GMAC/s", "", "1.00", ""])  # fmt: skip
    lines += ["", plain_table(header, rows)]
    if "training" in report:
        header = ["training step", "size", "batch", "median ms", "quartiles", "images/s", "data wait", "x torch"]
        rows = []
        for run in report["training"]:
            for name in run:
                if name in ("device_cache", "host_feed") or name.startswith("torch"):
                    over = run[name]["median"] / run["torch"]["median"] if "torch" in run else None
                    wait = run[name].get("data_wait")
                    shown = "" if wait is None else f"{wait:.1%}"
                    rows.append([name, run["size"], run["batch"], *_cells(run[name]), shown, _times(over)])
        lines += ["", plain_table(header, rows), f"traces: {report['training'][0]['traces']}"]
    return "\n".join(lines)


def sparse_text(report: Mapping[str, Any]) -> str:
    """Formats the report of `benchmark_sparse` as a table for a terminal."""
    forms = [name for name, value in report["runs"][0].items() if isinstance(value, Mapping)]
    header = ["size", "batch", "what", *(f"{form} ms" for form in forms), "time x", "multiply-adds x"]
    rows = [
        [run["size"], run["batch"], run["what"], *(f"{1e3 * run[form]['median']:.1f}" for form in forms)]
        + [f"{run['ratio']:.2f}", f"{run['least_ratio']:.2f}"]
        for run in report["runs"]
    ]
    what = "x: gather_sparse over nothing_dropped; multiply-adds are the least that its time could be"
    return f"adsnet, {_circumstances(report)}\n\n{plain_table(header, rows)}\n{what}"


def selection_text(report: Mapping[str, Any]) -> str:
    """Formats the report of `benchmark_selection` as a table for a terminal."""
    header = ["what", "size", "batch", "K", "median ms", "x all", "G multiply-adds", "x all", "memory MB", "x all"]
    rows = []
    for run in report["runs"]:
        dense = run["forms"]["all"]
        for number, form in run["forms"].items():
            over = [_times(form[name] / dense[name] if dense[name] else None) for name in dense]
            cells = [f"{1e3 * form['median']:.1f}", f"{form['multiply_adds'] / 1e9:.3f}"]
            memory = "" if form["memory"] is None else f"{form['memory'] / 1e6:.0f}"
            values = zip([*cells, memory], over, strict=True)
            rows.append([run["what"], run["size"], run["batch"], number, *(cell for pair in values for cell in pair)])
    return f"na_irstd, {_circumstances(report)}\n\n{plain_table(header, rows)}"


def _circumstances(report: Mapping[str, Any]) -> str:
    load = "" if report["load"] is None else f", load {report['load']:.2f}"
    return f"{report['dtype']}, {report['device']}, {report['processors']} processors{load}"


def _cells(times: Mapping[str, Any]) -> list[str]:
    low, high = times["quartiles"]
    return [f"{1e3 * times['median']:.2f}", f"{1e3 * low:.2f}-{1e3 * high:.2f}", f"{times['images_per_second']:.1f}"]


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
