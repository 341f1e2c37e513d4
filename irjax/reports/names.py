"""Which prediction belongs to which image, when programs name them differently."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from irjax.errors import UserError

_ENDINGS = re.compile(r"\.(png|bmp|tiff?|jpe?g|webp|npy|npz|mat|xml|txt|json)$", re.IGNORECASE)
_SUFFIXES = re.compile(r"_(pixels0|mask|gt|pred)$", re.IGNORECASE)


def stem(name: str) -> str:
    """A name without folders and without the ending of an image or array file: ``a/Misc_1.png`` -> ``Misc_1``."""
    return _ENDINGS.sub("", re.split(r"[/\\]", name)[-1])


def core(name: str) -> str:
    """`stem` without the suffixes that data sets give to masks: ``Misc_1_pixels0.png`` -> ``Misc_1``."""
    return _SUFFIXES.sub("", stem(name))


def safe_name(name: str | os.PathLike) -> str:
    """A name as part of a file name: letters, digits and ``-_.``; anything else becomes ``_``."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in pathlib.PurePath(name).as_posix())


@dataclasses.dataclass(frozen=True)
class NameMatch:
    """Predictions assigned to images.

    Attributes:
      prediction_of: {image name: prediction name}, for the images that have one.
      without_prediction: image names that have none, in order.
      unknown: prediction names of no image, in order.
    """

    prediction_of: Mapping[str, str]
    without_prediction: tuple[str, ...]
    unknown: tuple[str, ...]


def match_names(predictions: Iterable[str], images: Sequence[str]) -> NameMatch:
    """Assigns predictions to images: by the whole name, else without folder and ending, else without mask suffixes.

    Args:
      predictions: names in the prediction set.
      images: names in the data set.

    Returns:
      The assignment and what is left on either side.

    Raises:
      UserError: if two predictions belong to one image, or a prediction could belong to several images.
    """
    indices: list[dict[str, list[str]]] = []
    for simplify in (str, stem, core):
        index: dict[str, list[str]] = {}
        for name in images:
            index.setdefault(simplify(name), []).append(name)
        indices.append(index)
    assigned: dict[str, str] = {}
    unknown = []
    for name in predictions:
        for simplify, index in zip((str, stem, core), indices, strict=True):
            found = index.get(simplify(name), [])
            if found:
                break
        if not found:
            unknown.append(name)
            continue
        if len(found) > 1:
            raise UserError(f"prediction {name!r} could belong to several images: {', '.join(found[:5])}")
        if found[0] in assigned:
            raise UserError(f"image {found[0]!r} has two predictions: {assigned[found[0]]!r} and {name!r}")
        assigned[found[0]] = name
    return NameMatch(assigned, tuple(name for name in images if name not in assigned), tuple(unknown))
