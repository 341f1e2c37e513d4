"""Inspection of a folder of annotated images: its contents and its defects.

Every file is opened. A file that cannot be read is listed, and the others are still read. Numbers refer to the splits
as published, without the validation split that irjax would draw.

- Area, box and centroid of a target: an 8-connected region of the binary mask.
- Contrast: mean of the target's pixels minus mean of its background, as a fraction of white (255; of 16-bit images what
  the depth says); negative for targets darker than their background.
- SCR, signal-to-clutter ratio: |mean of the target - mean of its background| / standard deviation of its background.
- Background of a target: its box and 20 px around it on each side, clipped to the image, without the pixels of any
  target. `irjax.metrics.clutter` says what is known of the formula and of the 20 px.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from irjax.bars import bar
from irjax.data import folders, layouts
from irjax.errors import UsageError, UserError
from irjax.io import images
from irjax.io.headers import image_depth
from irjax.io.images import AS_STORED, Depth, Frame, path_or_frame
from irjax.io.masks import MaskSet, read_levels
from irjax.labels.targets import inverted_masks, label_mask
from irjax.ops.regions import find_regions
from irjax.types import Labels

BACKGROUND = 20  # px around a target's box
SMALL_AREAS = (10, 81)  # px; 9x9 is the usual upper limit of a small target in the literature
THUMBNAIL = 32  # px, side of the thumbnails that near duplicates are compared at
NEAR = 0.99  # correlation of near duplicates

_TRAINING, _HELD_OUT = ("train", "trainval"), ("val", "test")


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """The measurements of one image.

    Attributes:
      name: file name without extension.
      path: path of the image, or its frame of a file with several.
      mask_path: path of the mask, or its frame; None if there is none.
      size: (height, width) in pixels.
      bits: bits of a stored sample, 8 or 16, whatever part of them is used.
      digest: SHA-256 of the decoded image: equal for equal pixels, independent of the file format.
      brightness: mean of the image, as a fraction of full scale.
      thumbnail: [1024] float32, the image at 32x32 minus its mean, normalised to length 1; zeros for a flat image.
      labels: the targets; without boxes and areas if the layout has points.
      contrast: [K] float64, nan where there is no background; None without masks.
      scr: [K] float64, nan where there is no background, infinite on a flat background; None without masks.
      four_connected: number of targets if only pixels that share an edge are connected; None without masks.
    """

    name: str
    path: str | Frame
    mask_path: str | Frame | None
    size: tuple[int, int]
    bits: int
    digest: str
    brightness: float
    thumbnail: np.ndarray
    labels: Labels
    contrast: np.ndarray | None = None
    scr: np.ndarray | None = None
    four_connected: int | None = None


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of defect or note.

    Attributes:
      kind: a key of `KINDS`.
      files: the files concerned, one line each: the file and the problem.
    """

    kind: str
    files: tuple[str, ...]


KINDS = {
    "missing_image": "listed names have no image",
    "missing_mask": "images have no mask, or several",
    "unreadable_image": "images cannot be read",
    "unreadable_mask": "masks cannot be read",
    "size_mismatch": "annotations are of another size than their image",
    "point_outside": "images have points outside",
    "listed_twice": "names are twice in one list",
    "shared_images": "images are in two splits that should be apart",
    "duplicate_between": "images have the same pixels as an image of a split that should be apart",
    "near_duplicate": "images nearly equal an image of a split that should be apart",
    "split_sequence": "sequences have frames in two splits that should be apart",
    "duplicate_within": "sets of images have the same pixels",
    "gray_mask": "masks are not binary: the threshold decides (above half of the highest level)",
    "empty_mask": "masks have no target",
    "inverted_masks": "data sets have masks that are mostly target",
    "connectivity": "masks have more targets when 4-connected than when 8-connected",
    "related_splits": "pairs of splits of different families share images",
    "unlisted": "images are in no split",
}
NOTES = ("empty_mask", "inverted_masks", "connectivity", "related_splits", "unlisted")  # these are not defects


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The contents of a folder.

    Attributes:
      root: the folder.
      layout: one of `irjax.data.layouts.LAYOUTS`.
      splits: split -> its images that could be read, in the order of its list.
      findings: defects and notes, in the order of `KINDS`.
      near: the correlation above which images count as near duplicates, or None if these were not requested.
      depth: which stored values of the images are black and white.
      masks: the mask files, with the rule that makes them binary.
      neighbours: (split, split that should be apart) -> number of images of the second that nearly equal one of the
        first, if near duplicates were requested.
    """

    root: str
    layout: str
    splits: Mapping[str, tuple[ImageRecord, ...]]
    findings: tuple[Finding, ...]
    near: float | None = None
    depth: Depth = AS_STORED
    masks: MaskSet = MaskSet(())
    neighbours: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """All images, each once."""
        return tuple({record.path: record for records in self.splits.values() for record in records}.values())


def inspect_folder(
    root: str | os.PathLike,
    layout: str = "auto",
    split: str | None = None,
    *,
    near: float | None = None,
    depth: Depth = AS_STORED,
    image_folder: str | os.PathLike | None = None,
    mask_folder: str | os.PathLike | None = None,
) -> Inspection:
    """Reads every image and annotation of a folder; continues if one cannot be read.

    Args:
      root: the folder.
      layout: one of `irjax.data.layouts.LAYOUTS`, or "auto" to detect it.
      split: only this split; all published ones by default.
      near: also look for near duplicates between training and held-out splits: images whose correlation at 32x32 is
        above this. `NEAR` is .99.
      depth: which stored values of the images are black and white; by default, of 16-bit images those that the data set
        tells (`irjax.data.layouts.depth_of_set`).
      image_folder: folder of the images, in place of a layout; goes with `mask_folder`.
      mask_folder: folder of the masks.

    Returns:
      The contents, by split, and the defects.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if it is in no known layout, has no such split, or `near` is not in (0, 1).
    """
    root = pathlib.Path(root)
    if near is not None and not 0 < near < 1:
        raise UsageError(f"near duplicates are counted from a correlation between 0 and 1, got {near}")
    how = layouts.FolderOptions(layout, images=image_folder, masks=mask_folder)
    _, layout, parts = layouts.published_parts(root, how)
    if depth == AS_STORED:
        pictures = {path_or_frame(path): None for part in parts.values() for path in part.images.values()}
        depth = layouts.depth_of_set(sorted(pictures, key=str))
    if split is not None:
        if split not in parts:
            raise UserError(f"{root} ({layout}) has no published split {split!r}; there are {', '.join(parts)}")
        parts = {split: parts[split]}
    found: dict[str, list[str]] = collections.defaultdict(list)
    known: dict[pathlib.Path | Frame, ImageRecord | None] = {}
    every = {path_or_frame(path): None for part in parts.values() for path in (part.masks or {}).values()}
    masks = MaskSet(tuple(sorted(every, key=str)))
    read = functools.partial(_read_one, root=root, depth=depth, masks=masks, found=found)
    splits = {name: _read_part(name, part, read, known, found) for name, part in parts.items()}
    records = {record.path: record for part in splits.values() for record in part}.values()
    if said := inverted_masks((record.labels, record.size) for record in records):
        found["inverted_masks"].append(said)
    neighbours = _compare_splits(splits, near, found, root)
    _compare_sequences(parts, found, root)
    _find_duplicates(splits, found, root)
    if split is None:
        listed = {path for part in parts.values() for name in part.names if (path := part.images.get(name))}
        there = sorted({path for part in parts.values() for path in part.images.values()} - listed, key=str)
        found["unlisted"] += [_short(path, root) for path in there]
    findings = tuple(Finding(kind, tuple(dict.fromkeys(found[kind]))) for kind in KINDS if found[kind])
    return Inspection(str(root), layout, splits, findings, near, depth, masks, neighbours)


# --- one image --------------------------------------------------------------------------------------------------------


def _read_part(
    split: str,
    part: folders.Part,
    read: Callable[[str, pathlib.Path | Frame, folders.Part], ImageRecord | None],
    known: dict[pathlib.Path | Frame, ImageRecord | None],
    found: dict[str, list[str]],
) -> tuple[ImageRecord, ...]:
    """Returns the records of a split; an image that is also in another split is read only once."""
    counts = collections.Counter(part.names)
    found["listed_twice"] += [f"{name}: {count} times in {split}" for name, count in counts.items() if count > 1]
    records = []
    for name in bar(counts, split):
        path = part.images.get(name)
        if path is None:
            found["missing_image"].append(f"{name}, in {split}")
            continue
        if path not in known:
            known[path] = read(name, path, part)
        record = known[path]
        if record is not None:
            records.append(record)
    return tuple(records)


def _read_one(
    name: str,
    path: pathlib.Path | Frame,
    part: folders.Part,
    *,
    root: pathlib.Path,
    depth: Depth,
    masks: MaskSet,
    found: dict[str, list[str]],
) -> ImageRecord | None:
    """Measures one image with its annotation; returns None if one of them is unusable. Defects are added to `found`."""
    try:
        image = images.read_image(path, depth)
    except UserError as error:
        found["unreadable_image"].append(_reason(error, root))
        return None
    if part.points is not None:
        points, stated = part.points[name]
        if stated is not None and tuple(stated) != image.shape:
            found["size_mismatch"].append(f"{_short(path, root)}: {_size(image.shape)}, annotated as {_size(stated)}")
        if np.any((points < -0.5) | (points >= np.array(image.shape[::-1]) - 0.5)):
            found["point_outside"].append(f"{_short(path, root)}: {_size(image.shape)}")
        return measure(name, path, image, Labels(points))
    try:
        (mask_path,) = layouts.mask_files(dataclasses.replace(part, names=(name,)))
    except UserError as error:
        found["missing_mask"].append(_reason(error, root))
        return None
    if mask_path is None:
        return measure(name, path, image, label_mask(np.zeros(image.shape, np.bool_)))
    mask = _read_mask(mask_path, root, masks, found)
    if mask is None:
        return None
    if mask.shape != image.shape:
        sizes = f"{_size(mask.shape)}, {_short(path, root)}: {_size(image.shape)}"
        found["size_mismatch"].append(f"{_short(mask_path, root)}: {sizes}")
        return None
    record = measure(name, path, image, label_mask(mask), mask, mask_path)
    if record.four_connected != len(record.labels):
        counts = f"{record.four_connected} targets 4-connected, {len(record.labels)} 8-connected"
        found["connectivity"].append(f"{_short(mask_path, root)}: {counts}")
    return record


def _read_mask(path: str | Frame, root: pathlib.Path, masks: MaskSet, found: dict[str, list[str]]) -> np.ndarray | None:
    where = _short(path, root)
    try:
        levels = read_levels(path)
    except UserError as error:
        found["unreadable_mask"].append(_reason(error, root))
        return None
    rule = masks.rule_of(path, levels)
    mask = rule.apply(levels)
    if rule.gray:
        changed = int(np.count_nonzero((levels > 0) & ~mask))
        targets = f"{len(find_regions(levels > 0))} targets above 0, {len(find_regions(mask))} {rule.name}"
        found["gray_mask"].append(f"{where}: {changed} px above 0 are no target; {targets}")
    if not mask.any():
        found["empty_mask"].append(where)
    return mask


def measure(
    name: str,
    path: str | os.PathLike | Frame,
    image: np.ndarray,
    labels: Labels,
    mask: np.ndarray | None = None,
    mask_path: str | Frame | None = None,
) -> ImageRecord:
    """Measures one image.

    Args:
      name: file name without extension.
      path: path of the image.
      image: [H, W] uint8 or uint16.
      labels: its targets.
      mask: [H, W] bool, or None if there is no mask or no target in it.
      mask_path: path of the mask.
    """
    full = float(np.iinfo(image.dtype).max)
    kind = repr((image.shape, image.dtype.str)).encode()
    contrast, scr = (None, None) if labels.boxes is None else local_contrast(image, mask, labels)
    return ImageRecord(
        name=name,
        path=path_or_frame(path),
        mask_path=mask_path,
        size=image.shape,
        bits=image_depth(path),
        digest=hashlib.sha256(kind + np.ascontiguousarray(image).tobytes()).hexdigest(),
        brightness=float(image.mean(dtype=np.float64) / full),
        thumbnail=_thumbnail(image),
        labels=labels,
        contrast=None if contrast is None else contrast / full,
        scr=scr,
        four_connected=None if labels.boxes is None else 0 if mask is None else len(find_regions(mask, 4)),
    )


def local_contrast(image: np.ndarray, mask: np.ndarray | None, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Measures how targets differ from their surroundings (formulas in this module's docstring).

    Args:
      image: [H, W], any numbers.
      mask: [H, W] bool, of all targets; may be None if there is none.
      labels: the targets of the mask, 8-connected.

    Returns:
      Contrast [K] in the image's units, and SCR [K]; nan without background, SCR infinite on a flat one.
    """
    contrast, deviation = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    regions = find_regions(mask) if mask is not None and len(labels) else None
    assert labels.boxes is not None
    for number, (left, top, right, bottom) in enumerate(labels.boxes):
        near = np.s_[max(top - BACKGROUND, 0) : bottom + BACKGROUND, max(left - BACKGROUND, 0) : right + BACKGROUND]
        assert regions is not None
        part, owner = image[near], regions.labels[near]
        background = part[owner == 0]
        if background.size:
            contrast[number] = part[owner == number + 1].mean(dtype=np.float64) - background.mean(dtype=np.float64)
            deviation[number] = background.std(dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return contrast, np.abs(contrast) / deviation


def _thumbnail(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    small = Image.fromarray(image.astype(np.float32)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    values = np.asarray(small).reshape(-1)
    values = values - values.mean()
    length = np.linalg.norm(values)
    # A flat image must not correlate with anything, not even through rounding errors.
    return values / length if length > 1e-3 else np.zeros_like(values)


# --- splits against each other ----------------------------------------------------------------------------------------


def _apart(splits: Iterable[str]) -> list[tuple[str, str, bool]]:
    """Returns pairs of splits that must not share images, and whether they are of one family (train_v1, val_v1)."""
    names = list(splits)
    pairs = []
    for one in names:
        for other in names:
            (role, _, family), (second, _, second_family) = one.partition("_"), other.partition("_")
            mixed = role in _TRAINING and second in _HELD_OUT and not (role == "trainval" and second == "val")
            if mixed or (role, second) == ("val", "test"):
                pairs.append((one, other, family == second_family))
    return pairs


def _compare_splits(
    splits: Mapping[str, tuple[ImageRecord, ...]], near: float | None, found: dict[str, list[str]], root: pathlib.Path
) -> dict[tuple[str, str], int]:
    """Finds images that two splits share: by file, by pixels, and near duplicates, which are counted for each pair."""
    neighbours = {}
    for one, other, family in _apart(splits):
        paths = {record.path for record in splits[one]}
        digests = {record.digest: record for record in splits[one]}
        shared = [record for record in splits[other] if record.path in paths]
        if not family:
            if shared:
                found["related_splits"].append(f"{one} and {other} share {len(shared)} images")
            continue
        found["shared_images"] += [f"{_short(record.path, root)}: in {one} and {other}" for record in shared]
        for record in splits[other]:
            twin = digests.get(record.digest)
            if twin is not None and record.path not in paths:
                pair = f"{_short(record.path, root)} ({other}) = {_short(twin.path, root)} ({one})"
                found["duplicate_between"].append(pair)
        if near is not None and splits[one] and splits[other]:
            lines = _near(splits[one], splits[other], (one, other), near, root)
            found["near_duplicate"] += lines
            neighbours[one, other] = len(lines)
    return neighbours


def _near(
    first: tuple[ImageRecord, ...],
    second: tuple[ImageRecord, ...],
    names: tuple[str, str],
    limit: float,
    root: pathlib.Path,
) -> list[str]:
    """Finds for each image of the second split the most similar of the first, if its correlation is above the limit."""
    stack = np.stack([record.thumbnail for record in first])
    lines = []
    for record in bar(second, "comparing"):
        correlation = stack @ record.thumbnail
        best = int(np.argmax(correlation))
        twin = first[best]
        if correlation[best] > limit and twin.digest != record.digest:
            pair = f"{_short(record.path, root)} ({names[1]}) ~ {_short(twin.path, root)} ({names[0]})"
            lines.append(f"{pair}: {correlation[best]:.4f}")
    return lines


def _compare_sequences(parts: Mapping[str, folders.Part], found: dict[str, list[str]], root: pathlib.Path) -> None:
    """Finds sequences with frames in two splits, which are near-copies of each other."""
    counts = {}
    for split, part in parts.items():
        own = part.sequences
        counts[split] = collections.Counter(own[name] for name in dict.fromkeys(part.names) if name in own)
    for one, other, family in _apart(parts):
        for origin in [origin for origin in counts[one] if family and origin in counts[other]]:
            frames = f"{counts[one][origin]} frames in {one}, {counts[other][origin]} in {other}"
            found["split_sequence"].append(f"{_short(origin, root)}: {frames}")


def _find_duplicates(
    splits: Mapping[str, tuple[ImageRecord, ...]], found: dict[str, list[str]], root: pathlib.Path
) -> None:
    for records in splits.values():
        groups: dict[str, list[str]] = collections.defaultdict(list)
        for record in records:
            groups[record.digest].append(_short(record.path, root))
        # Listed without the split: a set within train is also within trainval, but it is one defect.
        found["duplicate_within"] += [" = ".join(sorted(group)) for group in groups.values() if len(group) > 1]


def _short(path: str | os.PathLike | Frame, root: pathlib.Path) -> str:
    path = pathlib.Path(str(path))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _reason(error: Exception, root: pathlib.Path) -> str:
    return " ".join(str(error).split()).replace(f"{root}{os.sep}", "")


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]}"
