"""Pictures of the patches that a network keeps, over the image, as in ADSNet's paper."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from irjax.data.arrays import unit_range
from irjax.errors import UsageError, UserError
from irjax.inference import load
from irjax.reports.curves import figure_of, save_figure
from irjax.reports.events import contrast
from irjax.reports.names import safe_name
from irjax.reports.overlays import outline_regions, spread_indices
from irjax.reports.tables import plain_table
from irjax.reports.truths import open_truths

_TARGET, _FOUND = "#E69F00", "#56B4E9"  # Okabe and Ito's orange and sky blue


def draw_kept_patches(
    out_dir: str | os.PathLike,
    model: str | os.PathLike,
    data: str | os.PathLike,
    *,
    split: str | None = None,
    layout: str = "auto",
    number: int = 8,
) -> list[pathlib.Path]:
    """Draws images with the patches that a network keeps at each of its stages, and what it predicts.

    Args:
      out_dir: folder for NUMBER_NAME.png.
      model: what `irjax.load` takes.
      data: folder of a data set.
      split: of it; None for all of it.
      layout: of it (`irjax.data.open_source`).
      number: how many images, spread evenly over the split.

    Returns:
      The pictures.

    Raises:
      MissingFileError: if the model or the folder is not there.
      UserError: if the network drops no patches, the data set has no images, or the number is below 1.
    """
    if number < 1:
        raise UsageError(f"--number must be at least 1, got {number}")
    truths = open_truths(data, split, layout)
    if truths.image(0) is None:
        raise UserError(f"{data} has masks but no images")
    detector = load(model)
    paths, rows = [], []
    for index in spread_indices(len(truths.names), number):
        name, image, truth = truths.names[index], truths.image(index), truths.read(index)
        kept = detector.kept(image)
        found = detector(image).masks[0]
        target = np.asarray(truth) > 0 if isinstance(truth, np.ndarray) else _pixels(truth.points, image.shape)
        shares = [float((level[target] >= 0.5).mean()) if target.any() else float("nan") for level in kept]
        paths.append(pathlib.Path(out_dir) / f"{len(paths) + 1:02d}_{safe_name(name)}.png")
        _draw(paths[-1], name, image, kept, target, found, detector.config.threshold)
        rows.append([name, *(f"{level.mean():.2f}" for level in kept), *(f"{share:.2f}" for share in shares)])
    stages = range(1, len(kept) + 1)
    header = ["image", *(f"kept {stage}" for stage in stages), *(f"of targets {stage}" for stage in stages)]
    print(plain_table(header, rows))
    print(f"{len(paths)} pictures in {out_dir}")
    return paths


def _pixels(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A mask of the pixels that points lie in."""
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
        # Dropped patches are dark and blue, not black: what they hold can be seen.
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
