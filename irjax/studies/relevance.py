"""What Na-IRSTD selects: relevance of patches, features of native branch and backbone, coverage against K."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from irjax.bars import bar
from irjax.data import network_views, open_source
from irjax.detector.detector import Detector
from irjax.detector.inference import network_inputs
from irjax.detector.loading import load
from irjax.errors import UsageError, UserError
from irjax.io.files import write_json
from irjax.io.names import flat
from irjax.models import NaIRSTD
from irjax.models.na_irstd import NaIrstdOutputs
from irjax.models.na_native import PATCH
from irjax.ops.patches import expand_mask, join_patches, largest_in
from irjax.ops.regions import find_regions
from irjax.reports.curves import COLOURS, figure_of, plot_selection
from irjax.reports.events import contrast
from irjax.reports.figures import save_figure
from irjax.reports.overlays import outline_regions, spread_indices
from irjax.reports.tables import plain_table
from irjax.types import Source

_FEW = 4  # targets; with more targets than K, not all of them can be covered
_TITLES = {"all": "all images", "few": f"at most {_FEW} targets"}
_NUMBERS = (1, 2, 3, 5, 8, 16)  # values of K in the table, as in the paper's Figure 7
_PANELS = ("selected", "relevance", "native branch", "backbone, stride 4", "backbone, stride 16")


def selection_curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes coverage and recall of the K most relevant patches, for every K.

    Args:
      scores: [M, N], scores of the N patches of M images.
      positive: [M, N] bool, whether a patch contains a target pixel.

    Returns:
      The paper's coverage, the fraction of the K patches of all images that contain target pixels, and the recall, the
      fraction of patches with target pixels that are among the K; each [N], K = 1 to N. The recall without targets is
      nan.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    met = np.cumsum(np.take_along_axis(positive, order, axis=1).sum(axis=0))
    with np.errstate(invalid="ignore"):
        return met / (len(scores) * np.arange(1, scores.shape[1] + 1)), met / np.float64(positive.sum())


def analyse_relevance(
    out_dir: str | os.PathLike,
    model: str | os.PathLike,
    data: str | os.PathLike,
    *,
    split: str = "val",
    number: int = 8,
    **folder: Any,
) -> dict[str, Any]:
    """Measures the coverage and recall of the K most relevant patches, and draws the network's inner maps.

    Writes NUMBER_NAME.png for some images: the selected patches, the relevance of all, and the magnitude of the
    features of native branch and backbone (the paper's Figure 5); and selection.png and .json, coverage and recall
    against K (Figure 7).

    Args:
      out_dir: folder for the files.
      model: a Na-IRSTD, anything that `irjax.load` accepts.
      data: folder of a data set with masks.
      split: split of the data set.
      number: number of images to draw, spread evenly over the split.
      **folder: how the data set is read, its `layout`, `depth` and so on (`irjax.data.open_source`).

    Returns:
      The content of selection.json: "images"; for "all" of them and those with "few" targets (at most 4): the number of
      windows, "coverage" and "recall" for K = 1, 2, ...

    Raises:
      MissingFileError: if the model or the folder does not exist.
      UserError: if the network selects no patches, the data set has no masks, or the number is negative.
    """
    if number < 0:
        raise UsageError(f"--number must not be negative, got {number}")
    detector = load(model)
    if not isinstance(detector.module, NaIRSTD) or detector.module.branch == "none":
        raise UserError(f"{model} selects no patches: {detector.config.method}, {dict(detector.config.model)}")
    source = open_source(data, split, **folder)
    found = _measure(detector, source)
    out_dir = pathlib.Path(out_dir)
    write_json(out_dir / "selection.json", found)
    selected = detector.module.selected
    curves = {_TITLES[name]: (found[name]["coverage"], found[name]["recall"]) for name in _shown(found)}
    plot_selection(out_dir / "selection.png", curves, selected)
    print(_as_text(found, selected))
    for place, index in enumerate(bar(spread_indices(len(source), number), "drawing"), 1):
        example = source[index]
        _draw(out_dir / f"{place:02d}_{flat(example.name)}.png", detector, example)
    return found


def _measure(detector: Detector, source: Source) -> dict[str, Any]:
    """Returns coverage and recall on the canvases or windows of a data set."""
    config = detector.config
    scores_of = jax.jit(lambda variables, images: relevance_scores(detector, variables, images))
    options = {"with_mask": True, "enlarge": config.enlarge, "slide": config.slide}
    scores, positive, few = [], [], []
    for index in bar(range(len(source)), "measuring"):
        example = source[index]
        # As many rows for points as there are points, which are not used here.
        for view in network_views(example, config.size, len(example.points), **options):
            truth = view["mask"]
            scores.append(np.asarray(scores_of(detector.variables, view["images"][None]))[0])
            positive.append(np.asarray(largest_in(jnp.asarray(truth[None], jnp.float32), PATCH)).ravel() > 0)
            few.append(len(find_regions(truth).areas) <= _FEW)
    curves = {}
    for name, chosen in (("all", np.ones(len(few), bool)), ("few", np.array(few))):
        coverage, recall = selection_curve(np.stack(scores)[chosen], np.stack(positive)[chosen])
        curves[name] = {"windows": int(chosen.sum()), "coverage": coverage.tolist(), "recall": recall.tolist()}
    return {"images": len(source), **curves}


def _shown(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the groups to show; images with few targets are a group of their own if there are others."""
    return ("all",) if found["few"] == found["all"] else ("all", "few")


def relevance_scores(detector: Detector, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
    """Returns relevance logits [B, N] of the patches of canvases [B, S, S] as they are stored."""
    inputs = network_inputs(detector.config, images)
    network = detector.module.clone(only_scores=True)
    outputs = cast(NaIrstdOutputs, network.apply(variables, inputs, train=False))
    assert outputs.scores is not None  # of a network with a native branch
    return _last(outputs.scores).reshape(len(images), -1)


def _last(scores: jax.Array) -> jax.Array:
    """Returns the score of each patch [B, h, w]; from scores of all stages, [B, 4, h, w], those of the last stage."""
    return scores if scores.ndim == 3 else scores[:, -1]


def _as_text(found: Mapping[str, Any], selected: int | None) -> str:
    rows = []
    for name in _shown(found):
        one = found[name]
        shown = sorted({k for k in (*_NUMBERS, selected or 1) if k <= len(one["recall"])})
        cells = lambda k, one=one: [f"{one[part][k - 1]:.4f}" for part in ("coverage", "recall")]  # noqa: E731
        rows += [[_TITLES[name], one["windows"], k, *cells(k)] for k in shown]
    table = plain_table(["images", "windows", "K", "coverage", "recall"], rows)
    return f"{table}\ncoverage: part of the K patches that hold target pixels; recall: part of those that are selected"


# --- pictures ---------------------------------------------------------------------------------------------------------


def _panels(module: nn.Module, variables: Mapping[str, Any], inputs: jax.Array) -> jax.Array:
    """Returns the maps that `_PANELS` names, at every pixel: [B, S, S, C] to [B, 5, S, S]."""
    parts = ("native", "backbone")
    outputs, state = module.apply(
        variables,
        inputs,
        train=False,
        capture_intermediates=lambda part, _: part.path[-1:] and part.path[-1] in parts,
        mutable="intermediates",
    )
    native, backbone = (state["intermediates"][part]["__call__"][0] for part in parts)
    side, batch = inputs.shape[1], inputs.shape[0]
    grid = (side // PATCH, side // PATCH)
    last = native[-1]
    sites = join_patches(last.reshape(*last.shape[:2], PATCH, PATCH, last.shape[-1]), grid)
    maps = [
        sum(outputs.selected) / len(outputs.selected),
        jax.nn.sigmoid(_last(outputs.scores)),
        *(_strength(x) for x in (sites, backbone[0], backbone[2])),
    ]
    return jnp.stack([expand_mask(x, side // x.shape[1]).reshape(batch, side, side) for x in maps], axis=1)


def _strength(x: jax.Array) -> jax.Array:
    """Returns how far each site of features [B, H, W, C] deviates from the mean: RMS of its standardised channels."""
    x = x.astype(jnp.float32)
    x = (x - jnp.mean(x, axis=(1, 2), keepdims=True)) / (jnp.std(x, axis=(1, 2), keepdims=True) + 1e-6)
    return jnp.sqrt(jnp.mean(x**2, axis=-1))


def _draw(path: pathlib.Path, detector: Detector, example: Any) -> None:
    maps = dict(zip(_PANELS, detector.inner_maps(example.image, _panels), strict=True))
    low, high = contrast(example.image)
    height, width = example.image.shape
    figure = figure_of(9.6, 6.4 * height / width + 0.8)
    axes = figure.subplots(2, 3).ravel()
    axes[0].imshow(example.image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    # Padded with zeros, so that contours close at the image's border.
    places = np.arange(-1, width + 1), np.arange(-1, height + 1)
    axes[0].contour(*places, np.pad(maps["selected"] >= 0.5, 1), levels=[0.5], colors=COLOURS[5], linewidths=1.0)
    axes[0].set_title(f"{example.name}: selected patches", fontsize=9)
    axes[1].imshow(maps["relevance"], cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    axes[1].set_title("relevance, 0 to 1", fontsize=9)
    for axis, name in zip(axes[2:], _PANELS[2:], strict=False):
        top = float(np.quantile(maps[name], 0.999))
        axis.imshow(maps[name], cmap="magma", vmin=0, vmax=max(top, 1e-6), interpolation="nearest")
        axis.set_title(f"{name}: strength, 0 to {top:.1f}", fontsize=9)
    masks = detector(example.image).masks
    assert masks is not None
    axes[5].imshow(masks[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[5].set_title("probability", fontsize=9)
    for axis in axes:
        if example.mask is not None:
            outline_regions(axis, example.mask, COLOURS[4])
        axis.set(xticks=[], yticks=[], xlim=(-1.5, width + 0.5), ylim=(height + 0.5, -1.5))
    save_figure(figure, path)
