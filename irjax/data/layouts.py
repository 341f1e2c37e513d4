"""Readers for the folder layouts in which IRSTD data sets are published.

| layout | what is on disk | splits |
|---|---|---|
| `sirst_v2` | images/{targets,backgrounds}, annotations/masks/NAME_pixels0.png, splits/SPLIT.txt | the lists' names |
| `basicirstd` | images, masks, img_idx/{train,test,...}_SET.txt | the part before `_SET` |
| `spire` | images, annotations/annotations.json (COCO keypoints), img_idx/{train,test}.txt (ids) | the lists' names |
| `folder` | images, masks | all |
| `points` | images, points.csv (name,x,y; an image without a row has no target) | all |

An absent list is an absent split. Where there is no validation list, `train` and `val` are carved from the train list
(from all images where there are no lists) by a seeded draw, and the whole train list is called `trainval`.

Everything that can be checked without decoding images is checked when a layout is opened; sizes, masks and points are
checked when an example is read. Nothing is skipped: an error names the file.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from irjax.data import annotations, images
from irjax.ops import regions
from irjax.types import Example

LAYOUTS = ("sirst_v2", "spire", "basicirstd", "folder", "points")

_MASK_SUFFIXES = ("", "_pixels0", "_mask", "_gt")
_SYNONYMS = {"validation": "val", "valid": "val"}


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """One split of a published folder; holds paths and reads lazily (an `irjax.types.Source`).

    Attributes:
      root: the folder of the data set.
      layout: one of `LAYOUTS`.
      split: the split's name.
      names: the name of each example.
      images: the image file of each example.
      masks: the mask file of each example, None for an image without targets; or None where the layout has points.
      points: [K, 2] float32 (x, y) of each example where the layout has points, else None.
      sizes: (height, width) that the annotations state for each example, or None.
    """

    root: str
    layout: str
    split: str
    names: tuple[str, ...]
    images: tuple[str, ...]
    masks: tuple[str | None, ...] | None = None
    points: tuple[np.ndarray, ...] | None = dataclasses.field(default=None, compare=False)
    sizes: tuple[tuple[int, int], ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """Reads example `index`.

        Raises:
          IndexError: if the index is outside the source.
          ValueError: if a file cannot be read, the mask and the image differ in size, or a point is outside the image.
        """
        image = images.read_image(self.images[index])
        if self.masks is None:
            points, mask = self._annotated_points(index, image.shape), None
        else:
            mask = self._mask(index, image.shape)
            points = regions.points_from_mask(mask)
        return Example(name=self.names[index], image=image, points=points, mask=mask)

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss: uint16 if any file has 16 bits, from the headers alone."""
        deep = any(images.image_depth(path) == 16 for path in self.images)
        return np.dtype(np.uint16 if deep else np.uint8)

    def mask_rule(self, index: int) -> str | None:
        """How the mask of example `index` was made binary (see `images.read_mask`); None without a mask file."""
        path = self.masks[index] if self.masks is not None else None
        return images.read_mask(path)[1] if path else None

    def _mask(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        path = self.masks[index]
        if path is None:
            return np.zeros(shape, np.bool_)
        mask, _ = images.read_mask(path)
        _check_size(path, mask.shape, self.images[index], shape)
        return mask

    def _annotated_points(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        if self.sizes is not None:
            _check_size(f"the annotation of {self.names[index]}", self.sizes[index], self.images[index], shape)
        points = self.points[index]
        height, width = shape
        # A pixel reaches half a pixel beyond its centre.
        outside = np.any((points < -0.5) | (points >= np.array([width, height]) - 0.5), axis=1)
        if outside.any():
            x, y = points[np.argmax(outside)]
            where = f"outside the image of {width}x{height} pixels"
            raise ValueError(f"{self.images[index]}: the point ({x:g}, {y:g}) is {where}")
        return points


def detect_layout(root: str | os.PathLike) -> str:
    """Says in which of `LAYOUTS` a folder is.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if no layout fits, or masks/ and points.csv both do; the message says what was looked for.
    """
    root = _folder(root)
    has_images = (root / "images").is_dir()
    if (root / "annotations" / "masks").is_dir() and has_images:
        return "sirst_v2"
    if (root / "annotations" / "annotations.json").is_file() and has_images:
        return "spire"
    masks, points = (root / "masks").is_dir(), (root / "points.csv").is_file()
    if has_images and masks and any((root / "img_idx").glob("*.txt")):
        return "basicirstd"
    if has_images and masks and points:
        raise ValueError(f"{root} has both masks/ and points.csv: say layout='folder' or layout='points'")
    if has_images and (masks or points):
        return "folder" if masks else "points"
    raise ValueError(
        f"{root} is in no known layout. Looked for images/ together with annotations/masks/ (sirst_v2), "
        "annotations/annotations.json (spire), masks/ and img_idx/*.txt (basicirstd), masks/ (folder), "
        "points.csv (points)"
    )


def list_splits(
    root: str | os.PathLike, layout: str = "auto", *, seed: int = 0, fraction: float = 0.2
) -> tuple[str, ...]:
    """The names of the splits that `open_layout` accepts for a folder, carved ones included."""
    root, layout = _resolve(root, layout)
    return tuple(_splits(root, layout, _image_files(root, layout), seed, fraction))


def open_layout(
    root: str | os.PathLike, split: str, layout: str = "auto", *, seed: int = 0, fraction: float = 0.2
) -> FolderSource:
    """Opens one split of a published folder.

    Args:
      root: the folder.
      split: a split's name (see `list_splits`).
      layout: one of `LAYOUTS`, or "auto" to find out.
      seed: of the draw that carves a validation split where none is published.
      fraction: of the train list that the carved validation split takes.

    Returns:
      The examples of that split, in the order of its list.

    Raises:
      FileNotFoundError: if the folder does not exist.
      ValueError: if the layout or the split is unknown or the split empty; if a listed name has no image or no mask
        file, or several, or appears twice; if lists of one family (train, val, test) share names; if annotations are
        malformed.
    """
    root, layout = _resolve(root, layout)
    files = _image_files(root, layout)
    splits = _splits(root, layout, files, seed, fraction)
    wanted = _SYNONYMS.get(split, split)
    if wanted not in splits:
        raise ValueError(f"{root} ({layout}) has no split {split!r}; available: {', '.join(splits) or 'none'}")
    names = splits[wanted]
    if not names:
        raise ValueError(f"{root} ({layout}): split {split!r} is empty")
    _check_names(names, files, f"{root} ({layout}), split {split!r}")
    _check_family(splits, wanted, root)
    common = {
        "root": str(root),
        "layout": layout,
        "split": wanted,
        "names": names,
        "images": tuple(str(files[name]) for name in names),
    }
    if layout == "spire":
        records = annotations.read_coco(root / "annotations" / "annotations.json").by_name
        points, sizes = zip(*(records[name] for name in names), strict=True)
        return FolderSource(**common, points=points, sizes=sizes)
    if layout == "points":
        table = annotations.read_points_csv(root / "points.csv", frozenset(files))
        none = np.zeros((0, 2), np.float32)
        return FolderSource(**common, points=tuple(table.get(name, none) for name in names))
    return FolderSource(**common, masks=_mask_files(root, layout, names, files))


def carve_validation(
    names: Iterable[str], fraction: float = 0.2, seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits names into train and validation by a seeded draw, the same for any order of the names.

    Args:
      names: at least two names.
      fraction: share of the validation part, in (0, 1); at least one name goes to each part.
      seed: of the draw.

    Returns:
      (train, val), each in the order of `names`.

    Raises:
      ValueError: if there are fewer than two names or the fraction is outside (0, 1).
    """
    names = tuple(names)
    if len(names) < 2:
        raise ValueError(f"a validation split can be carved from two names or more, got {len(names)}")
    if not 0 < fraction < 1:
        raise ValueError(f"the validation fraction must be between 0 and 1, got {fraction}")
    count = min(max(round(fraction * len(names)), 1), len(names) - 1)
    drawn = np.random.default_rng(seed).permutation(len(names))[:count]
    ordered = sorted(names)
    chosen = {ordered[index] for index in drawn}
    return tuple(n for n in names if n not in chosen), tuple(n for n in names if n in chosen)


def _folder(root: str | os.PathLike) -> pathlib.Path:
    root = pathlib.Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    return root


def _resolve(root: str | os.PathLike, layout: str) -> tuple[pathlib.Path, str]:
    root = _folder(root)
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"unknown layout {layout!r}; known: auto, {', '.join(LAYOUTS)}")
    return root, detect_layout(root) if layout == "auto" else layout


def _stem(name: str) -> str:
    """A listed name without the ending of an image file; other dots belong to the name."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in images.IMAGE_SUFFIXES else name


def _index(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Stem -> image file of a folder, in sorted order."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in images.IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise ValueError(f"two files have one name: {found[path.stem]} and {path}")
        found[path.stem] = path
    return found


def _image_files(root: pathlib.Path, layout: str) -> dict[str, pathlib.Path]:
    """Name -> image file."""
    if layout != "sirst_v2":
        return _index(root / "images")
    targets = _index(root / "images" / "targets")
    folder = root / "images" / "backgrounds"
    backgrounds = _index(folder) if folder.is_dir() else {}
    if both := sorted(targets.keys() & backgrounds.keys()):
        raise ValueError(f"two files have one name: {targets[both[0]]} and {backgrounds[both[0]]}")
    return targets | backgrounds


def _mask_files(
    root: pathlib.Path, layout: str, names: tuple[str, ...], files: Mapping[str, pathlib.Path]
) -> tuple[str | None, ...]:
    folder = root / "annotations" / "masks" if layout == "sirst_v2" else root / "masks"
    found = _index(folder)
    paths: list[str | None] = []
    for name in names:
        candidates = [found[name + suffix] for suffix in _MASK_SUFFIXES if name + suffix in found]
        if len(candidates) > 1:
            raise ValueError(f"two masks for {files[name]}: {candidates[0]} and {candidates[1]}")
        # The publication of SIRST-v2 keeps images without targets apart, so there a mask may be absent.
        if not candidates and not (layout == "sirst_v2" and files[name].parent.name == "backgrounds"):
            looked = ", ".join(f"{name}{suffix}.*" for suffix in _MASK_SUFFIXES)
            raise ValueError(f"no mask for {files[name]}: looked for {looked} in {folder}")
        paths.append(str(candidates[0]) if candidates else None)
    return tuple(paths)


def _splits(
    root: pathlib.Path, layout: str, files: Mapping[str, pathlib.Path], seed: int, fraction: float
) -> dict[str, tuple[str, ...]]:
    """Split -> names, carved splits included."""
    splits = _lists(root, layout)
    if not splits and layout != "sirst_v2":
        splits = {"all": tuple(files)}
    if "val" in splits or {"train", "trainval"} <= splits.keys():
        return splits
    base = next((name for name in ("train", "trainval", "all") if len(splits.get(name, ())) > 1), None)
    if base is None:
        return splits
    whole = splits[base]
    train, val = carve_validation(whole, fraction, seed)
    return splits | {base if base == "all" else "trainval": whole, "train": train, "val": val}


def _lists(root: pathlib.Path, layout: str) -> dict[str, tuple[str, ...]]:
    """Split -> names, as the published lists have them."""
    if layout == "sirst_v2":
        return {path.stem: _read_list(path) for path in sorted((root / "splits").glob("*.txt"))}
    paths = sorted((root / "img_idx").glob("*.txt")) if layout in ("basicirstd", "spire") else []
    if layout == "spire":
        coco = annotations.read_coco(root / "annotations" / "annotations.json")
        lists = {_SYNONYMS.get(p.stem, p.stem): coco.resolve(_read_list(p, strip=False), p) for p in paths}
        return lists or {"all": coco.names}
    # One folder may hold the lists of several sets: then the set named like the folder counts.
    own = [path for path in paths if path.stem.partition("_")[2] in ("", root.name)]
    lists: dict[str, tuple[str, ...]] = {}
    for path in own or paths:
        split = path.stem.partition("_")[0].lower()
        split = _SYNONYMS.get(split, split)
        if split in lists:
            raise ValueError(f"{path.parent} has several lists for {split!r}, and none for {root.name}")
        lists[split] = _read_list(path)
    return lists


def _read_list(path: pathlib.Path, *, strip: bool = True) -> tuple[str, ...]:
    """The names of a list file, one a line, with or without the ending of an image file; blank lines are ignored."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file of names ({error})") from error
    names = tuple(line.strip() for line in lines if line.strip())
    return tuple(_stem(name) for name in names) if strip else names


def _check_names(names: tuple[str, ...], files: Mapping[str, pathlib.Path], where: str) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise ValueError(f"{where}: {twice} is listed twice")
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"{where}: {len(missing)} listed names have no image file: {_some(missing)}")


def _check_family(splits: Mapping[str, tuple[str, ...]], split: str, root: pathlib.Path) -> None:
    """Refuses a split that shares names with its siblings; train_full and val_full are siblings, train_v1 is not."""
    role, _, family = split.partition("_")
    roles = ("train", "val", "test")
    if role not in roles and role != "trainval":
        return
    # trainval holds train and val by definition, but no test name may be in it.
    others = ("test",) if role == "trainval" else tuple(r for r in roles if r != role)
    for other in others:
        sibling = f"{other}_{family}" if family else other
        if shared := sorted(set(splits[split]) & set(splits.get(sibling, ()))):
            raise ValueError(f"{root}: {len(shared)} names are in both {split!r} and {sibling!r}: {_some(shared)}")


def _check_size(what: str, size: tuple[int, int], image: str, shape: tuple[int, int]) -> None:
    if tuple(size) != tuple(shape):
        raise ValueError(f"{what} is for {size[1]}x{size[0]} pixels, but the image {image} has {shape[1]}x{shape[0]}")


def _some(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
