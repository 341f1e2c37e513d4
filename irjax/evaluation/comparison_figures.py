"""The pictures of a comparison: accuracy against cost, and the same images by every method."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from irjax.evaluation.candidates import Scored
from irjax.evaluation.comparison_text import main_metrics
from irjax.reports.comparison import Example, Shown, draw_examples, plot_costs


def draw_pictures(
    folder: pathlib.Path,
    scored: Sequence[Scored],
    rows: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, Any]],
    number: int,
) -> None:
    """Draws costs.png, if there are costs, and examples.png, if there are images: those with targets, in their order.

    Raises:
      UserError: if an image cannot be read.
    """
    spec = scored[0].evaluation.protocol
    metric = main_metrics(spec)[0]
    values = {one.candidate.title: one.evaluation.metrics()[metric] for one in scored}
    shown = {title: costs[title] for title in values if costs.get(title, {}).get("latency") is not None}
    if shown:
        plot_costs(folder / "costs.png", metric, {title: values[title] for title in shown}, shown)
    images = scored[0].scorer.reader.truths
    chosen = [row["index"] for row in rows if row["targets"]][:number]
    if chosen and images.image(chosen[0]) is not None:
        draw_examples(folder / "examples.png", [_example(scored, index) for index in chosen])


def _example(scored: Sequence[Scored], index: int) -> Example:
    views = [one.scorer.view(index) for one in scored]
    shown = {}
    for one, view in zip(scored, views, strict=True):
        response = view.response
        if response is None and (model := one.candidate.model) is not None:
            response = model.respond(view.image).values
        shown[one.candidate.title] = Shown(view.points, response, view.predicted)
    # Where only some are maps, others' views may have no mask: any will do.
    mask = next((view.mask for view in views if view.mask is not None), None)
    first, spec = views[0], scored[0].evaluation.protocol
    name = scored[0].evaluation.names[index]
    return Example(name, first.image, first.truth.points, mask, shown, spec.limit, spec.inclusive)
