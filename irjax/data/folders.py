"""Readers of published folders, one for each layout of `irjax.data.layouts`.

A reader lists files and reads split lists without opening any image. It returns a `Part` for each split of the folder.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from irjax.data.parts import (
    FLAGS,
    ROLES,
    Part,
    find_pair,
    inner_splits,
    role,
    sequence_folders,
    split_folders,
    subfolders,
)
from irjax.errors import UserError, check_folder, note, reading
from irjax.io import formats, images, lists
from irjax.io.coco import read_coco
from irjax.io.headers import image_size
from irjax.io.images import Frame
from irjax.io.lists import index_files
from irjax.io.names import STACK_FOLDER, without_ending
from irjax.io.points import read_points_csv
from irjax.io.sequences import counted_alike, index_images
from irjax.types import ImageLabels, Labels

__all__ = ["FLAGS", "LAYOUTS", "Part", "fits", "read", "read_pair", "role"]

_RATIO = re.compile(r"\d+_\d+")  # folders of lists in DNANet's convention, such as 50_50/train.txt
_BOXES = {"yolo": (("labels", "label"), (".txt",)), "voc": (("annotations", "annotation", "xml"), (".xml",))}
# Folders of MDvsFA, as named in its README and in its PyTorch demo.
_MDFA = (("training", "test_org", "test_gt"), ("training_data", "test_single_frame", "test_single_frame_gt"))


class _Lazy(Mapping):
    """A mapping whose values are made when they are asked for."""

    def __init__(self, keys: Sequence[str], value: Callable[[str], Any]):
        self._keys, self._value = dict.fromkeys(keys), value

    def __getitem__(self, key: str) -> Any:
        self._keys[key]  # raises KeyError
        return self._value(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


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


def read_pair(root: pathlib.Path, image_folder: pathlib.Path, mask_folder: pathlib.Path) -> dict[str, Part]:
    """Returns the splits of a folder of images and one of masks: by folders in them, else by lists, else "all".

    Args:
      root: where lists may lie: root/SPLIT.txt, root/img_idx/SPLIT_SET.txt and so on.
      image_folder: the images.
      mask_folder: the masks; the same folder if they lie beside the images as NAME_mask, NAME_gt or NAME_pixels0.
    """
    check_folder(image_folder)
    check_folder(mask_folder)
    with reading(root):
        if image_folder.resolve() == mask_folder.resolve():
            return _beside(root, image_folder)
        if splits := list(inner_splits(image_folder, mask_folder)):
            return _read_splits(root, splits)
        found = _basicirstd_lists(root) if _index_lists(root) else _named_lists(root)
        return _listed(image_folder, mask_folder, found)


def _add(found: dict[str, pathlib.Path], split: str, path: pathlib.Path, where: pathlib.Path, hint: str) -> None:
    """Adds a list; a second one for the same split is accepted only if it is identical."""

    def names(place: pathlib.Path) -> list[str]:
        return [without_ending("/".join(lists.path_parts(line))) for _, line in lists.read_lines(place)]

    if names(found.setdefault(split, path)) != names(path):
        raise UserError(f"{where} has several lists for {split!r}{hint}")


def _listed(
    image_folder: pathlib.Path,
    mask_folder: pathlib.Path,
    files: Mapping[str, pathlib.Path],
    indexed: Mapping[str, pathlib.Path | Frame] | None = None,
    **more: Any,
) -> dict[str, Part]:
    """Returns the parts of a folder of images and one of masks whose splits are lists; all images if there are none."""
    pictures = index_images(image_folder) if indexed is None else indexed
    masks = index_images(mask_folder)
    whole = Part(tuple(pictures), pictures, masks, mask_folder, **more)
    if files or indexed is not None:
        return _split_by_lists(whole, files)
    _note_strays(whole)
    return {"all": whole}


def _split_by_lists(whole: Part, files: Mapping[str, pathlib.Path]) -> dict[str, Part]:
    """Returns the parts of a folder with masks that its lists name; none if there are no lists."""
    named = {name: place.sequence for name, place in whole.places.items()} if files else {}
    find, find_mask = lists.Resolver(whole.images, named), lists.Resolver(whole.masks or ())
    parts = {}
    for split, path in files.items():
        found = lists.read_list(path, find, find_mask)
        parts[split] = dataclasses.replace(whole, names=found.names, stated=found.masks, problems=found.problems)
    return parts


def _note_strays(part: Part) -> None:
    """Says how many masks have no image; they are not used."""
    known = {mask for name in part.images for mask in part.masks_of(name)}
    masks = part.masks or {}
    if strays := [name for name in masks if name not in known]:
        example = pathlib.Path(masks[strays[0]]).name
        note(f"{len(strays)} masks have no image, such as {example}", str(part.masks_in))


# --- sirst_v2 ---------------------------------------------------------------------------------------------------------


def _fits_sirst_v2(root: pathlib.Path) -> bool:
    return (root / "annotations" / "masks").is_dir() and (root / "images").is_dir()


def _read_sirst_v2(root: pathlib.Path) -> dict[str, Part]:
    targets = index_files(root / "images" / "targets")
    folder = root / "images" / "backgrounds"
    backgrounds = index_files(folder) if folder.is_dir() else {}
    if both := sorted(targets.keys() & backgrounds.keys()):
        raise UserError(f"two files have one name: {targets[both[0]]} and {backgrounds[both[0]]}")
    files = {path.stem: path for path in sorted((root / "splits").glob("*.txt"))}
    masks_in = root / "annotations" / "masks"
    return _listed(root, masks_in, files, targets | backgrounds, unmasked=frozenset(backgrounds))


# --- the two formats of SPIRE -----------------------------------------------------------------------------------------


def _fits_spire(root: pathlib.Path) -> bool:
    return (root / "annotations" / "annotations.json").is_file() and (root / "images").is_dir()


def _read_spire(root: pathlib.Path) -> dict[str, Part]:
    paths = sorted((root / "img_idx").glob("*.txt"))
    found = {role(path.stem): path for path in paths}
    return _coco_parts(root / "images", root / "annotations" / "annotations.json", found or {"all": None})


def _coco_parts(
    image_folder: pathlib.Path, path: pathlib.Path, files: Mapping[str, pathlib.Path | None]
) -> dict[str, Part]:
    """Returns the parts of images that a COCO file annotates; a split without a list is all of its images."""
    coco = read_coco(path)
    pictures = index_images(image_folder)
    find = lists.Resolver(pictures)
    names: dict[str, str] = {}
    problems = {}
    for name, file in coco.files.items():
        try:
            names[name] = find(file) or name
        except UserError as error:
            names[name] = name
            problems[name] = f"{path}: {error}"
    if len(set(names.values())) < len(names):
        twice = next(name for number, name in enumerate(names.values()) if name in list(names.values())[:number])
        raise UserError(f"{path}: two of its images could be {twice} of {image_folder}")
    points = {names[name]: found for name, found in coco.by_name.items()}
    parts: dict[str, Part] = {}
    for split, listing in files.items():
        own = coco.names if listing is None else coco.resolve(lists.read_lines(listing), listing)
        parts[split] = Part(tuple(names[name] for name in own), pictures, points=points, problems=problems)
    return parts


def _spire_splits(root: pathlib.Path) -> Iterator[str]:
    return (split for split in ("train", "val", "test") if (root / split / f"{split}_images").is_dir())


def _read_spire_split(root: pathlib.Path) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for split in _spire_splits(root):
        path = root / split / "annotations" / f"{split}.json"
        parts |= _coco_parts(root / split / f"{split}_images", path, {split: None})
    return parts


# --- images and masks with lists --------------------------------------------------------------------------------------


def _fits_basicirstd(root: pathlib.Path) -> bool:
    return bool(_index_lists(root)) and find_pair(root) is not None


def _index_lists(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the lists in img_idx; or in video_idx, which list sequences where img_idx has the frames of each."""
    return sorted((root / "video_idx").glob("*.txt")) or sorted((root / "img_idx").glob("*.txt"))


def _basicirstd_lists(root: pathlib.Path) -> dict[str, pathlib.Path]:
    paths = _index_lists(root)
    # A folder may contain the lists of several data sets; then those of the set named like the folder are used.
    own = [path for path in paths if path.stem.partition("_")[2] in ("", root.name)]
    found: dict[str, pathlib.Path] = {}
    for path in own or paths:
        split = role(path.stem.partition("_")[0])
        _add(found, split, path, path.parent, f", and none for {root.name}")
    return found


def _list_files(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields (split, list file): TRAIN.txt beside the images and in idx_N/ is train, in 50_50/ it is train_50_50.

    Of PASCAL VOC's ImageSets/{Segmentation,Main} the first that is there counts.
    """
    places = [("", root), *(("", path) for path in sorted(root.glob("idx_*")))]
    places += [(f"_{path.name}", path) for path in subfolders(root) if _RATIO.fullmatch(path.name)]
    sets = (root / "ImageSets" / name for name in ("Segmentation", "Main", ""))
    places += [("", path) for path in sets if any(path.glob("*.txt"))][:1]
    for suffix, place in places:
        for path in sorted(place.glob("*.txt")):
            if role(path.stem) in ROLES:
                yield role(path.stem) + suffix, path


def _named_lists(root: pathlib.Path) -> dict[str, pathlib.Path]:
    found: dict[str, pathlib.Path] = {}
    for split, path in _list_files(root):
        _add(found, split, path, root, f", {path} among them")
    return found


def _fits_lists(root: pathlib.Path) -> bool:
    return any(True for _ in _list_files(root)) and find_pair(root) is not None


def _read_named(root: pathlib.Path, find: Callable[[pathlib.Path], dict[str, pathlib.Path]]) -> dict[str, Part]:
    pair = find_pair(root) or (root / "images", root / "masks")
    return _listed(*pair, find(root))


def _fits_sirst_uavb(root: pathlib.Path) -> bool:
    return (root / "images" / "all").is_dir() and (root / "masks").is_dir()


def _read_sirst_uavb(root: pathlib.Path) -> dict[str, Part]:
    # Its paper and SPIRE's report results on val.txt, so it is a test list.
    files = {name: root / f"{file}.txt" for name, file in (("train", "train"), ("test", "val"))}
    return _listed(
        root / "images" / "all", root / "masks", {name: path for name, path in files.items() if path.is_file()}
    )


# --- splits that are folders ------------------------------------------------------------------------------------------


def _read_splits(root: pathlib.Path, splits: Sequence[tuple[str, pathlib.Path, pathlib.Path]]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for split, image_folder, mask_folder in splits:
        if split in parts:
            raise UserError(f"{root} has several folders for {split!r}, {image_folder} among them")
        if image_folder == mask_folder:
            parts[split] = _read_sequences(image_folder)
        else:
            parts[split] = _listed(image_folder, mask_folder, {})["all"]
    return parts


def _read_sequences(folder: pathlib.Path) -> Part:
    """Returns the images of SEQUENCE/{images,masks} as SEQUENCE/NAME; SEQUENCE may be several folders deep."""
    files: dict[str, pathlib.Path | Frame] = {}
    masks: dict[str, pathlib.Path | Frame] = {}
    for below, image_folder, mask_folder in sequence_folders(folder):
        prefix = below.relative_to(folder).as_posix()
        files |= {f"{prefix}/{name}": path for name, path in _frames_in(image_folder).items()}
        masks |= {f"{prefix}/{name}": path for name, path in index_images(mask_folder).items()}
    part = Part(tuple(files), files, masks, folder, framed=True)
    _note_strays(part)
    return part


def _frames_in(folder: pathlib.Path) -> Mapping[str, pathlib.Path | Frame]:
    """Returns the frames of one sequence by name; a file of NUDT-MIRSDT's folder Mix is the last of its frames."""
    if folder.name.lower() != STACK_FOLDER:
        return index_images(folder)
    files = index_files(folder)
    return {name: Frame(str(path), -1) if path.suffix.lower() == ".mat" else path for name, path in files.items()}


def _fits_sequences(root: pathlib.Path) -> bool:
    """Returns whether the folders in a folder are sequences; not data sets, which have lists or other names."""
    found = list(sequence_folders(root))
    return bool(found) and not any(
        _index_lists(folder) or any(True for _ in _list_files(folder)) or not counted_alike(index_files(pictures))
        for folder, pictures, _ in found
    )


def _read_sequence_lists(root: pathlib.Path) -> dict[str, Part]:
    if own := find_pair(root):
        pictures = index_images(own[0])
        whole = Part(tuple(pictures), pictures, index_images(own[1]), own[1], framed=True)
    else:
        whole = _read_sequences(root)
    found = _basicirstd_lists(root) if _index_lists(root) else _named_lists(root)
    return _split_by_lists(whole, found) or {"all": whole}


def _mdfa_folders(root: pathlib.Path) -> tuple[str, str, str]:
    return next((names for names in _MDFA if any((root / name).is_dir() for name in names)), _MDFA[0])


def _fits_mdfa(root: pathlib.Path) -> bool:
    training, *test = _mdfa_folders(root)
    return any((root / training).glob("*_1.png")) or all((root / name).is_dir() for name in test)


def _read_mdfa(root: pathlib.Path) -> dict[str, Part]:
    training, test, truth = (root / name for name in _mdfa_folders(root))
    parts = {}
    if training.is_dir():
        both = index_files(training)
        files, masks = ({n[:-2]: p for n, p in both.items() if n.endswith(ending)} for ending in ("_1", "_2"))
        parts["train"] = Part(tuple(files), files, masks, training)
    if test.is_dir():
        files = index_files(test)
        parts["test"] = Part(tuple(files), files, index_files(truth), truth)
    return parts


# --- boxes: YOLO and PASCAL VOC ---------------------------------------------------------------------------------------


def _box_pair(root: pathlib.Path, kind: str) -> tuple[pathlib.Path, pathlib.Path] | None:
    return find_pair(root, *_BOXES[kind])


def _fits_boxes(root: pathlib.Path, kind: str) -> bool:
    pair = functools.partial(_box_pair, kind=kind)
    return pair(root) is not None or any(True for _ in split_folders(root, pair))


def _read_boxes(root: pathlib.Path, kind: str) -> dict[str, Part]:
    pair = functools.partial(_box_pair, kind=kind)
    parts: dict[str, Part] = {}
    for split, image_folder, folder in split_folders(root, pair):
        if split in parts:
            raise UserError(f"{root} has several folders for {split!r}, {image_folder} among them")
        parts[split] = _boxes(image_folder, folder, kind)
    own = pair(root)
    if parts or own is None:
        return parts
    whole = _boxes(*own, kind)
    find = lists.Resolver(whole.images)
    found = {split: lists.read_list(path, find) for split, path in _named_lists(root).items()}
    return {
        split: dataclasses.replace(whole, names=one.names, problems=one.problems) for split, one in found.items()
    } or {"all": whole}


def _boxes(image_folder: pathlib.Path, folder: pathlib.Path, kind: str) -> Part:
    """Returns the images of a folder with one annotation each; in YOLO, an image without a file has no target."""
    pictures = index_images(image_folder)
    files = {
        name: path for name, path in index_files(folder, _BOXES[kind][1]).items() if path.name not in lists.NO_LABELS
    }
    if strays := [name for name in files if name not in pictures]:
        note(f"{len(strays)} annotations have no image, such as {files[strays[0]].name}", folder)

    @functools.cache
    def read(name: str) -> ImageLabels:
        if kind == "voc" and name not in files:
            raise UserError(f"no annotation for {pictures[name]}: looked for {name}.xml in {folder}")
        size = image_size(pictures[name])
        if name not in files:
            return ImageLabels(name, Labels(np.zeros((0, 2), np.float32), np.zeros((0, 4))), size)
        return formats.read_annotation(files[name], kind, name, size)

    return Part(
        tuple(pictures),
        pictures,
        points=_Lazy(tuple(pictures), lambda name: (read(name).labels.points, read(name).size)),
        labels=_Lazy(tuple(pictures), read),
    )


# --- no splits --------------------------------------------------------------------------------------------------------


def _fits_flat(root: pathlib.Path) -> bool:
    names = {path.stem for path in lists.files_among(root.iterdir(), images.IMAGE_SUFFIXES)}
    return any(name + suffix in names for name in names for suffix in lists.MASK_SUFFIXES[1:])


def _beside(root: pathlib.Path, folder: pathlib.Path) -> dict[str, Part]:
    """Returns the parts of a folder in which NAME_mask, NAME_gt or NAME_pixels0 lies beside each image NAME."""
    every = index_files(folder, nested=False)
    masks = {name: path for name, path in every.items() if name.endswith(lists.MASK_SUFFIXES[1:])}
    pictures = {name: path for name, path in every.items() if name not in masks}
    whole = Part(tuple(pictures), pictures, masks, folder)
    _note_strays(whole)
    return _split_by_lists(whole, _named_lists(root)) or {"all": whole}


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


def _box_layout(kind: str, marks: str) -> _Layout:
    return _Layout(functools.partial(_fits_boxes, kind=kind), functools.partial(_read_boxes, kind=kind), marks)


# Layouts are tried in this order, since a folder that fits one may also fit a later one.
LAYOUTS: Mapping[str, _Layout] = {
    "sirst_v2": _Layout(_fits_sirst_v2, _read_sirst_v2, "images/ and annotations/masks/"),
    "spire": _Layout(_fits_spire, _read_spire, "images/ and annotations/annotations.json"),
    "spire_split": _Layout(
        lambda root: any(True for _ in _spire_splits(root)), _read_spire_split, "train/train_images/"
    ),
    "mdfa": _Layout(_fits_mdfa, _read_mdfa, "training/*_1.png or test_org/ and test_gt/"),
    "split_folders": _Layout(
        lambda root: any(True for _ in split_folders(root)),
        lambda root: _read_splits(root, list(split_folders(root))),
        "SPLIT/images/ and SPLIT/masks/, or images/SPLIT/ and masks/SPLIT/",
    ),
    "sirst_uavb": _Layout(_fits_sirst_uavb, _read_sirst_uavb, "images/all/ and masks/"),
    "basicirstd": _Layout(
        _fits_basicirstd, functools.partial(_read_named, find=_basicirstd_lists), "images/, masks/ and img_idx/*.txt"
    ),
    "lists": _Layout(
        _fits_lists,
        functools.partial(_read_named, find=_named_lists),
        "images/, masks/ and SPLIT.txt, idx_*/SPLIT.txt, 50_50/SPLIT.txt or ImageSets/*/SPLIT.txt",
    ),
    "folder": _Layout(
        lambda root: find_pair(root) is not None,
        functools.partial(_read_named, find=lambda root: {}),
        "images/ and masks/",
    ),
    "yolo": _box_layout("yolo", "images/ and labels/*.txt, with or without folders SPLIT"),
    "voc": _box_layout("voc", "JPEGImages/ and Annotations/*.xml"),
    "flat": _Layout(_fits_flat, lambda root: _beside(root, root), "NAME.png and NAME_mask.png in one folder"),
    "points": _Layout(_fits_points, _read_points, "images/ and points.csv"),
    "sequences": _Layout(
        _fits_sequences,
        _read_sequence_lists,
        "folders of numbered frames SEQUENCE/images/ (or Mix/) and SEQUENCE/masks/",
    ),
}
