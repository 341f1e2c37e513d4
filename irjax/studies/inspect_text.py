"""The results of `irjax.studies.inspect` as numbers for JSON and as text."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from irjax.io.files import whole_folder, write_json
from irjax.io.images import AS_STORED
from irjax.reports.tables import plain_table
from irjax.studies.inspect import BACKGROUND, KINDS, NOTES, SMALL_AREAS, ImageRecord, Inspection

FORMULAS = {
    "scr": "|mean(target) - mean(background)| / std(background); background: the target's box and "
    f"{BACKGROUND} px around it on each side, without the pixels of any target",
    "contrast": "(mean(target) - mean(background)) / full scale",
    "brightness": "mean(image) / full scale",
    "area": "pixels of an 8-connected region of the mask",
}
_QUANTILES = {"min": 0.0, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "max": 1.0}


def summarise(records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Returns the numbers of one split: counts, sizes, depths, and distributions as minimum, quartiles and maximum.

    Distributions are None if the layout does not have the values or there is no target.
    """
    numbers = [len(record.labels) for record in records]
    four = [record.four_connected for record in records]
    areas = [record.labels.areas for record in records if record.labels.areas is not None]
    scr = [record.scr for record in records if record.scr is not None]
    contrast = [record.contrast for record in records if record.contrast is not None]
    area = quantiles(areas)
    if area is not None:
        joined = np.concatenate(areas)
        area |= {"mean": float(joined.mean())} | {f"share_below_{n}": float(np.mean(joined < n)) for n in SMALL_AREAS}
    contrasts = quantiles(contrast)
    if contrasts is not None:
        contrasts["share_dark"] = float(np.mean(np.concatenate(contrast) < 0))
    return {
        "images": len(records),
        "images_with_targets": len(numbers) - numbers.count(0),
        "targets": sum(numbers),
        "targets_4_connected": None if None in four else sum(four),
        "targets_per_image": dict(sorted(collections.Counter(numbers).items())),
        "sizes": _counted(f"{record.size[1]}x{record.size[0]}" for record in records),
        "bits": _counted(str(record.bits) for record in records),
        "area": area,
        "scr": quantiles(scr),
        "contrast": contrasts,
        "brightness": quantiles([np.array([record.brightness]) for record in records]),
    }


def quantiles(parts: Sequence[np.ndarray]) -> dict[str, float] | None:
    """Returns minimum, quartiles and maximum of all values together, without nan; None if there are none."""
    values = np.concatenate([np.zeros(0), *parts])
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    # Not interpolated: infinite values (targets on a flat background) would become nan.
    return {name: float(np.quantile(values, share, method="nearest")) for name, share in _QUANTILES.items()}


def _counted(items) -> dict[str, int]:
    return dict(collections.Counter(items).most_common())


def as_data(inspection: Inspection) -> dict[str, Any]:
    """Returns the whole inspection as data for JSON, where infinite numbers become null."""
    return {
        "root": inspection.root,
        "layout": inspection.layout,
        "depth": inspection.depth.describe(),
        "formulas": FORMULAS,
        "splits": {name: summarise(records) for name, records in inspection.splits.items()},
        "near_duplicates_above": inspection.near,
        "near_duplicates": [
            {"splits": [one, other], "images": count, "of": len(inspection.splits[other])}
            for (one, other), count in inspection.neighbours.items()
        ],
        "findings": [
            {
                "kind": finding.kind,
                "level": "note" if finding.kind in NOTES else "defect",
                "text": f"{len(finding.files)} {KINDS[finding.kind]}",
                "files": finding.files,
            }
            for finding in inspection.findings
        ],
    }


def write_inspection(out_dir: str | os.PathLike, inspection: Inspection) -> tuple[str, ...]:
    """Writes inspect.json and, if there is an image, distributions.png and contact_sheet.png; all of them or none.

    Returns:
      The names of the files.

    Raises:
      FileError: if they cannot be written.
    """
    from irjax.studies.inspect_pictures import draw_contact_sheet, draw_distributions

    with whole_folder(out_dir, "irjax datasets inspect") as folder:
        write_json(folder / "inspect.json", as_data(inspection))
        if inspection.records:
            draw_distributions(folder / "distributions.png", inspection)
            draw_contact_sheet(folder / "contact_sheet.png", inspection)
        return tuple(sorted(path.name for path in folder.iterdir()))


def inspection_text(inspection: Inspection, *, lines: int = 5) -> str:
    """Returns a readable summary, with the first `lines` files of each finding."""
    text = [f"{inspection.root}: layout {inspection.layout}", ""]
    text.append(_table(inspection))
    everything = summarise(inspection.records)
    text += ["", *_overall(everything)]
    if "16" in everything["bits"] or inspection.depth != AS_STORED:
        text.append(f"depth: {inspection.depth.describe()}")
    defects = [finding for finding in inspection.findings if finding.kind not in NOTES]
    text += ["", f"kinds of defects: {len(defects)}"]
    for level, chosen in (
        ("defect", defects),
        ("note", [finding for finding in inspection.findings if finding.kind in NOTES]),
    ):
        for finding in chosen:
            text.append(f"  {level}: {len(finding.files)} {KINDS[finding.kind]}")
            text += [f"    {line}" for line in finding.files[:lines]]
            if len(finding.files) > lines:
                text.append(f"    and {len(finding.files) - lines} more")
    if inspection.near is None:
        text.append("  near duplicates were not looked for (--near)")
    for (one, other), count in inspection.neighbours.items():
        images = f"{count} of {len(inspection.splits[other])} images of {other}"
        text.append(f"  near duplicates: {images} correlate above {inspection.near:g} with one of {one}")
    return "\n".join(text)


def _table(inspection: Inspection) -> str:
    header = ("split", "images", "with targets", "targets", "4-connected", "most in one", "area median [quartiles]",
              *(f"< {limit} px" for limit in SMALL_AREAS), "SCR median [quartiles]")  # fmt: skip
    rows = []
    for name, records in inspection.splits.items():
        found = summarise(records)
        area = found["area"]
        shares = [f"{area[f'share_below_{limit}']:.0%}" if area else "-" for limit in SMALL_AREAS]
        rows.append(
            (
                name,
                *(str(found[key]) for key in ("images", "images_with_targets", "targets")),
                "-" if found["targets_4_connected"] is None else str(found["targets_4_connected"]),
                str(max(found["targets_per_image"], default=0)),
                _middle(area, "{:.0f}"),
                *shares,
                _middle(found["scr"], "{:.1f}"),
            )
        )
    return plain_table(header, rows)


def _middle(found: dict[str, float] | None, form: str) -> str:
    if not found:
        return "-"
    median, low, high = (form.format(found[key]) for key in ("median", "lower_quartile", "upper_quartile"))
    return f"{median} [{low}, {high}]"


def _overall(found: dict[str, Any]) -> list[str]:
    """Returns lines about sizes, depths and brightness of all images together."""
    sizes = list(found["sizes"].items())
    most = ", ".join(f"{size} ({count})" for size, count in sizes[:4])
    bits = ", ".join(f"{bits} bit ({count})" for bits, count in found["bits"].items())
    text = [f"all {found['images']} images: {len(sizes)} sizes, the most frequent {most or '-'}; {bits or '-'}"]
    if found["brightness"]:
        text.append(f"mean brightness of an image, share of full scale: {_middle(found['brightness'], '{:.2f}')}")
    if found["contrast"]:
        dark = f"{found['contrast']['share_dark']:.1%} darker than their background"
        text.append(f"contrast of a target, share of full scale: {_middle(found['contrast'], '{:.2f}')}; {dark}")
        text.append(f"SCR: {FORMULAS['scr']}")
    return text
