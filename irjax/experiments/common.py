"""What the experiments of all methods do alike: train, detect over a data set, report, compare with top-hat."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from irjax.baselines import detect
from irjax.data.augment import augment
from irjax.data.licences import licence_text
from irjax.data.sources import DRAWN, open_source
from irjax.errors import UserError
from irjax.inference import CONFIG_FILE, Detector, DetectorConfig, load, resolve
from irjax.metrics import PointPredictions, PointTruth, centroid_sweep, from_detections
from irjax.ops.normalize import normalize, to_unit
from irjax.reports.evaluate import report_maps, report_points
from irjax.reports.files import read_json, whole_folder, write_text
from irjax.reports.names import safe_name
from irjax.reports.predict import write_map
from irjax.reports.predictions import write_predictions
from irjax.training.checkpoints import Checkpoints
from irjax.training.data import DataConfig
from irjax.training.loop import Result, fit
from irjax.training.masks import score_masks
from irjax.training.steps import Method
from irjax.types import Batch, Example, Source
from irjax.weights import load_weights

MASK_PROTOCOLS = ("irjax", "basicirstd", "adsnet")
ROUNDING_IMAGES = 32
_CHUNK = 32  # images in memory at a time
_FLOOR = 0.05  # lowest score that a curve needs


@dataclasses.dataclass(frozen=True)
class MaskDecodeConfig:
    """How the probabilities of a method that predicts masks become targets.

    Attributes:
      threshold: a pixel is a target where p is above it; the checkpoint is chosen at it.
      max_detections: most targets an image can have.
    """

    threshold: float = 0.5
    max_detections: int = 32


def train(
    config: Any,
    run: pathlib.Path,
    *,
    method_for: Callable[[Any, str | None], Method],
    detector_config: Callable[[Any], DetectorConfig],
    with_masks: bool = False,
) -> Result:
    """Trains or resumes a run, and leaves a directory that `irjax.load` takes.

    Args:
      config: everything the run depends on, with `initial`, `data`, `optimizer`, `loop` and `model.channels`.
      run: its directory.
      method_for: the method for a config and the name of a device axis, or None.
      detector_config: how the weights of a config are to be used.
      with_masks: whether the method needs target masks.

    Returns:
      As `irjax.training.loop.fit`.
    """

    def leave_detector() -> None:
        write_text(run / CONFIG_FILE, detector_config(config).to_json() + "\n")
        _leave_lists(config.data, run)

    return fit(
        functools.partial(method_for, config),
        config=config,
        data=config.data,
        optimizer=config.optimizer,
        loop=config.loop,
        run=run,
        initial=load(config.initial).variables if config.initial else None,
        with_masks=with_masks,
        input_channels=config.model.channels,
        on_start=leave_detector,
    )


def _leave_lists(data: DataConfig, run: pathlib.Path) -> None:
    """Writes RUN/splits/DATASET-SPLIT.txt, one name a line, of all splits of a draw that the run takes part in."""
    for number, root in enumerate(map(pathlib.Path, data.root)):
        alike = [one for one in data.root if pathlib.Path(one).name == root.name]
        label = root.name if len(alike) == 1 else f"{number}-{root.name}"
        for split in DRAWN if {*data.train, *data.val} & {*DRAWN} else ():
            names = open_source(root, split, data.layout, seed=data.split_seed, shares=data.draw).names
            write_text(run / "splits" / f"{label}-{split}.txt", "\n".join(names) + "\n")


def detector_config(method: str, config: Any, options: Sequence[str]) -> DetectorConfig:
    """How a run's weights are to be used.

    Args:
      method: name in `irjax.models.registry`.
      config: of the experiment, with the parts `data`, `model` and `decode`.
      options: names of the fields of `config.model` that are fields of the network.
    """
    return DetectorConfig(
        method=method,
        model={name: getattr(config.model, name) for name in options},
        size=config.data.size,
        enlarge=config.data.enlarge,
        slide=config.data.slide,
        channels=config.model.channels,
        normalization=config.model.normalization,
        threshold=config.decode.threshold,
        max_detections=config.decode.max_detections,
    )


def mask_inputs(config: Any) -> Callable[[Batch, jax.Array | None], tuple[jax.Array, jax.Array]]:
    """What a network that predicts masks is given: `irjax.training.steps.Method.prepare`.

    Args:
      config: of the experiment, with `augment`, `model.normalization` and `model.channels`.

    Returns:
      ``(batch, keys [B] or None) -> (images [B, S, S, C], masks [B, S, S] bool)``, augmented if there are keys.
    """

    def prepare(batch: Batch, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        images, target = to_unit(batch.images), batch.segmentation
        if keys is not None:
            varied = jax.vmap(functools.partial(augment, config=config.augment))(
                keys, images, batch.points, batch.mask, target, batch.extent
            )
            images, target = varied.image, varied.segmentation
        return normalize(images, config.model.normalization, config.model.channels), target

    return prepare


def mask_score(config: Any) -> Callable[[Iterable[tuple[Example, np.ndarray]]], dict[str, float]]:
    """`irjax.training.masks.score_masks` under a config with `data` and `decode`."""
    return functools.partial(
        score_masks, enlarge=config.data.enlarge, slide=config.data.slide, threshold=config.decode.threshold
    )


def mask_and_count_score(
    config: Any, figures: Callable[[np.ndarray], dict[str, float]]
) -> Callable[[Iterable[tuple[Example, dict[str, np.ndarray]]]], dict[str, float]]:
    """The score of predictions {"maps": probabilities [n, S, S], "counts": [n, ...]}.

    Args:
      config: of the experiment, with `data` and `decode`.
      figures: metrics from the sum of the counts.
    """

    def score(found: Iterable[tuple[Example, dict[str, np.ndarray]]]) -> dict[str, float]:
        counts = []

        def maps() -> Iterator[tuple[Example, np.ndarray]]:
            for example, predictions in found:
                counts.append(predictions["counts"].sum(axis=0))
                yield example, predictions["maps"]

        return {**mask_score(config)(maps()), **figures(np.sum(counts, axis=0, dtype=np.float64))}

    return score


def detect_source(
    detector: Callable[[list[np.ndarray]], Any], source: Source
) -> tuple[dict[str, PointPredictions], dict[str, tuple[int, int]]]:
    """Runs a detector over a data set.

    Args:
      detector: a list of images [H, W] to `Detections` in their pixels.
      source: the data set.

    Returns:
      {name: points and scores}, and {name: (height, width)}.
    """
    found, sizes = {}, {}
    for name, size, prediction, _ in _detect(detector, source):
        found[name], sizes[name] = prediction, size
    return found, sizes


def _detect(
    detector: Callable[[list[np.ndarray]], Any], source: Source
) -> Iterator[tuple[str, tuple[int, int], PointPredictions, np.ndarray | None]]:
    """Name, (height, width), points, and target probabilities or None, of one image after the other."""
    for start in range(0, len(source), _CHUNK):
        examples = [source[i] for i in range(start, min(start + _CHUNK, len(source)))]
        detections = detector([example.image for example in examples])
        maps = itertools.repeat(None, len(examples)) if detections.masks is None else detections.masks
        for example, prediction, probabilities in zip(examples, from_detections(detections), maps, strict=True):
            yield example.name, example.image.shape, prediction, probabilities


def tophat_reference(source: Source) -> dict[str, float]:
    """F1 of a white top-hat at the threshold that suits this data set best: the bar any method must clear.

    The threshold is chosen on the same images, in the top-hat's favour. Images are extended by their border pixels to
    multiples of 128, so that the many sizes of a data set compile few programs.
    """
    predictions, truths = [], []
    for i in range(len(source)):
        example = source[i]
        height, width = example.image.shape
        padded = np.pad(example.image, ((0, -height % 128), (0, -width % 128)), mode="edge")
        found = from_detections(detect("tophat", padded[None], 0.0, 64))[0]
        inside = (found.points[:, 0] < width) & (found.points[:, 1] < height)
        predictions.append(PointPredictions(found.points[inside], found.scores[inside]))
        truths.append(PointTruth(example.points, height, width))
    best = centroid_sweep(predictions, truths).best()
    return {name: getattr(best, name) for name in ("f1", "threshold", "precision", "recall", "fa", "tp", "fp", "fn")}


def test(detector: Detector, source: Source, folder: pathlib.Path, *, title: str, overlays: int = 8) -> dict[str, Any]:
    """Evaluates a detector on a data set, prints the table, and writes predictions and report.

    Args:
      detector: at its configured threshold.
      source: the data set.
      folder: where predictions.json and the report go.
      title: of the table.
      overlays: how many of the worst images are drawn.

    Returns:
      As `irjax.reports.evaluate.report_points`.
    """
    threshold = detector.config.threshold
    found, sizes = detect_source(lambda images: detector(images, threshold=min(_FLOOR, threshold)), source)
    write_predictions(folder / "predictions.json", found, sizes)
    return report_points(
        found, source, threshold=threshold, out_dir=folder, title=title, sizes=sizes, overlays=overlays
    )


def test_masks(
    detector: Detector,
    source: Source,
    folder: pathlib.Path,
    *,
    title: str,
    overlays: int = 8,
    protocols: Sequence[str] = MASK_PROTOCOLS,
) -> dict[str, Any]:
    """Evaluates a segmentation detector: its masks under some protocols in one table, its points in another.

    Args:
      detector: at its configured threshold.
      source: the data set; with masks.
      folder: where the report on the masks, predictions.json, the report on the points (points/) and pictures of the
        masks (masks/NAME.png, `irjax.reports.predict.write_map`) go. The figures are those of the probabilities as the
        detector gives them, float32: they wait in files of this folder, 4 bytes a pixel, until they are scored.
      title: of the tables.
      overlays: how many of the worst images are drawn.
      protocols: of the masks; metrics and intervals of the first are the report's own.

    Returns:
      As `irjax.reports.evaluate.report_maps`; "points" as `irjax.reports.evaluate.report_points`.
    """
    threshold, found, sizes, files = detector.config.threshold, {}, {}, {}
    with whole_folder(folder) as unfinished:
        maps = unfinished / "maps"
        maps.mkdir()
        for name, size, prediction, probabilities in _detect(detector, source):
            # Two names may differ in characters only that a file's name cannot have.
            file = f"{safe_name(name)}.png"
            file = f"{len(files):05d}_{file}" if file in files.values() else file
            found[name], sizes[name], files[name] = prediction, size, file
            write_map(unfinished / "masks" / file, probabilities, threshold)
            np.save(maps / f"{file}.npy", probabilities)
        write_predictions(unfinished / "predictions.json", found, sizes)
        report = report_maps(
            {name: maps / f"{file}.npy" for name, file in files.items()}, source, protocols=protocols,
            threshold=threshold, out_dir=folder, title=title, all_intervals=True, overlays=overlays,
        )  # fmt: skip
        shutil.rmtree(maps)
    points = report_points(
        found, source, threshold=threshold, out_dir=folder / "points", title=f"{title}, points", sizes=sizes, overlays=0
    )
    return {**report, "points": points}


def mask_summary(name: str, report: dict[str, Any], detector: Detector, tophat: dict[str, float]) -> list[str]:
    """What the command of a method that predicts masks prints at its end; `report` is that of `test_masks`."""
    width = max(len(name), len("top-hat"))

    def line(protocol: str) -> str:
        values = report["protocols"][protocol]["metrics"]
        parts = [f"{metric} {values[metric]:.3f}" for metric in ("IoU", "nIoU", "Pd") if metric in values]
        false = f"Fa {values['Fa'] * 1e6:.1f}e-6"
        if "FalsePerImage" in values:
            false += f", {values['FalsePerImage']:.3f} false regions an image"
        return f"{name:{width}}  {'  '.join(parts)}  {false} ({protocol})"

    f1 = report["points"]["metrics"]["F1"]
    return [
        *map(line, report["protocols"]),
        f"{name:{width}}  F1 {f1:.3f} of the regions' centroids, p > {detector.config.threshold:g}",
        f"{'top-hat':{width}}  F1 {tophat['f1']:.3f} at its best threshold, {f1 - tophat['f1']:.3f} lower",
    ]


def chosen(run: pathlib.Path) -> tuple[Detector, dict[str, Any]]:
    """The detector of a run, and {"step", "validation"} of its chosen checkpoint (validation None: the newest)."""
    with contextlib.closing(Checkpoints(run, read_only=True)) as checkpoints:
        step = checkpoints.best_step()
        facts = {"step": step, "validation": checkpoints.metrics(step) or None}
    return load(run), facts


def masks(*own: str) -> dict[str, Any]:
    """How `irjax.experiments.command.Experiment` tests and stores methods that predict masks.

    Args:
      *own: protocols of the method's paper beside `MASK_PROTOCOLS`.
    """
    test = functools.partial(test_masks, protocols=(*MASK_PROTOCOLS, *own))
    return {"test": test, "settle": chosen, "dtype": "float16"}


def settled(run: pathlib.Path) -> tuple[Detector, dict[str, Any]]:
    """The detector of a run, scores scaled so that the best threshold on validation becomes the configured one.

    Of several data sets that is the mean of their best thresholds.

    The last layer of a heatmap network is linear, so a factor on its weights is a factor on every score; which point
    outranks which does not change.

    Args:
      run: a run directory whose network ends in a convolution called ``head``.

    Returns:
      The detector, and {"step", "validation", "score_factor"} of the chosen checkpoint; scores stay as they are, and
      there is no factor, where none was validated.
    """
    detector, facts = chosen(run)
    if facts["validation"] is None:
        return detector, facts
    factor = detector.config.threshold / facts["validation"]["best_threshold"]
    params = dict(detector.variables["params"])
    params["head"] = {name: value * factor for name, value in params["head"].items()}
    scaled = dataclasses.replace(detector, variables={**detector.variables, "params": params})
    return scaled, {**facts, "score_factor": factor}


def largest_difference(one: Detector, other: Detector, source: Source) -> float:
    """Of the target probabilities of two segmentation detectors, on at most `ROUNDING_IMAGES` images."""
    count = min(ROUNDING_IMAGES, len(source))
    images = [source[round(i * (len(source) - 1) / max(count - 1, 1))].image for i in range(count)]
    pairs = zip(one(images).masks, other(images).masks, strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def _stages(start: str | None) -> list[dict[str, Any]]:
    """The configs of the trainings behind weights to start from, earliest first, as far as they can be read."""
    try:
        path = resolve(start) if start else None
    except UserError:  # moved or removed since: its name is in the config that started from it
        return []
    if path and path.suffix == ".safetensors":
        return load_weights(path)[2]["recipe"].get("stages", [])
    if path and (path / "config.json").is_file():
        config = read_json(path / "config.json")["config"]
        return [*_stages(config.get("initial")), config]
    return []


def card(run: pathlib.Path, facts: dict[str, Any], figures: dict[str, Any] | str, command: str) -> dict[str, Any]:
    """The card of a run's weights (`irjax.weights.CARD_FIELDS`).

    Args:
      run: the run directory.
      facts: from `settled`.
      figures: validation figures by split, or why there are none.
      command: that wrote the weights.
    """
    record = read_json(run / "config.json")
    stages = [*_stages(record["config"].get("initial")), record["config"]]
    roots = record["config"]["data"]["root"]
    names = [pathlib.Path(root).name for root in roots]
    for stage in stages:  # the sets, not where they lay on the machine that trained
        stage["data"]["root"] = [pathlib.Path(root).name for root in stage["data"]["root"]]
        stage["data"].pop("scenes", None)  # of synthetic data only
    return {
        "data": {"sets": names, **record["data"]},
        "licence": f"The weights are under irjax's licence. Licences of the images: {licence_text(roots)}.",
        "recipe": {"stages": stages, "versions": record["versions"], **facts},
        "seed": record["config"]["loop"]["seed"],
        "command": command,
        "validation": figures,
    }
