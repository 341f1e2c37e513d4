"""Names of images: how they follow from files, become files, and how other programs' names are matched to them.

The name of an image is its path below the folder that was given, with ``/`` between folders and without the file's
ending: ``seq1\\0001.png`` is ``seq1/0001``. Only where files differ in nothing but their ending do names keep it.
A file written for an image has its name, folders included; characters that some file system refuses, and ``%``, are
percent-encoded, so that `name_of` gives the name back.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from irjax.errors import UserError
from irjax.io.images import IMAGE_SUFFIXES

_KNOWN = "|".join(ending[1:] for ending in (*IMAGE_SUFFIXES, ".npz", ".xml", ".txt", ".json"))
_ENDINGS = re.compile(rf"(?<=[^/])\.({_KNOWN})$", re.IGNORECASE)
_SUFFIXES = re.compile(r"_(pixels0|mask|gt|pred)$", re.IGNORECASE)
_FRAME = re.compile(r"[/_]0*(\d+)$")  # a page is called NAME_0001, a frame in a folder NAME/00001
# What folders of images and of masks are called, in lower case; images/ and masks/ come first where there are several.
# The names with irstd1k are those of IRSTD-1K as published, the other long ones those of PASCAL VOC.
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "irstd1k_img")
STACK_FOLDER = "mix"  # of NUDT-MIRSDT; each of its files holds a frame after those before it
MASK_FOLDERS = (
    "masks",
    "mask",
    "labels",
    "label",
    "gt",
    "gts",
    "groundtruth",
    "ground_truth",
    "segmentationclass",
    "irstd1k_label",
)
# The last are how Python shows bytes of a file name that are no UTF-8.
_REFUSED = re.compile(r'[%<>:"|?*\\\x00-\x1f\udc80-\udcff]|[. ]+(?=/|$)')


def posix(name: str | os.PathLike) -> str:
    """Returns a path with ``/`` between folders, without a drive and without leading ``./`` and ``/``."""
    text = re.sub(r"^[A-Za-z]:(?=[\\/])", "", os.fspath(name)).replace("\\", "/")
    return re.sub(r"^(\./|/)+", "", text)


def without_ending(name: str) -> str:
    """Removes the ending of an image, array or annotation file: ``a/Misc_1.png`` -> ``a/Misc_1``; other dots stay."""
    return _ENDINGS.sub("", name)


def stem(name: str) -> str:
    """Removes folders and the ending of an image or array file: ``a/Misc_1.png`` -> ``Misc_1``."""
    return without_ending(posix(name).rpartition("/")[2])


def without_container(name: str) -> str:
    """Removes the folder of a frame if it only says what it holds: ``Sequence1/images/0001`` -> ``Sequence1/0001``."""
    *folders, last = name.split("/")
    if len(folders) > 1 and folders[-1].lower() in (*IMAGE_FOLDERS, STACK_FOLDER, *MASK_FOLDERS):
        folders.pop()
    return "/".join((*folders, last))


def frame_key(name: str) -> str:
    """Returns sequence and number of a frame, however it is called: ``clip_0001``, ``clip/images/01`` -> ``clip/1``."""
    return _FRAME.sub(r"/\1", without_container(name))


def core(name: str) -> str:
    """Returns `stem` without the suffixes that data sets give to masks: ``Misc_1_pixels0.png`` -> ``Misc_1``."""
    return _SUFFIXES.sub("", stem(name))


def image_names(files: Sequence[str | os.PathLike]) -> list[str]:
    """Returns the names of image files, given by their paths below one folder; different files have different names."""
    paths = [posix(file) for file in files]
    count = collections.Counter(map(without_ending, paths))
    return [path if count[without_ending(path)] > 1 else without_ending(path) for path in paths]


def file_of(name: str) -> str:
    """Returns the path, without ending, of the file written for an image; ``/`` separates its folders."""
    return _REFUSED.sub(lambda found: "".join(f"%{ord(char) & 0xFF:02X}" for char in found[0]), name)


def name_of(file: str | os.PathLike) -> str:
    """Returns the image's name from the path, without ending, of a file written for it; undoes `file_of`."""
    return urllib.parse.unquote(os.fspath(file).replace(os.sep, "/"), errors="surrogateescape")


def flat(name: str | os.PathLike) -> str:
    """Returns a name as part of a file name that no program reads back, such as a picture's: folders become ``_``."""
    return file_of(posix(name)).replace("/", "_")


@dataclasses.dataclass(frozen=True)
class NameMatch:
    """Predictions assigned to images.

    Attributes:
      prediction_of: {image name: prediction name}, for the images with a prediction.
      without_prediction: names of the images without a prediction, in order.
      unknown: names of the predictions without an image, in order.
    """

    prediction_of: Mapping[str, str]
    without_prediction: tuple[str, ...]
    unknown: tuple[str, ...]


# How the names of images are looked up.
_INDICES: dict[str, Callable[[str], str]] = {
    "whole": posix,
    "bare": lambda name: without_ending(posix(name)),
    "joined": lambda name: without_ending(posix(name)).replace("/", "_"),
    "frame": lambda name: frame_key(without_ending(posix(name))),
    "stem": stem,
    "core": core,
    "any case": lambda name: core(name).casefold(),
}


def _keys(prediction: str) -> Iterator[tuple[str, str]]:
    """Yields (index, key) under which the image of a prediction may be found, from the most certain on."""
    whole = posix(prediction)
    bare = without_ending(whole)
    yield "whole", whole
    for name in dict.fromkeys((bare, name_of(bare))):
        yield "whole", name
        yield "bare", name
    yield "joined", bare
    yield "frame", frame_key(bare)
    parts = bare.split("/")
    for first in range(1, len(parts)):
        rest = "/".join(parts[first:])
        yield "whole", rest
        yield "bare", rest
        yield "frame", frame_key(rest)
    for index in ("stem", "core", "any case"):
        yield index, _INDICES[index](prediction)


def _found(prediction: str, indices: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Returns the images that a prediction may belong to, by the most certain key that any image has."""
    alike = indices["stem"].get(stem(prediction), [])
    for index, key in _keys(prediction):
        there = indices[index].get(key, [])
        # The numbers 1 and 01 are one frame only where no image is called exactly so.
        if there and not (index == "frame" and alike and not set(alike) & set(there)):
            return there
    return []


def match_names(predictions: Iterable[str], images: Sequence[str]) -> NameMatch:
    """Assigns predictions to images.

    By the whole name; else without ending, as it stands or percent-decoded; else with folders joined by ``_``; else by
    the sequence and the number of the frame; else without the first folders; else without folders, then without mask
    suffixes, then whatever the case of letters.

    Args:
      predictions: names in the prediction set.
      images: names in the data set.

    Returns:
      The assignment and the names left over on either side.

    Raises:
      UserError: if two predictions belong to one image, or a prediction could belong to several images.
    """
    indices: dict[str, dict[str, list[str]]] = {index: collections.defaultdict(list) for index in _INDICES}
    for name in images:
        for index, simplify in _INDICES.items():
            indices[index][simplify(name)].append(name)
    assigned: dict[str, str] = {}
    unknown = []
    for name in predictions:
        found = _found(name, indices)
        if not found:
            unknown.append(name)
            continue
        if len(found) > 1:
            raise UserError(f"prediction {name!r} could belong to several images: {', '.join(found[:5])}")
        if found[0] in assigned:
            raise UserError(f"image {found[0]!r} has two predictions: {assigned[found[0]]!r} and {name!r}")
        assigned[found[0]] = name
    return NameMatch(assigned, tuple(name for name in images if name not in assigned), tuple(unknown))


def name_list(names: Sequence[str], count: int = 5) -> str:
    """Formats the first `count` names, and how many more there are, for messages."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def first_repeated(names: Iterable[str]) -> str | None:
    """Returns the first name that has occurred before; None if all names are unique."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
