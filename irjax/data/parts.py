"""What a folder of images and annotations consists of: its parts, and which folder holds what."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from irjax.errors import UserError
from irjax.io.images import IMAGE_SUFFIXES, Frame
from irjax.io.lists import MASK_SUFFIXES
from irjax.io.names import IMAGE_FOLDERS, MASK_FOLDERS, STACK_FOLDER, frame_key
from irjax.io.sequences import Place, page_mark, places
from irjax.types import ImageLabels

ROLES = ("train", "trainval", "val", "test", "trainvaltest")
FLAGS = "say the two folders with --images DIR --masks DIR"

_SYNONYMS = {"validation": "val", "valid": "val"}


@dataclasses.dataclass(frozen=True)
class Part:
    """One published split.

    Attributes:
      names: the name of each example, in the order of the list; sorted if there is no list.
      images: name -> image file, or frame of a file with several; may contain more than `names`.
      masks: stem -> mask file or frame, or None where the layout has points.
      masks_in: the folder of the masks, for error messages.
      unmasked: names that have no target if they have no mask file.
      points: name -> ([K, 2] points (x, y), (height, width) or None), or None where the layout has masks.
      labels: name -> annotation, read when it is asked for, where the layout has boxes; `points` are their centres.
      stated: name -> stem of its mask, for lists that name both.
      problems: name -> "LIST, line N: what is wrong", for the lines of a list that mean no image.
      framed: whether every folder of images is a sequence, as the layout says.
    """

    names: tuple[str, ...]
    images: Mapping[str, pathlib.Path | Frame]
    masks: Mapping[str, pathlib.Path | Frame] | None = None
    masks_in: pathlib.Path | None = None
    unmasked: frozenset[str] = frozenset()
    points: Mapping[str, tuple[np.ndarray, tuple[int, int] | None]] | None = None
    labels: Mapping[str, ImageLabels] | None = None
    stated: Mapping[str, str] = dataclasses.field(default_factory=dict)
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)
    framed: bool = False

    @functools.cached_property
    def places(self) -> dict[str, Place]:
        """The place of each of `images` that is a frame of a sequence, by name."""
        return places(self.images, folders=self.framed)

    def masks_of(self, name: str) -> list[str]:
        """Returns the stems of the masks that an image has by its name; a frame's also NAME_mask_0001 and NAME/0001."""
        masks, file = self.masks or {}, self.images.get(name)
        known = [name + suffix for suffix in MASK_SUFFIXES]
        if isinstance(file, Frame) and file.page >= 0:
            mark = page_mark(file.page)
            known += [name.removesuffix(mark) + suffix + mark for suffix in MASK_SUFFIXES[1:]]
            numbered = self._numbered_masks.get(frame_key(name))
            known += [numbered] if numbered is not None and numbered not in known else []
        return [mask for mask in known if mask in masks]

    @functools.cached_property
    def _numbered_masks(self) -> dict[str, str]:
        return {frame_key(mask): mask for mask in self.masks or () if "/" in mask}

    @property
    def sequences(self) -> dict[str, str]:
        """The file or folder of the sequence of each of `images` that is a frame, by name."""
        return {name: place.origin for name, place in self.places.items()}


def role(name: str) -> str:
    """Returns the name of a split as irjax spells it, in lower case; "validation" and "valid" become "val"."""
    return _SYNONYMS.get(name.lower(), name.lower())


def subfolders(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders in a folder that are not hidden, sorted."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _holds(folder: pathlib.Path, suffixes: Sequence[str]) -> bool:
    """Returns whether a folder, or one below it, has a file with one of the endings."""
    return any(path.suffix.lower() in suffixes and not path.name.startswith(".") for path in folder.rglob("*"))


def find_pair(
    root: pathlib.Path, names: Sequence[str] = MASK_FOLDERS, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> tuple[pathlib.Path, pathlib.Path] | None:
    """Returns the folder of the images and that of the annotations, by their names; None if one is missing.

    Raises:
      UserError: if several folders could be either, and they are not images/ and masks/.
    """
    there = {path.name.lower(): path for path in subfolders(root)}
    if names is MASK_FOLDERS and "images" in there and "masks" in there:
        return there["images"], there["masks"]
    pictures = [there[name] for name in IMAGE_FOLDERS if name in there]
    found = [there[name] for name in names if name in there]
    if not pictures or not found:
        return None
    found = [path for path in found if _holds(path, suffixes)]
    if len(found) > 1 or (found and len(pictures) > 1):
        both = " and ".join(path.name for path in (found if len(found) > 1 else pictures))
        raise UserError(f"{root} has {both}, which could both be meant: {FLAGS}")
    return (pictures[0], found[0]) if found else None


def inner_splits(
    image_folder: pathlib.Path, mask_folder: pathlib.Path
) -> Iterator[tuple[str, pathlib.Path, pathlib.Path]]:
    """Yields (split, images, annotations) of IMAGES/SPLIT and MASKS/SPLIT."""
    for folder in subfolders(image_folder):
        if role(_plain(folder)) in ROLES and (mask_folder / folder.name).is_dir():
            yield role(_plain(folder)), folder, mask_folder / folder.name


def _plain(folder: pathlib.Path) -> str:
    return folder.name.removesuffix(".txt")  # one copy of IRDST has folders named SPLIT.txt


def sequence_folders(root: pathlib.Path, depth: int = 3) -> Iterator[tuple[pathlib.Path, pathlib.Path, pathlib.Path]]:
    """Yields (sequence, images, masks) of the folders below `root`, at most `depth` deep, that hold both."""
    for folder in subfolders(root):
        if own := find_pair(folder) or _stacks(folder):
            yield folder, *own
        elif depth > 1:
            yield from sequence_folders(folder, depth - 1)


def _stacks(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path] | None:
    """Returns NUDT-MIRSDT's folders Mix and masks if both are there."""
    there = {path.name.lower(): path for path in subfolders(folder)}
    return (there[STACK_FOLDER], there["masks"]) if {STACK_FOLDER, "masks"} <= there.keys() else None


def split_folders(
    root: pathlib.Path, find: Callable[[pathlib.Path], tuple[pathlib.Path, pathlib.Path] | None] = find_pair
) -> Iterator[tuple[str, pathlib.Path, pathlib.Path]]:
    """Yields (split, images, annotations) of SPLIT/{images,masks}, or of {images,masks}/SPLIT.

    Of SPLIT with folders of sequences, SPLIT is yielded as both.
    """
    for folder in subfolders(root):
        if role(_plain(folder)) in ROLES:
            if own := find(folder):
                yield role(_plain(folder)), *own
            elif find is find_pair and any(True for _ in sequence_folders(folder)):
                yield role(_plain(folder)), folder, folder
    if own := find(root):
        yield from inner_splits(*own)
