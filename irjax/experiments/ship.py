"""Shipped weights: the selected checkpoint, evaluated as stored, with a card that states how it was made."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from irjax.data.licences import OWN_LICENCE_TEXT, licence_text
from irjax.detector.detector import Detector
from irjax.detector.loading import load, resolve
from irjax.detector.weights import load_weights, on_disk, save_weights
from irjax.errors import UserError
from irjax.evaluation.detectors import evaluate_detector
from irjax.io.files import read_json
from irjax.methods.registry import find_method
from irjax.training.checkpoints import Checkpoints
from irjax.types import Source

ROUNDING_IMAGES = 32


def chosen(run: pathlib.Path) -> tuple[Detector, dict[str, Any]]:
    """Returns the detector of a run and {"step", "validation"} of its selected checkpoint.

    "validation" is None if none was validated; the checkpoint is then the newest.
    """
    with contextlib.closing(Checkpoints(run, read_only=True)) as checkpoints:
        step = checkpoints.best_step()
        facts = {"step": step, "validation": checkpoints.metrics(step) or None}
    return load(run), facts


def settled(detector: Detector, facts: dict[str, Any]) -> tuple[Detector, dict[str, Any]]:
    """Scales the scores of a heatmap network so that the threshold best on validation is the configured one.

    With several data sets, that is the mean of their best thresholds.

    The last layer of a heatmap network is linear, so a factor on its weights is a factor on every score; the order of
    the scores does not change.

    Args:
      detector: detector whose network ends in a convolution called ``head``.
      facts: the facts from `chosen`.

    Returns:
      The detector, and the facts with "score_factor". If no checkpoint was validated, both are unchanged.
    """
    if facts["validation"] is None:
        return detector, facts
    factor = detector.config.threshold / facts["validation"]["best_threshold"]
    params = dict(detector.variables["params"])
    params["head"] = {name: value * factor for name, value in params["head"].items()}
    scaled = dataclasses.replace(detector, variables={**detector.variables, "params": params})
    return scaled, {**facts, "score_factor": factor}


def largest_difference(one: Detector, other: Detector, source: Source) -> float:
    """Returns the largest difference of the probabilities of two segmentation detectors.

    It is measured on at most `ROUNDING_IMAGES` images.
    """
    count = min(ROUNDING_IMAGES, len(source))
    images = [source[round(i * (len(source) - 1) / max(count - 1, 1))].image for i in range(count)]
    first, second = one(images).masks, other(images).masks
    assert first is not None and second is not None
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def _stages(start: str | None) -> list[dict[str, Any]]:
    """Returns the configs of the trainings that led to some initial weights, earliest first, if they can be read."""
    try:
        path = resolve(start) if start else None
    except UserError:  # moved or removed since; the config that started from it has its name
        return []
    if path and path.suffix == ".safetensors":
        return load_weights(path)[2]["recipe"].get("stages", [])
    if path and (path / "config.json").is_file():
        config = read_json(path / "config.json")["config"]
        return [*_stages(config.get("initial")), config]
    return []


def card(run: pathlib.Path, facts: dict[str, Any], figures: dict[str, Any] | str, command: str) -> dict[str, Any]:
    """Builds the card of a run's weights (`irjax.detector.weights.CARD_FIELDS`).

    Args:
      run: the run directory.
      facts: the facts from `chosen` or `settled`.
      figures: validation figures by split, or the reason why there are none.
      command: the command that wrote the weights.
    """
    record = read_json(run / "config.json")
    stages = [*_stages(record["config"].get("initial")), record["config"]]
    roots = record["config"]["data"]["root"]
    names = [pathlib.Path(root).name for root in roots]
    for stage in stages:  # names of the sets, not their paths on the machine that trained
        stage["data"]["root"] = [pathlib.Path(root).name for root in stage["data"]["root"]]
        stage["initial"] = _without_places(stage.get("initial", ""))
        stage["data"].pop("scenes", None)  # used by synthetic data only
    return {
        "data": {"sets": names, **record["data"]},
        "licence": f"{OWN_LICENCE_TEXT} Licences of the images: {licence_text(roots)}.",
        "recipe": {"stages": stages, "versions": record["versions"], **facts},
        "seed": record["config"]["loop"]["seed"],
        "command": _without_places(command),
        "validation": figures,
    }


def _without_places(command: str) -> str:
    """Replaces the absolute paths among the words of a command by their last two parts."""
    short = lambda word: "/".join(pathlib.PurePath(word).parts[-2:]) if os.path.isabs(word) else word  # noqa: E731
    return " ".join(map(short, command.split(" ")))


def figures_of(
    detector: Detector, tests: Mapping[str, Source], run: pathlib.Path, protocols: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns images, metrics and intervals of a detector on each test.

    Metrics of all protocols except the first are named `NAME (PROTOCOL)`.
    """
    figures = {}
    for what, source in tests.items():
        folder = run / f"test-{what.replace(' ', '-')}"
        report = evaluate_detector(detector, source, folder, title=what, protocols=protocols)
        figures[what] = {name: dict(report[name]) for name in ("metrics", "intervals")} | {"images": report["images"]}
        for protocol, part in list(report.get("protocols", {}).items())[1:]:
            for name in ("metrics", "intervals"):
                figures[what][name] |= {f"{metric} ({protocol})": value for metric, value in part[name].items()}
    return figures


def ship(
    run: pathlib.Path,
    tests: Mapping[str, Source],
    path: str | pathlib.Path,
    *,
    protocols: Sequence[str],
    command: str,
) -> pathlib.Path:
    """Writes a run's weights with a card that states how they were made and their figures.

    Args:
      run: the run directory.
      tests: {data set and split: images} for the figures; if empty, the card says that they were not measured.
      path: the .safetensors file; float16 for methods that predict masks, float32 for others.
      protocols: mask protocols of the evaluation.
      command: the command line, for the card.

    Returns:
      The path.
    """
    detector, facts = chosen(run)
    masks = find_method(detector.config.method).masks
    if not masks:
        detector, facts = settled(detector, facts)
    dtype = "float16" if masks else "float32"
    # The figures are measured with the weights as they are stored.
    stored = on_disk(detector.variables, dtype)
    written = dataclasses.replace(detector, variables=jax.tree.map(lambda x: x.astype(np.float32), stored))
    figures = figures_of(written, tests, run, protocols)
    if tests and dtype != "float32":
        rounding = max(largest_difference(detector, written, source) for source in tests.values())
        facts = {**facts, "rounding": rounding}
        print(
            f"{dtype} on disk changes probabilities by {rounding:.1g} at most, "
            f"on up to {ROUNDING_IMAGES} images of each split"
        )
    about = card(run, facts, figures or "not measured where they were trained", command)
    return save_weights(path, detector.variables, detector.config, about, dtype=dtype)
