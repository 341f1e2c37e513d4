"""Ablations: trains every variant with every seed and writes tables of the results."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irjax.errors import UserError
from irjax.io.files import json_values, read_json, write_json, write_text
from irjax.reports.tables import markdown_table
from irjax.training.configs import differences, replace_parts

Figures = Mapping[str, Mapping[str, Any]]
Change = Callable[[Any], Any]  # maps a base config to a variant of it


def change(**parts: Any) -> Change:
    """Returns a function that changes some fields of a config: ``change(model={"width": 16})``."""
    return lambda base: replace_parts(base, **parts)


def ablate(
    variants: Mapping[str, Any],
    seeds: Sequence[int],
    run_one: Callable[[Any, pathlib.Path], Figures],
    folder: pathlib.Path,
    columns: Sequence[str],
    titles: Sequence[str] = ("validation",),
) -> str:
    """Trains every variant with every seed and tabulates mean and standard deviation over the seeds.

    A finished run is kept in its own directory and not repeated, so an interrupted ablation continues under the same
    flags. A finished run that was not measured on all requested sets of images is measured again.

    Args:
      variants: {name: config with a `loop.seed`}.
      seeds: at least one. With one seed the tables show the intervals of its figures instead of a deviation.
      run_one: trains a config in a directory and returns, for each set of images that it was measured on, ``{title:
        {"metrics": {name: value}, "intervals": {name: (low, high)}}}``; intervals may be absent.
      folder: folder for the runs, ablation.json and ablation.md.
      columns: metrics in the tables; a table shows those that its set of images has.
      titles: sets of images to tabulate; `run_one` returns these, and may return others.

    Returns:
      A table for each title, as Markdown.

    Raises:
      UserError: if the folder holds the result of another config.
    """
    results = {
        name: [
            _result(folder / f"{name.replace(' ', '_')}-seed{seed}", config, seed, run_one, titles) for seed in seeds
        ]
        for name, config in variants.items()
    }
    tables, values = [], {}
    for title in titles:
        parts = {name: [result[title] for result in several] for name, several in results.items()}
        shown = [c for c in columns if c in next(iter(parts.values()))[0]["metrics"]]
        rows = [[name, *(_cell(several, column) for column in shown)] for name, several in parts.items()]
        tables.append(f"{title}\n\n{markdown_table(['variant', *shown], rows)}")
        values[title] = {name: {c: _summary(several, c) for c in shown} for name, several in parts.items()}
    text = "\n\n".join(tables)
    write_json(folder / "ablation.json", {"seeds": list(seeds), "variants": values})
    write_text(folder / "ablation.md", text + "\n")
    return text


def _result(
    run: pathlib.Path,
    config: Any,
    seed: int,
    run_one: Callable[[Any, pathlib.Path], Figures],
    titles: Sequence[str],
) -> Figures:
    file = run / "result.json"
    config = replace_parts(config, loop={"seed": seed})
    done = read_json(file) if file.exists() else None
    if done and (other := differences(done["config"], config)):
        raise UserError(
            f"{file} is of another config ({'; '.join(other[:4])}): give the same flags to go on, or another --run"
        )
    if not done or not set(titles) <= set(done["figures"]):
        done = {"config": json_values(dataclasses.asdict(config)), "figures": json_values(run_one(config, run))}
        write_json(file, done)
    return done["figures"]


def _values(results: Sequence[Mapping[str, Any]], metric: str) -> np.ndarray:
    found = [result["metrics"][metric] for result in results]
    return np.array([np.nan if value is None else value for value in found], float)


def _summary(results: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    values = _values(results, metric)
    intervals = [result.get("intervals", {}).get(metric) for result in results]
    return {"mean": values.mean(), "std": values.std(ddof=1) if len(values) > 1 else None, "intervals": intervals}


def _cell(results: Sequence[Mapping[str, Any]], metric: str) -> str:
    about = _summary(results, metric)
    if about["std"] is not None:
        return f"{about['mean']:.4g} ± {about['std']:.3g}"
    interval = about["intervals"][0]
    return f"{about['mean']:.4g}" + (f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else "")
