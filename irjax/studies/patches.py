"""The patches that a network keeps: pictures of them over the image, as in ADSNet's paper, and a study of masks."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from irjax.bars import bar
from irjax.data import network_views, open_source
from irjax.detector.detector import Detector
from irjax.detector.inference import network_inputs
from irjax.detector.loading import load
from irjax.errors import UsageError, UserError
from irjax.evaluation.truths import open_truths
from irjax.io.arrays import unit_range
from irjax.io.files import write_json
from irjax.io.names import flat
from irjax.losses.adsnet import target_patch_recall
from irjax.methods.score_masks import score_masks
from irjax.models import ADSNet
from irjax.models.adsnet import AdsnetOutputs
from irjax.reports.curves import figure_of
from irjax.reports.events import contrast
from irjax.reports.figures import save_figure
from irjax.reports.overlays import outline_regions, spread_indices
from irjax.reports.tables import plain_table
from irjax.types import Example, Source

_TARGET, _FOUND = "#E69F00", "#56B4E9"  # Okabe and Ito's orange and sky blue


def draw_kept_patches(
    out_dir: str | os.PathLike,
    model: str | os.PathLike,
    data: str | os.PathLike,
    *,
    split: str | None = None,
    number: int = 8,
    **folder: Any,
) -> list[pathlib.Path]:
    """Draws images with the patches that a network keeps at each of its stages, and its prediction.

    Args:
      out_dir: folder for NUMBER_NAME.png.
      model: anything that `irjax.load` accepts.
      data: folder of a data set.
      split: split of the data set; None for all of it.
      number: number of images, spread evenly over the split.
      **folder: how the data set is read, its `layout`, `depth` and so on (`irjax.data.open_source`).

    Returns:
      The pictures.

    Raises:
      MissingFileError: if the model or the folder does not exist.
      UserError: if the network drops no patches, the data set has no images, or the number is below 1.
    """
    if number < 1:
        raise UsageError(f"--number must be at least 1, got {number}")
    truths = open_truths(data, split, **folder)
    if truths.image(0) is None:
        raise UserError(f"{data} has masks but no images")
    detector = load(model)
    paths: list[pathlib.Path] = []
    rows = []
    for index in bar(spread_indices(len(truths.names), number), "drawing"):
        name, image, truth = truths.names[index], truths.image(index), truths.read(index)
        assert image is not None
        kept, masks = detector.kept_patches(image), detector(image).masks
        assert masks is not None
        found = masks[0]
        target = np.asarray(truth) > 0 if isinstance(truth, np.ndarray) else _pixels(truth.points, image.shape)
        shares = [float((level[target] >= 0.5).mean()) if target.any() else float("nan") for level in kept]
        paths.append(pathlib.Path(out_dir) / f"{len(paths) + 1:02d}_{flat(name)}.png")
        _draw(paths[-1], name, image, kept, target, found, detector.config.threshold)
        rows.append([name, *(f"{level.mean():.2f}" for level in kept), *(f"{share:.2f}" for share in shares)])
    stages = range(1, len(kept) + 1)
    header = ["image", *(f"kept {stage}" for stage in stages), *(f"of targets {stage}" for stage in stages)]
    print(plain_table(header, rows))
    print(f"{len(paths)} pictures")
    return paths


def compare_masks(
    out_dir: str | os.PathLike,
    model: str | os.PathLike,
    data: str | os.PathLike,
    *,
    split: str | None = None,
    seeds: int = 5,
    **folder: Any,
) -> dict[str, dict[str, float]]:
    """Measures an ADSNet with the masks of prediction, with those of training, and with no patch dropped.

    In prediction the network keeps a fixed number of patches; in training it keeps those whose decision, with Gumbel
    noise, is to keep. Writes masks.json and prints it as a table.

    Args:
      out_dir: folder for masks.json.
      model: an ADSNet, anything that `irjax.load` accepts.
      data: folder of a data set with masks.
      split: split of the data set; None for all of it.
      seeds: number of draws of the noise, at least 1.
      **folder: how the data set is read, its `layout`, `depth` and so on (`irjax.data.open_source`).

    Returns:
      For each kind of mask ("ranked", "decided", "decided with noise 0", ..., "all kept") the result of
      `irjax.methods.score_masks.score_masks`, and for levels 3 and 2 the fraction of patches that are kept (``kept3``,
      ``kept2``) and the fraction of those with target pixels that are kept (``recall3``, ``recall2``).

    Raises:
      MissingFileError: if the model or the folder does not exist.
      UserError: if the model is not an ADSNet that drops patches, the data set has no masks, or `seeds` is below 1.
    """
    if seeds < 1:
        raise UsageError(f"--as-trained must be at least 1, got {seeds}")
    detector = load(model)
    if not isinstance(detector.module, ADSNet) or set(detector.module.dropped) == {None}:
        raise UserError(f"{model} is no ADSNet that drops patches: {detector.config.method}")
    source = open_source(data, "all" if split is None else split, **folder)
    network = detector.module
    noisy = _form_of(detector, network.clone(selection="decided"))
    found = {
        "ranked": _measured(detector, _form_of(detector, network), source),
        "decided": _measured(detector, noisy, source),
        **{f"decided with noise {seed}": _measured(detector, noisy, source, seed) for seed in range(seeds)},
        "all kept": _measured(detector, _form_of(detector, network.clone(dropped=(None, None))), source),
    }
    write_json(pathlib.Path(out_dir) / "masks.json", found)
    print(_as_text(found, seeds))
    return found


def _form_of(detector: Detector, network: ADSNet) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns a function from a stored canvas [S, S] to probabilities [S, S] and kept patches [2, h, w].

    It adds noise if it is given a key.
    """

    @jax.jit
    def run(variables: Mapping[str, Any], image: jax.Array, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        keys = None if key is None else key[None]
        inputs = network_inputs(detector.config, image[None])
        outputs = cast(AdsnetOutputs, network.apply(variables, inputs, train=False, keys=keys))
        return jax.nn.sigmoid(outputs.logits[0]), jnp.stack([kept[0] for kept in outputs.kept])

    return run


def _measured(
    detector: Detector, run: Callable[..., tuple[jax.Array, jax.Array]], source: Source, seed: int | None = None
) -> dict[str, float]:
    """Returns the figures of a function from `_form_of` on the canvases or windows of a data set."""
    config = detector.config
    form = {"enlarge": config.enlarge, "slide": config.slide}
    noise, draws = None if seed is None else jax.random.key(seed), itertools.count()
    masks, counts = [], []

    def found() -> Iterator[tuple[Example, np.ndarray]]:
        for index in bar(range(len(source)), "detecting"):
            example, maps = source[index], []
            for view in network_views(example, config.size, len(example.points), with_mask=True, **form):
                key = None if noise is None else jax.random.fold_in(noise, next(draws))
                probabilities, kept = run(detector.variables, view["images"], key)
                maps.append(np.asarray(probabilities))
                masks.append(np.asarray(kept))
                counts.append(np.asarray(target_patch_recall(list(kept[:, None]), view["mask"][None])[0]))
            yield example, np.stack(maps)

    values = score_masks(found(), threshold=config.threshold, **form)
    shares = np.mean(masks, axis=(0, 2, 3))
    totals = cast(np.ndarray, np.sum(counts, axis=0, dtype=np.float64))
    for level, kept, (hit, total) in zip((3, 2), shares, totals, strict=True):
        values |= {f"kept{level}": float(kept), f"recall{level}": float(hit / total) if total else float("nan")}
    return values


_SHOWN = ("miou", "niou", "pd", "fa", "recall3", "recall2", "kept3", "kept2")


def _as_text(found: Mapping[str, Mapping[str, float]], seeds: int) -> str:
    """Returns a table with a row for each kind of mask; draws of noise are summarised by their mean and deviation."""
    drawn = [found[f"decided with noise {seed}"] for seed in range(seeds)]
    rows = {name: found[name] for name in ("ranked", "decided")}
    rows[f"decided with noise, mean of {seeds}"] = {c: float(np.mean([one[c] for one in drawn])) for c in _SHOWN}
    if seeds > 1:
        rows["  deviation"] = {c: float(np.std([one[c] for one in drawn], ddof=1)) for c in _SHOWN}
    rows["all kept"] = found["all kept"]
    cells = [[name, *(f"{row[c]:.3g}" if c == "fa" else f"{row[c]:.4f}" for c in _SHOWN)] for name, row in rows.items()]
    return plain_table(["masks", *_SHOWN], cells)


def _pixels(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns a mask of the pixels that contain points."""
    mask = np.zeros(shape[:2], bool)
    columns, rows = np.clip(np.rint(points).astype(int).reshape(-1, 2), 0, (shape[1] - 1, shape[0] - 1)).T
    mask[rows, columns] = True
    return mask


def _draw(
    path: pathlib.Path,
    name: str,
    image: np.ndarray,
    kept: np.ndarray,
    target: np.ndarray,
    found: np.ndarray,
    threshold: float,
) -> None:
    panels = len(kept) + 2
    height = 3.4 * image.shape[0] / image.shape[1]
    figure = figure_of(3.4 * panels, height + 0.5)
    axes = figure.subplots(1, panels)
    gray = unit_range(image).astype(np.float32)
    low, high = contrast(gray)
    gray = np.clip((gray - low) / max(high - low, 1e-6), 0, 1)
    titles = [name, *(f"stage {stage}: {level.mean():.0%} kept" for stage, level in enumerate(kept, 1))]
    shades = [np.ones_like(gray), *kept]
    for axis, title, shade in zip(axes, titles, shades, strict=False):
        # Dropped patches are dark blue instead of black, so that their content remains visible.
        dimmed = gray[..., None] * (1 - 0.75 * (1 - shade[..., None])) + (1 - shade[..., None]) * (0.0, 0.05, 0.18)
        axis.imshow(np.clip(dimmed, 0, 1), interpolation="nearest")
        outline_regions(axis, target, _TARGET)
        axis.set_title(title, fontsize=9)
    axes[-1].imshow(found, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    outline_regions(axes[-1], target, _TARGET)
    outline_regions(axes[-1], found > threshold, _FOUND, gap=8)
    axes[-1].set_title(f"probability; p > {threshold:g} blue, targets orange", fontsize=9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    save_figure(figure, path)
