"""Readers of published folders, one for each layout of `irjax.data.layouts`.

A reader lists files and reads split lists without opening any image. It returns a `Part` for each split of the folder.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from irjax.errors import UserError, check_folder, reading
from irjax.io import images
from irjax.io.coco import read_coco, read_points_csv

ROLES = ("train", "trainval", "val", "test", "trainvaltest")

_SYNONYMS = {"validation": "val", "valid": "val"}
_RATIO = re.compile(r"\d+_\d+")  # folders of lists in DNANet's convention, such as 50_50/train.txt
# Folders of images and masks; the second pair is that of IRSTD-1K as published.
_PAIRS = (("images", "masks"), ("IRSTD1k_Img", "IRSTD1k_Label"))
# Folders of MDvsFA, as named in its README and in its PyTorch demo.
_MDFA = (("training", "test_org", "test_gt"), ("training_data", "test_single_frame", "test_single_frame_gt"))


@dataclasses.dataclass(frozen=True)
class Part:
    """One published split.

    Attributes:
      names: the name of each example, in the order of the list; sorted if there is no list.
      images: name -> image file; may contain more than `names`.
      masks: stem -> mask file, or None where the layout has points.
      masks_in: the folder of the masks, for error messages.
      unmasked: names that have no target if they have no mask file.
      points: name -> ([K, 2] points (x, y), (height, width) or None), or None where the layout has masks.
    """

    names: tuple[str, ...]
    images: Mapping[str, pathlib.Path]
    masks: Mapping[str, pathlib.Path] | None = None
    masks_in: pathlib.Path | None = None
    unmasked: frozenset[str] = frozenset()
    points: Mapping[str, tuple[np.ndarray, tuple[int, int] | None]] | None = None


def fits(root: pathlib.Path, layout: str) -> bool:
    """Returns whether the folders and files that identify a layout are present."""
    with reading(root):
        return LAYOUTS[layout].fits(root)


def read(root: pathlib.Path, layout: str) -> dict[str, Part]:
    """Returns the published splits of a folder by name; an absent list or folder is an absent split.

    Raises:
      MissingFileError: if a folder that the layout needs is absent.
      UserError: if two files have the same name, a list is unreadable or several lists define the same split.
    """
    with reading(root):
        return LAYOUTS[layout].read(root)


def role(name: str) -> str:
    """Returns the name of a split as irjax spells it, in lower case; "validation" and "valid" become "val"."""
    return _SYNONYMS.get(name.lower(), name.lower())


def read_list(path: pathlib.Path, *, strip: bool = True) -> tuple[str, ...]:
    """Reads the names of a list file, one per line, with or without an image suffix; blank lines are ignored.

    Folders in a line ("/41/1(297)") become part of the name ("41_1(297)"), as in `index_images`. Without `strip`, the
    lines are returned as they are.
    """
    with reading(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    return tuple(_stem(name).strip("/").replace("/", "_") for name in names) if strip else names


def index_images(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the image files of a folder by name, in sorted order.

    If the folder itself contains no image, those of its subfolders are used, with the subfolder's name as a prefix.
    """
    check_folder(folder)
    found: dict[str, pathlib.Path] = {}
    for path in images.image_files(folder.iterdir()) or images.image_files(folder.rglob("*")):
        name = "_".join((*path.parent.relative_to(folder).parts, path.stem))
        if name in found:
            raise UserError(f"two files have one name: {found[name]} and {path}")
        found[name] = path
    return found


def _stem(name: str) -> str:
    """Removes an image suffix from a listed name; other dots belong to the name."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in images.IMAGE_SUFFIXES else name


def _add(lists: dict[str, tuple[str, ...]], split: str, names: tuple[str, ...], where: pathlib.Path, hint: str) -> None:
    """Adds a list; a second one for the same split is accepted only if it is identical."""
    if lists.setdefault(split, names) != names:
        raise UserError(f"{where} has several lists for {split!r}{hint}")


def _masked(root: pathlib.Path, pair: tuple[str, str], lists: Mapping[str, tuple[str, ...]]) -> dict[str, Part]:
    """Returns the parts of a folder whose splits are lists, with one folder of images and one of masks."""
    files, masks_in = index_images(root / pair[0]), root / pair[1]
    masks = index_images(masks_in)
    return {split: Part(names, files, masks, masks_in) for split, names in lists.items()}


# --- sirst_v2 ---------------------------------------------------------------------------------------------------------


def _fits_sirst_v2(root: pathlib.Path) -> bool:
    return (root / "annotations" / "masks").is_dir() and (root / "images").is_dir()


def _read_sirst_v2(root: pathlib.Path) -> dict[str, Part]:
    targets = index_images(root / "images" / "targets")
    folder = root / "images" / "backgrounds"
    backgrounds = index_images(folder) if folder.is_dir() else {}
    if both := sorted(targets.keys() & backgrounds.keys()):
        raise UserError(f"two files have one name: {targets[both[0]]} and {backgrounds[both[0]]}")
    masks_in = root / "annotations" / "masks"
    masks, files, unmasked = index_images(masks_in), targets | backgrounds, frozenset(backgrounds)
    return {
        path.stem: Part(read_list(path), files, masks, masks_in, unmasked)
        for path in sorted((root / "splits").glob("*.txt"))
    }


# --- the two formats of SPIRE -----------------------------------------------------------------------------------------


def _fits_spire(root: pathlib.Path) -> bool:
    return (root / "annotations" / "annotations.json").is_file() and (root / "images").is_dir()


def _read_spire(root: pathlib.Path) -> dict[str, Part]:
    files = index_images(root / "images")
    coco = read_coco(root / "annotations" / "annotations.json")
    paths = sorted((root / "img_idx").glob("*.txt"))
    lists = {role(path.stem): coco.resolve(read_list(path, strip=False), path) for path in paths}
    lists = lists or {"all": coco.names}
    return {split: Part(names, files, points=coco.by_name) for split, names in lists.items()}


def _spire_splits(root: pathlib.Path) -> Iterator[str]:
    return (split for split in ("train", "val", "test") if (root / split / f"{split}_images").is_dir())


def _read_spire_split(root: pathlib.Path) -> dict[str, Part]:
    parts = {}
    for split in _spire_splits(root):
        coco = read_coco(root / split / "annotations" / f"{split}.json")
        parts[split] = Part(coco.names, index_images(root / split / f"{split}_images"), points=coco.by_name)
    return parts


# --- images and masks with lists --------------------------------------------------------------------------------------


def _fits_basicirstd(root: pathlib.Path) -> bool:
    return _has_pair(root, _PAIRS[0]) and any((root / "img_idx").glob("*.txt"))


def _read_basicirstd(root: pathlib.Path) -> dict[str, Part]:
    paths = sorted((root / "img_idx").glob("*.txt"))
    # A folder may contain the lists of several data sets; then those of the set named like the folder are used.
    own = [path for path in paths if path.stem.partition("_")[2] in ("", root.name)]
    lists: dict[str, tuple[str, ...]] = {}
    for path in own or paths:
        split = role(path.stem.partition("_")[0])
        _add(lists, split, read_list(path), path.parent, f", and none for {root.name}")
    return _masked(root, _PAIRS[0], lists or {"all": tuple(index_images(root / "images"))})


def _has_pair(root: pathlib.Path, pair: tuple[str, str]) -> bool:
    return all((root / folder).is_dir() for folder in pair)


def _list_files(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields (split, list file): TRAIN.txt beside the images and in idx_N/ is train, in 50_50/ it is train_50_50."""
    places = [("", root), *(("", path) for path in sorted(root.glob("idx_*")))]
    places += [(f"_{path.name}", path) for path in sorted(root.iterdir()) if _RATIO.fullmatch(path.name)]
    for suffix, place in places:
        for path in sorted(place.glob("*.txt")):
            if role(path.stem) in ROLES:
                yield role(path.stem) + suffix, path


def _fits_lists(root: pathlib.Path) -> bool:
    return any(_has_pair(root, pair) for pair in _PAIRS) and any(True for _ in _list_files(root))


def _read_lists(root: pathlib.Path) -> dict[str, Part]:
    pair = next((pair for pair in _PAIRS if _has_pair(root, pair)), _PAIRS[0])
    lists: dict[str, tuple[str, ...]] = {}
    for split, path in _list_files(root):
        _add(lists, split, read_list(path), root, f", {path} among them")
    return _masked(root, pair, lists)


def _fits_sirst_uavb(root: pathlib.Path) -> bool:
    return (root / "images" / "all").is_dir() and (root / "masks").is_dir()


def _read_sirst_uavb(root: pathlib.Path) -> dict[str, Part]:
    # Its paper and SPIRE's report results on val.txt, so it is a test list.
    files = {name: root / f"{file}.txt" for name, file in (("train", "train"), ("test", "val"))}
    lists = {name: read_list(path) for name, path in files.items() if path.is_file()}
    return _masked(root, ("images/all", "masks"), lists)


# --- splits that are folders ------------------------------------------------------------------------------------------


def _split_folders(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, pathlib.Path]]:
    """Yields (split, images, masks) of SPLIT/images and SPLIT/masks, or of images/SPLIT and masks/SPLIT."""
    for parent in (root, root / "images"):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            name = role(folder.name.removesuffix(".txt"))  # one copy of IRDST has folders named SPLIT.txt
            pair = (folder / "images", folder / "masks") if parent == root else (folder, root / "masks" / folder.name)
            if name in ROLES and all(path.is_dir() for path in pair):
                yield name, *pair


def _read_split_folders(root: pathlib.Path) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for split, image_folder, mask_folder in _split_folders(root):
        if split in parts:
            raise UserError(f"{root} has several folders for {split!r}, {image_folder} among them")
        files = index_images(image_folder)
        parts[split] = Part(tuple(files), files, index_images(mask_folder), mask_folder)
    return parts


def _mdfa_folders(root: pathlib.Path) -> tuple[str, str, str]:
    return next((names for names in _MDFA if any((root / name).is_dir() for name in names)), _MDFA[0])


def _fits_mdfa(root: pathlib.Path) -> bool:
    training, *test = _mdfa_folders(root)
    return any((root / training).glob("*_1.png")) or all((root / name).is_dir() for name in test)


def _read_mdfa(root: pathlib.Path) -> dict[str, Part]:
    training, test, truth = (root / name for name in _mdfa_folders(root))
    parts = {}
    if training.is_dir():
        both = index_images(training)
        files, masks = ({n[:-2]: p for n, p in both.items() if n.endswith(ending)} for ending in ("_1", "_2"))
        parts["train"] = Part(tuple(files), files, masks, training)
    if test.is_dir():
        files = index_images(test)
        parts["test"] = Part(tuple(files), files, index_images(truth), truth)
    return parts


# --- no splits --------------------------------------------------------------------------------------------------------


def _read_folder(root: pathlib.Path) -> dict[str, Part]:
    return _masked(root, _PAIRS[0], {"all": tuple(index_images(root / "images"))})


def _fits_points(root: pathlib.Path) -> bool:
    return (root / "images").is_dir() and (root / "points.csv").is_file()


def _read_points(root: pathlib.Path) -> dict[str, Part]:
    files = index_images(root / "images")
    table = read_points_csv(root / "points.csv", frozenset(files))
    none = np.zeros((0, 2), np.float32)
    return {"all": Part(tuple(files), files, points={name: (table.get(name, none), None) for name in files})}


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The test for a layout, its reader, and a description of its files for error messages."""

    fits: Callable[[pathlib.Path], bool]
    read: Callable[[pathlib.Path], dict[str, Part]]
    marks: str


# Layouts are tried in this order, since a folder that fits one may also fit a later one.
LAYOUTS: Mapping[str, _Layout] = {
    "sirst_v2": _Layout(_fits_sirst_v2, _read_sirst_v2, "images/ and annotations/masks/"),
    "spire": _Layout(_fits_spire, _read_spire, "images/ and annotations/annotations.json"),
    "spire_split": _Layout(
        lambda root: any(True for _ in _spire_splits(root)), _read_spire_split, "train/train_images/"
    ),
    "mdfa": _Layout(_fits_mdfa, _read_mdfa, "training/*_1.png or test_org/ and test_gt/"),
    "split_folders": _Layout(
        lambda root: any(True for _ in _split_folders(root)),
        _read_split_folders,
        "SPLIT/images/ and SPLIT/masks/, or images/SPLIT/ and masks/SPLIT/",
    ),
    "sirst_uavb": _Layout(_fits_sirst_uavb, _read_sirst_uavb, "images/all/ and masks/"),
    "basicirstd": _Layout(_fits_basicirstd, _read_basicirstd, "images/, masks/ and img_idx/*.txt"),
    "lists": _Layout(_fits_lists, _read_lists, "images/, masks/ and SPLIT.txt, idx_*/SPLIT.txt or 50_50/SPLIT.txt"),
    "folder": _Layout(lambda root: _has_pair(root, _PAIRS[0]), _read_folder, "images/ and masks/"),
    "points": _Layout(_fits_points, _read_points, "images/ and points.csv"),
}
