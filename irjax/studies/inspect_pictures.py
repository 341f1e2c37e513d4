"""Pictures of the results of `irjax.studies.inspect`: distributions, and a sheet of images with enlarged targets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from irjax.bars import bar
from irjax.data import folders
from irjax.io import images
from irjax.reports.figures import save_figure
from irjax.studies.inspect import SMALL_AREAS, ImageRecord, Inspection

# Okabe and Ito's palette for colour-blind readers; line styles distinguish the splits in grayscale print.
_STYLES: tuple[tuple[str, Literal["-", "--", "-.", ":"]], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
)
_BOX, _OUTLINE = "#E69F00", "#56B4E9"


# --- distributions ----------------------------------------------------------------------------------------------------


def draw_distributions(path: str | os.PathLike, inspection: Inspection) -> None:
    """Draws areas, targets per image, SCR, contrast, sizes and positions; the extension of `path` sets the format.

    Fractions are per split, so that splits of different sizes can be compared. At most four splits are drawn: training
    and held-out ones first, unions only if there is nothing else. Sizes and positions are of all images.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    splits = dict(zip(_chosen(inspection), _STYLES, strict=False))
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flat
    _draw_areas(axes[0], inspection, splits)
    _draw_numbers(axes[1], inspection, splits)
    _draw_scr(axes[2], inspection, splits)
    _draw_contrast(axes[3], inspection, splits)
    _draw_sizes(axes[4], inspection.records)
    _draw_positions(axes[5], inspection.records, figure)
    for cell in axes:
        for side in ("top", "right"):
            cell.spines[side].set_visible(False)
    handles = []
    for name, (colour, line) in splits.items():
        label = f"{name} ({len(inspection.splits[name])} images)"
        handles.append(Line2D([], [], color=colour, linestyle=line, linewidth=4, label=label))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(len(handles), 1), frameon=False, handlelength=4
    )
    figure.suptitle(f"{os.path.basename(os.path.normpath(inspection.root))}: {len(inspection.records)} images, "
                    f"{sum(len(record.labels) for record in inspection.records)} targets", fontsize=13)  # fmt: skip
    save_figure(figure, path, dpi=100)


def _chosen(inspection: Inspection) -> list[str]:
    """Returns the splits to draw: those that experiments keep apart, otherwise all."""
    apart = [name for name in inspection.splits if name.partition("_")[0] in ("train", "val", "test")]
    order = {role: number for number, role in enumerate(("train", "val", "test", *folders.ROLES))}
    apart.sort(key=lambda name: (name.partition("_")[2], order[name.partition("_")[0]]))
    return [name for name in apart or inspection.splits if inspection.splits[name]][: len(_STYLES)]


def _histogram(axes, values: Mapping[str, np.ndarray], splits: Mapping[str, tuple[str, str]], bins: np.ndarray) -> None:
    """Draws one outline for each split; values outside the bins are counted in the outermost bins."""
    if not any(numbers.size for numbers in values.values()):
        axes.text(0.5, 0.5, "no masks", transform=axes.transAxes, ha="center", va="center", color="gray")
    for name, (colour, line) in splits.items():
        numbers = values[name]
        if numbers.size:
            inside = np.clip(numbers, bins[0], bins[-1])
            share = np.histogram(inside, bins)[0] / numbers.size
            axes.stairs(share, bins, color=colour, linestyle=line, linewidth=1.6)
    axes.set_ylabel("share of targets")
    axes.yaxis.set_major_formatter(_percent)


def _percent(value: float, _position: int) -> str:
    return f"{round(100 * value, 1):g} %"


def _of_targets(records: Sequence[ImageRecord], field: str) -> np.ndarray:
    """Returns all values of one field of a split's targets, without nan."""
    parts = [record.labels.areas if field == "areas" else getattr(record, field) for record in records]
    values = np.concatenate([np.zeros(0), *(part for part in parts if part is not None)])
    return values[~np.isnan(values)]


def _draw_areas(axes, inspection: Inspection, splits: Mapping[str, tuple[str, str]]) -> None:
    values = {name: _of_targets(inspection.splits[name], "areas") for name in splits}
    top = max([2 * SMALL_AREAS[1], *(float(v.max()) for v in values.values() if v.size)])
    # Areas are integers: a bin that contains no integer would look like a gap.
    edges = np.unique(np.rint(np.geomspace(1, top * 1.1 + 2, 26)))
    _histogram(axes, values, splits, edges - 0.5)
    axes.set(xscale="log", title="target area")
    for limit in SMALL_AREAS:
        axes.axvline(limit, color="gray", linewidth=0.8, linestyle=":")
    ticks = [tick for tick in (1, 3, *SMALL_AREAS, 30, 300, 1000, 3000) if tick <= top]
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set_xlabel("px; dotted: " + " and ".join(f"{limit} px" for limit in SMALL_AREAS))


def _draw_numbers(axes, inspection: Inspection, splits: Mapping[str, tuple[str, str]]) -> None:
    most = max([1, *(len(record.labels) for name in splits for record in inspection.splits[name])])
    last = min(most, 9)  # larger numbers are counted in the last bin
    width = 0.8 / max(len(splits), 1)
    for number, (name, (colour, _)) in enumerate(splits.items()):
        records = inspection.splits[name]
        counts = np.bincount([min(len(record.labels), last) for record in records], minlength=last + 1)
        places = np.arange(last + 1) + (number + 0.5) * width - 0.4
        axes.bar(places, counts / len(records), width, color=colour, alpha=0.85)
    axes.set_xticks(range(last + 1), [*map(str, range(last)), f"{last}+" if most > last else str(last)])
    axes.set(title="targets in an image", ylabel="share of images", xlabel="targets")
    axes.yaxis.set_major_formatter(_percent)


def _draw_scr(axes, inspection: Inspection, splits: Mapping[str, tuple[str, str]]) -> None:
    values = {name: _of_targets(inspection.splits[name], "scr") for name in splits}
    _histogram(axes, values, splits, np.geomspace(0.1, 100, 28))
    axes.set(xscale="log", title="signal-to-clutter ratio", xlabel="|target - background| / deviation of background")
    axes.set_xticks((0.1, 0.3, 1, 3, 10, 30, 100), ("≤ 0.1", "0.3", "1", "3", "10", "30", "≥ 100"))
    axes.minorticks_off()


def _draw_contrast(axes, inspection: Inspection, splits: Mapping[str, tuple[str, str]]) -> None:
    values = {name: _of_targets(inspection.splits[name], "contrast") for name in splits}
    present = np.concatenate([np.zeros(1), *values.values()])
    low, high = np.floor(20 * present.min()) / 20, np.ceil(20 * max(present.max(), 0.05)) / 20
    _histogram(axes, values, splits, np.linspace(low, high, 28))
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set(title="contrast", xlabel="(target - background) / full scale")


def _draw_sizes(axes, records: Sequence[ImageRecord]) -> None:
    sizes, counts = np.unique([record.size for record in records] or np.zeros((0, 2)), axis=0, return_counts=True)
    high = max([64, *(side for record in records for side in record.size)]) * 1.15
    axes.scatter(sizes[:, 1], sizes[:, 0], s=np.clip(8 * np.sqrt(counts) ** 1.3, 12, 1200), alpha=0.45, color="#0072B2",
                 edgecolor="white", linewidth=0.5)  # fmt: skip
    for index in np.argsort(-counts)[:3]:
        height, width = (int(side) for side in sizes[index])
        left = width < 0.7 * high
        axes.annotate(f"{width}x{height}: {counts[index]}", (width, height), (10 if left else -14, 6),
                      textcoords="offset points", fontsize=8, ha="left" if left else "right")  # fmt: skip
    axes.set(
        title=f"image sizes ({len(sizes)})", xlabel="width, px", ylabel="height, px", xlim=(0, high), ylim=(0, high)
    )


def _draw_positions(axes, records: Sequence[ImageRecord], figure) -> None:
    places = [record.labels.points / np.array(record.size[::-1]) for record in records]
    x, y = np.concatenate([np.zeros((0, 2)), *places]).T
    counts = np.histogram2d(y, x, bins=12, range=((0, 1), (0, 1)))[0]
    shown = axes.imshow(counts, cmap="viridis", extent=(0, 1, 1, 0), aspect="auto", vmin=0)
    figure.colorbar(shown, ax=axes, label="targets", shrink=0.85)
    axes.set(title="where targets are", xlabel="x / width", ylabel="y / height")


# --- contact sheet ----------------------------------------------------------------------------------------------------


def choose_images(records: Sequence[ImageRecord], number: int = 20, empty: int = 4) -> list[ImageRecord]:
    """Selects images evenly spaced by the area of their smallest target, then some without targets.

    Without areas (a layout with points), they are evenly spaced in the order of the records.
    """
    with_targets = [record for record in records if len(record.labels)]
    without = [record for record in records if not len(record.labels)]
    with_targets.sort(key=lambda record: 0 if record.labels.areas is None else int(record.labels.areas.min()))
    chosen = []
    for group, wanted in ((with_targets, number if without else number + empty), (without, empty)):
        places = np.linspace(0, len(group) - 1, min(wanted, len(group)))
        chosen += [group[int(place)] for place in np.floor(places + 0.5)]
    return chosen


def draw_contact_sheet(path: str | os.PathLike, inspection: Inspection, *, columns: int = 4) -> None:
    """Draws images with boxes around their targets, and next to each its two smallest targets, enlarged and outlined.

    A single target is shown with and without its outline.

    Args:
      path: path of the picture; the extension sets the format.
      inspection: the inspection; the images are read again.
      columns: images in a row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = choose_images(inspection.records)
    rows = max(-(-len(chosen) // columns), 1)
    figure = Figure(figsize=(4.2 * columns, 2.75 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{os.path.basename(os.path.normpath(inspection.root))}: by the area of the smallest target; "
                    "contrast stretched, insets each by themselves", fontsize=12)  # fmt: skip
    cells = figure.subfigures(rows, columns, squeeze=False).flat
    for cell, record in bar(zip(cells, chosen, strict=False), "drawing", total=len(chosen)):
        grid = cell.add_gridspec(2, 2, width_ratios=(2.1, 1))
        _draw_cell(cell, grid, record, inspection)
    save_figure(figure, path, dpi=100)


def _draw_cell(figure, grid, record: ImageRecord, inspection: Inspection) -> None:
    """Draws one image, its boxes and its insets."""
    from matplotlib.patches import Rectangle

    image = images.read_image(record.path, inspection.depth)
    mask = inspection.masks.read(record.mask_path)[0] if record.mask_path else np.zeros(image.shape, np.bool_)
    whole = figure.add_subplot(grid[:, 0] if len(record.labels) else grid[:, :])
    _show(whole, image, (0, 0, image.shape[1], image.shape[0]), high=99.9)
    height, width = record.size
    margin = max(3.0, 0.015 * max(record.size))
    order = np.arange(len(record.labels)) if record.labels.areas is None else np.argsort(record.labels.areas)
    boxes = record.labels.boxes
    if boxes is None:
        boxes = np.concatenate([record.labels.points, record.labels.points + 1], axis=1)
    for left, top, right, bottom in boxes:
        corner = (left - 0.5 - margin, top - 0.5 - margin)
        sides = (right - left + 2 * margin, bottom - top + 2 * margin)
        whole.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=_BOX, linewidth=1.1))
    name = record.name if len(record.name) <= 24 else f"{record.name[:23]}…"
    whole.set_title(f"{name}  {width}x{height}", fontsize=8, loc="left", pad=2)
    shown = list(order[:2]) if len(order) != 1 else [order[0], order[0]]
    for place, number in enumerate(shown):
        axes = figure.add_subplot(grid[place, 1])
        again = place > 0 and len(order) == 1
        _draw_inset(axes, image, None if again else mask, boxes[number])
        if again:
            continue
        area = "" if record.labels.areas is None else f"{record.labels.areas[number]} px"
        scr = "" if record.scr is None else f"  SCR {record.scr[number]:.1f}"
        axes.set_title(area + scr, fontsize=7.5, loc="left", pad=2)


def _draw_inset(axes, image: np.ndarray, mask: np.ndarray | None, box: np.ndarray) -> None:
    """Draws a cut-out around a box, with the outline of the mask's pixels if there is a mask."""
    from matplotlib.collections import LineCollection

    left, top, right, bottom = (float(edge) for edge in box)
    side = int(min(max(21, 2 * max(right - left, bottom - top)), *image.shape))
    x = int(np.clip((left + right) / 2 - side / 2, 0, image.shape[1] - side))
    y = int(np.clip((top + bottom) / 2 - side / 2, 0, image.shape[0] - side))
    _show(axes, image, (x, y, x + side, y + side), high=100)
    if mask is None:
        return
    lines = mask_outline(mask[y : y + side, x : x + side]) + [x - 0.5, y - 0.5]
    axes.add_collection(LineCollection(list(lines), colors=_OUTLINE, linewidths=1.2))


def mask_outline(mask: np.ndarray) -> np.ndarray:
    """Returns the edges between target and background of a mask [H, W]: [N, 2, 2] ends (x, y) in pixel corners."""
    padded = np.pad(mask, 1)
    y, x = np.nonzero(padded[:, 1:] != padded[:, :-1])
    vertical = np.stack([np.stack([x, y - 1], -1), np.stack([x, y], -1)], axis=1)
    y, x = np.nonzero(padded[1:] != padded[:-1])
    horizontal = np.stack([np.stack([x - 1, y], -1), np.stack([x, y], -1)], axis=1)
    return np.concatenate([vertical, horizontal])


def _show(axes, image: np.ndarray, part: tuple[int, int, int, int], high: float) -> None:
    """Shows image[y0:y1, x0:x1] in image coordinates, scaled between its .5 and `high` percentiles."""
    x0, y0, x1, y1 = part
    patch = image[y0:y1, x0:x1]
    low, top = np.percentile(patch, (0.5, high))
    extent = (x0 - 0.5, x1 - 0.5, y1 - 0.5, y0 - 0.5)
    axes.imshow(patch, cmap="gray", vmin=low, vmax=max(top, low + 1), extent=extent, interpolation="nearest")
    axes.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
